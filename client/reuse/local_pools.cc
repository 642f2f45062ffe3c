#include "client/reuse/local_pools.h"

#include <utility>
#include <vector>

#include "gpu/kernels/cast.h"

namespace kedge {
namespace {

class Answered final : public OffsetCall {
 public:
  explicit Answered(OffsetAnswer answer) : answer_(std::move(answer)) {}
  absl::StatusOr<OffsetAnswer> Wait() override { return std::move(answer_); }
  void Cancel() override {}

 private:
  OffsetAnswer answer_;
};

void Round(DType dtype, offset::KvRows& rows) {
  if (dtype == DType::kF32) return;
  std::vector<uint8_t> rounded(rows.keys.size() * kernels::FloatBytes(dtype));
  for (std::vector<float>* part : {&rows.keys, &rows.values}) {
    const auto count = static_cast<int64_t>(part->size());
    kernels::CastFromFloat(dtype, part->data(), count, rounded.data());
    kernels::CastToFloat(dtype, rounded.data(), count, part->data());
  }
}

}  // namespace

LocalPools::Pool LocalPools::Find(const offset::PoolName& name) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = pools_.find(name);
  return found == pools_.end() ? Pool{} : found->second;
}

LocalPools::Pool LocalPools::FindOrMake(const offset::PoolName& name, const AnchorShape& shape) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = pools_.find(name);
  if (found != pools_.end()) return found->second;
  Pool pool;
  if (options_.method == OffsetMethod::kAnchors)
    pool.anchors = std::make_shared<AnchorPool>(shape, options_.pool);
  else
    pool.linear = std::make_shared<LinearPool>(shape, options_.linear);
  return pools_.emplace(name, std::move(pool)).first->second;
}

absl::Status LocalPools::Learn(OffsetLesson lesson) {
  if (lesson.anchor.filling.tokens < 1)
    return absl::InvalidArgumentError("anchor.tokens: 0, nothing is learnt of an empty filling");
  const Pool pool = FindOrMake(lesson.pool, AnchorShape::Of(lesson.anchor));
  if (pool.anchors != nullptr) {
    Round(options_.anchor_dtype, lesson.anchor.filling);
    Round(options_.anchor_dtype, lesson.anchor.prefix);
    return pool.anchors->Insert(std::move(lesson.anchor)).status();
  }
  if (lesson.filling_base == nullptr || lesson.prefix_base == nullptr)
    return absl::InvalidArgumentError("lesson.filling_base: a map is learnt from base KV");
  return pool.linear->Update(*lesson.filling_base, *lesson.prefix_base, lesson.anchor);
}

std::unique_ptr<OffsetCall> LocalPools::Ask(OffsetQuestion question) {
  return std::make_unique<Answered>(AnswerTo(question));
}

OffsetAnswer LocalPools::AnswerTo(const OffsetQuestion& question) const {
  OffsetAnswer answer;
  const auto refused = [&](OffsetRefusal refusal) {
    answer.refusal = refusal;
    return answer;
  };
  if (question.sketch.tokens < 1) return refused(OffsetRefusal::kEmpty);
  const Pool pool = Find(question.pool);
  if (pool.anchors == nullptr && pool.linear == nullptr) return refused(OffsetRefusal::kNoPool);
  const AnchorShape& shape = pool.anchors != nullptr ? pool.anchors->shape() : pool.linear->shape();
  if (shape.layers != question.shape.layers || shape.width != question.shape.width)
    return refused(OffsetRefusal::kShape);
  if (!(shape == question.shape)) return refused(OffsetRefusal::kTemplate);
  if (pool.anchors != nullptr) {
    PoolAnswer mixed =
        pool.anchors->Ask(question.sketch, {.key = question.key,
                                            .context_digest = question.context_digest,
                                            .mix = question.mix,
                                            .with_error = question.with_error,
                                            .max_error = question.max_error,
                                            .max_token_error = question.max_token_error});
    answer.evidence = mixed.evidence;
    answer.has_rows = mixed.has_rows;
    answer.filling = std::move(mixed.filling);
    answer.prefix = std::move(mixed.prefix);
    answer.active = std::move(mixed.active);
    Round(options_.answer_dtype, answer.filling);
    Round(options_.answer_dtype, answer.prefix);
    return answer;
  }
  const std::shared_ptr<const LinearPool::Maps> maps = pool.linear->maps();
  answer.evidence.linear = true;
  answer.evidence.runs = pool.linear->runs();
  if (maps == nullptr) return answer;
  answer.evidence.error = maps->error.shares();
  const PoolErrorShares& error = answer.evidence.error;
  if (error.predicted > 0 &&
      (error.filling > question.max_error || error.filling_worst > question.max_token_error)) {
    return answer;
  }
  answer.has_rows = true;
  answer.filling = maps->filling.Predict(*question.filling_base);
  answer.prefix = maps->prefix.Predict(*question.prefix_base);
  return answer;
}

void LocalPools::Activate(const offset::PoolName& name, const OffsetAnswer& answer) {
  const Pool pool = Find(name);
  if (pool.anchors != nullptr) pool.anchors->Activate(answer.active);
}

std::shared_ptr<AnchorPool> LocalPools::FindAnchors(const offset::PoolName& name) const {
  return Find(name).anchors;
}

std::shared_ptr<LinearPool> LocalPools::FindLinear(const offset::PoolName& name) const {
  return Find(name).linear;
}

int64_t LocalPools::bytes() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  int64_t bytes = 0;
  for (const auto& [name, pool] : pools_) {
    if (pool.linear != nullptr) bytes += pool.linear->bytes();
    if (pool.anchors != nullptr) bytes += pool.anchors->bytes();
  }
  return bytes;
}

}  // namespace kedge
