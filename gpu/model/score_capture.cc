#include "gpu/model/score_capture.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "gpu/kernels/column_mass.h"

namespace kedge {

ScoreCapture::ScoreCapture(const Model& model, int64_t extent, int64_t window)
    : device_(model.device()),
      layers_(model.config().layers),
      heads_(model.config().heads),
      extent_(extent),
      every_query_(window == 0),
      window_(every_query_ ? extent : std::min(window, extent)),
      mass_(layers_ * heads_ * extent_),
      rows_(layers_) {}

void ScoreCapture::Attach(PrefillOptions& options) {
  options.on_attention_done = [this](int64_t layer, const kernels::AttentionArgs& attention) {
    Add(layer, attention);
  };
}

void ScoreCapture::Add(int64_t layer, const kernels::AttentionArgs& attention) {
  kernels::AttentionArgs counted = attention;
  counted.rows = std::min(attention.rows, extent_ - attention.first_position);
  const int64_t first = std::max<int64_t>(0, extent_ - window_ - attention.first_position);
  if (first >= counted.rows) return;
  rows_[layer] += counted.rows - first;
  kernels::ColumnMass(device_, counted, first, extent_, mass_.data() + layer * heads_ * extent_);
}

absl::StatusOr<codec::ScoreSidecar> ScoreCapture::Finish() const {
  for (int64_t layer = 0; layer < layers_; ++layer) {
    if (rows_[layer] == window_) continue;
    return absl::FailedPreconditionError(absl::StrCat("scores: layer ", layer, ": ", rows_[layer],
                                                      " of ", window_, " queries were computed"));
  }
  codec::ScoreSidecar sidecar{
      .kind = every_query_ ? codec::SidecarKind::kSum : codec::SidecarKind::kWindow,
      .tokens = static_cast<uint32_t>(extent_),
      .layers = static_cast<uint16_t>(layers_),
      .heads = static_cast<uint16_t>(heads_),
      .window = static_cast<uint16_t>(every_query_ ? 0 : window_)};
  sidecar.codes.reserve(mass_.size());
  for (size_t i = 0; i < mass_.size(); ++i) {
    const int64_t token = static_cast<int64_t>(i) % extent_;
    const int64_t observers = every_query_ ? extent_ - token : window_;
    sidecar.codes.push_back(codec::ScoreCode(mass_[i] / static_cast<float>(observers)));
  }
  return sidecar;
}

}  // namespace kedge
