#include "store/block/linear_pool.h"

namespace kedge {
namespace {

constexpr size_t kErrorRuns = 8;

void Keep(offset::OffsetError error, std::deque<offset::OffsetError>& errors) {
  errors.push_back(std::move(error));
  if (errors.size() > kErrorRuns) errors.pop_front();
}

}  // namespace

LinearPool::LinearPool(const AnchorShape& shape, const offset::LinearOptions& options)
    : shape_(shape),
      filling_(shape.layers, shape.width, options),
      prefix_(shape.layers, shape.width, options) {}

absl::Status LinearPool::Update(const offset::KvRows& filling_base,
                                const offset::KvRows& prefix_base, const offset::Anchor& anchor) {
  if (!(AnchorShape::Of(anchor) == shape_))
    return absl::InvalidArgumentError("anchor: its kind, shape or template is not the pool's");
  if (!filling_base.SameShape(anchor.filling) || !prefix_base.SameShape(anchor.prefix))
    return absl::InvalidArgumentError("base: its shape is not the offsets'");
  const std::lock_guard<std::mutex> lock(mutex_);
  if (filling_.runs() > 0) {
    if (trial_ == nullptr || 2 * filling_.runs() >= 3 * trial_runs_) {
      trial_ = Solve();
      trial_runs_ = filling_.runs();
    }
    Keep(ErrorOf(trial_->filling.Predict(filling_base), anchor.filling), filling_errors_);
    Keep(ErrorOf(trial_->prefix.Predict(prefix_base), anchor.prefix), prefix_errors_);
  }
  filling_.Update(filling_base, anchor.filling);
  prefix_.Update(prefix_base, anchor.prefix);
  maps_.reset();
  return absl::OkStatus();
}

std::shared_ptr<const LinearPool::Maps> LinearPool::Solve() const {
  if (maps_ == nullptr && filling_.runs() > 0) {
    auto maps = std::make_shared<Maps>();
    maps->filling = filling_.Solve();
    maps->prefix = prefix_.Solve();
    for (const offset::OffsetError& error : filling_errors_) maps->error.filling.Add(error);
    for (const offset::OffsetError& error : prefix_errors_) maps->error.prefix.Add(error);
    maps->error.predicted = static_cast<int64_t>(filling_errors_.size());
    maps_ = std::move(maps);
  }
  return maps_;
}

std::shared_ptr<const LinearPool::Maps> LinearPool::maps() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return Solve();
}

int64_t LinearPool::runs() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return filling_.runs();
}

int64_t LinearPool::bytes() const { return filling_.bytes() + prefix_.bytes(); }

}  // namespace kedge
