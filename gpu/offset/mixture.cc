#include "gpu/offset/mixture.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/base/internal/raw_logging.h"
#include "gpu/offset/blend_row.h"

namespace kedge::offset {
namespace {

constexpr double kOneHot = 1e9;  // a sharpness at which only the nearest one is left

// to = kept * to + added * from, rows of layers 1 and up; `from` may have more tokens.
void Blend(float kept, const KvRows& from, float added, int64_t token, KvRows& to) {
  for (int64_t layer = 1; layer < to.layers; ++layer) {
    BlendRow(kept, added, from.Key(layer, token).data(), to.width, to.Key(layer, token).data());
    BlendRow(kept, added, from.Value(layer, token).data(), to.width, to.Value(layer, token).data());
  }
}

void Divide(float sum, int64_t token, KvRows& rows) {
  if (sum <= 0) return;
  Blend(1.0f / sum, rows, 0.0f, token, rows);
}

}  // namespace

Mix::Mix(int64_t layers, int64_t tokens, int64_t prefix_tokens, int64_t width)
    : nearest_(std::numeric_limits<double>::infinity()),
      sums_(tokens + 1),
      filling_(KvRows::Of(layers, tokens, width)),
      prefix_(KvRows::Of(layers, prefix_tokens, width)) {}

Mix::Factors Mix::Join(Sum& sum, const Sum& other) {
  if (other.e == 0) return {1.0f, 0.0f};
  if (sum.e == 0) {
    sum = other;
    return {0.0f, 1.0f};
  }
  const float most = std::max(sum.max_logit, other.max_logit);
  const float here = std::exp(sum.max_logit - most);
  const float there = std::exp(other.max_logit - most);
  // e_logit is against the side's own largest logit.
  const float here_shift = here == 0 ? 0 : (sum.max_logit - most) * sum.e * here;
  const float there_shift = there == 0 ? 0 : (other.max_logit - most) * other.e * there;
  sum.e_logit = sum.e_logit * here + here_shift + other.e_logit * there + there_shift;
  sum.e = sum.e * here + other.e * there;
  sum.max_logit = most;
  return {here, there};
}

void Mix::Add(const MixOptions& options, const Sketch& filling, const Sketch& anchor,
              const KvRows& filling_offset, const KvRows& prefix_offset) {
  ABSL_RAW_CHECK(filling_offset.tokens == anchor.tokens &&
                     filling_offset.layers == filling_.layers &&
                     filling_offset.width == filling_.width,
                 "an anchor of the pool's shape");
  ABSL_RAW_CHECK(prefix_offset.SameShape(prefix_), "a prefix segment of the pool's shape");
  Weigh(options, filling, anchor);
  const double distance = Distance(filling, anchor, filling_.tokens) / options.scale;
  for (int64_t token = 0; token <= filling_.tokens; ++token) {
    double logit = -options.sharpness * distance;
    if (options.weighting == Weighting::kMean) logit = 0;
    if (options.weighting == Weighting::kNearest) logit = -kOneHot * distance;
    if (options.weighting == Weighting::kToken && token < filling_.tokens)
      logit = -options.sharpness * TokenDistance(filling, anchor, token) / options.scale;
    const Factors factors = Join(sums_[token], One(logit));
    if (token < filling_.tokens) {
      Blend(factors.kept, filling_offset, factors.added, token, filling_);
    } else {
      for (int64_t i = 0; i < prefix_.tokens; ++i)
        Blend(factors.kept, prefix_offset, factors.added, i, prefix_);
    }
  }
}

void Mix::Weigh(const MixOptions& options, const Sketch& filling, const Sketch& anchor) {
  ABSL_RAW_CHECK(filling.tokens == filling_.tokens && anchor.tokens >= filling_.tokens,
                 "an anchor as long as the filling");
  ABSL_RAW_CHECK(options.scale > 0, "a positive scale");
  const double distance = Distance(filling, anchor, filling_.tokens) / options.scale;
  nearest_ = std::min(nearest_, distance);
  ++anchors_;
  Join(gate_, One(-options.sharpness * distance));
}

void Mix::Merge(const Mix& other) {
  ABSL_RAW_CHECK(filling_.SameShape(other.filling_) && prefix_.SameShape(other.prefix_),
                 "mixes of one shape");
  nearest_ = std::min(nearest_, other.nearest_);
  anchors_ += other.anchors_;
  Join(gate_, other.gate_);
  for (int64_t token = 0; token <= filling_.tokens; ++token) {
    const Factors factors = Join(sums_[token], other.sums_[token]);
    if (token < filling_.tokens) {
      Blend(factors.kept, other.filling_, factors.added, token, filling_);
    } else {
      for (int64_t i = 0; i < prefix_.tokens; ++i)
        Blend(factors.kept, other.prefix_, factors.added, i, prefix_);
    }
  }
}

double Mix::entropy() const {
  if (gate_.e <= 0) return 0;
  return std::max(0.0, std::log(double{gate_.e}) - double{gate_.e_logit} / gate_.e);
}

KvRows Mix::FillingOffset() const {
  KvRows rows = filling_;
  for (int64_t token = 0; token < rows.tokens; ++token) Divide(sums_[token].e, token, rows);
  return rows;
}

KvRows Mix::PrefixOffset() const {
  KvRows rows = prefix_;
  for (int64_t token = 0; token < rows.tokens; ++token) Divide(sums_.back().e, token, rows);
  return rows;
}

}  // namespace kedge::offset
