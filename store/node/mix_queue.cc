#include "store/node/mix_queue.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "gpu/kernels/cast.h"
#include "store/block/pool_roster.h"
#include "store/world/limits.h"

namespace kedge {
namespace {

// Segments of the layers from 1 on, and their digests.
void Pack(const MixBody& mix, const PoolAnswer& answer, MixReplyBody& reply,
          std::vector<uint8_t>& bytes) {
  const auto layers = static_cast<int64_t>(mix.shape.layers);
  reply.digests.resize(static_cast<size_t>(layers - 1));
  const uint64_t segment_bytes = reply.segment_bytes();
  bytes.resize(reply.mixed_bytes());
  uint8_t* to = bytes.data();
  const auto put = [&](const std::vector<float>& rows, int64_t layer) {
    const int64_t count = static_cast<int64_t>(rows.size()) / layers;
    kernels::CastFromFloat(mix.dtype, rows.data() + layer * count, count, to);
    to += count * kernels::FloatBytes(mix.dtype);
  };
  for (int64_t layer = 1; layer < layers; ++layer) {
    const uint8_t* segment = to;
    put(answer.filling.keys, layer);
    put(answer.filling.values, layer);
    put(answer.prefix.keys, layer);
    put(answer.prefix.values, layer);
    reply.digests[static_cast<size_t>(layer - 1)] =
        MixDigest(mix.pool, static_cast<uint32_t>(layer), {segment, segment_bytes});
  }
}

}  // namespace

void MixQueue::Ask(Question question) {
  const MixBody& mix = question.mix;
  MixReplyBody size{.dtype = mix.dtype, .shape = mix.shape, .tokens = mix.tokens};
  const uint64_t bytes = size.segment_bytes() * (mix.shape.layers - 1);
  auto mixed = std::make_shared<MixedBytes>();
  Answer refused;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (bytes > kMixBytesMax) {
      refused.reply = size;
      refused.reply.verdict = PoolVerdict::kTooLarge;
    } else if (waiting_.size() >= kMixesWaitingMax ||
               held_->load(std::memory_order_relaxed) + bytes > kMixBytesHeldMax) {
      refused.code = ResultCode::kExhausted;
      refused.text = absl::StrCat("mix: ", waiting_.size(), " wait already");
    } else {
      held_->fetch_add(bytes, std::memory_order_relaxed);
      mixed->held = held_;
      mixed->counted = bytes;
      waiting_.push_back({std::move(question), std::move(mixed)});
      if (running_ < kMixesRunningMax) {
        ++running_;
        executor_.Post([this] { RunOne(); });
      }
      return;
    }
  }
  auto shared = std::make_shared<Question>(std::move(question));
  executor_.Post([this, shared, refused = std::move(refused)]() mutable {
    End(std::move(*shared), std::move(refused));
  });
}

void MixQueue::RunOne() {
  Waiting next;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (waiting_.empty()) {
      --running_;
      return;
    }
    next = std::move(waiting_.front());
    waiting_.pop_front();
  }
  Answer answer = AnswerTo(next.question, std::move(next.mixed));
  End(std::move(next.question), std::move(answer));
  executor_.Post([this] { RunOne(); });
}

MixQueue::Answer MixQueue::AnswerTo(const Question& question, std::shared_ptr<MixedBytes> mixed) {
  const MixBody& mix = question.mix;
  Answer answer;
  if (question.cancelled->load(std::memory_order_relaxed)) {
    answer.code = ResultCode::kCancelled;
    return answer;
  }
  const int64_t start_us = clock_.NowUs();
  if (start_us >= question.deadline_us) {
    answer.code = ResultCode::kDeadline;
    answer.text = "mix.deadline_ms: passed while it waited";
    return answer;
  }
  MixReplyBody& reply = answer.reply;
  reply.shape = mix.shape;
  reply.dtype = mix.dtype;
  reply.tokens = mix.tokens;
  const auto refused = [&](PoolVerdict verdict) {
    reply.verdict = verdict;
    return std::move(answer);
  };
  if (mix.tokens == 0) return refused(PoolVerdict::kEmpty);
  const std::shared_ptr<AnchorPool> pool = anchors_.Find(mix.pool);
  if (pool == nullptr) return refused(PoolVerdict::kNoPool);
  const PoolVerdict verdict = CompareShapes(pool->shape(), ShapeOf(mix.shape));
  if (verdict != PoolVerdict::kOk) return refused(verdict);
  const offset::Sketch sketch{.tokens = mix.tokens, .values = mix.sketch};
  PoolAnswer asked =
      pool->Ask(sketch, {.key = mix.key,
                         .context_digest = mix.context_digest,
                         .mix = {.weighting = static_cast<offset::Weighting>(mix.weighting),
                                 .sharpness = mix.sharpness},
                         .with_error = mix.with_error != 0,
                         .max_error = mix.max_error,
                         .max_token_error = mix.max_token_error});
  const OffsetEvidence& evidence = asked.evidence;
  reply.same = evidence.same ? 1 : 0;
  reply.has_rows = asked.has_rows ? 1 : 0;
  reply.runs = static_cast<uint32_t>(evidence.runs);
  reply.longest = static_cast<uint32_t>(evidence.longest);
  reply.eligible = static_cast<uint32_t>(evidence.eligible);
  reply.predicted = static_cast<uint32_t>(evidence.error.predicted);
  reply.entropy = evidence.entropy;
  reply.nearest = evidence.nearest;
  reply.error[0] = evidence.error.filling;
  reply.error[1] = evidence.error.filling_worst;
  reply.error[2] = evidence.error.prefix;
  reply.error[3] = evidence.error.prefix_worst;
  reply.read_bytes = static_cast<uint64_t>(asked.bytes_read);
  reply.active = std::move(asked.active);
  if (asked.has_rows) {
    Pack(mix, asked, reply, mixed->bytes);
    answer.mixed = std::move(mixed);
  }
  const int64_t mix_us = clock_.NowUs() - start_us;
  reply.mix_us = static_cast<uint64_t>(mix_us);
  durations_.ObserveUs(mix_us);
  return answer;
}

void MixQueue::End(Question question, Answer answer) {
  const auto count = [](std::atomic<uint64_t>& counter, uint64_t by = 1) {
    counter.fetch_add(by, std::memory_order_relaxed);
  };
  switch (answer.code) {
    case ResultCode::kOk:
      if (answer.reply.verdict == PoolVerdict::kOk && answer.mixed == nullptr) {
        count(without_rows_);
      } else {
        count(verdicts_[static_cast<size_t>(answer.reply.verdict)]);
      }
      break;
    case ResultCode::kDeadline:
      count(late_);
      break;
    case ResultCode::kCancelled:
      count(cancelled_);
      break;
    default:
      count(verdicts_[static_cast<size_t>(PoolVerdict::kBusy)]);
      break;
  }
  count(read_bytes_, answer.reply.read_bytes);
  if (answer.mixed != nullptr) count(mixed_bytes_, answer.mixed->bytes.size());
  question.done(std::move(answer));
}

void MixQueue::VisitMetrics(MetricsVisitor& visitor) const {
  const auto load = [](const std::atomic<uint64_t>& counter) {
    return static_cast<double>(counter.load(std::memory_order_relaxed));
  };
  const auto mixes = [&](std::string_view result, const std::atomic<uint64_t>& counter) {
    const std::pair<std::string_view, std::string_view> label{"result", result};
    visitor.Counter("kedge_mixes_total", "Questions to pools, by what was answered.", {&label, 1},
                    load(counter));
  };
  for (uint8_t verdict = 0; verdict <= kPoolVerdictMax; ++verdict)
    mixes(PoolVerdictName(static_cast<PoolVerdict>(verdict)), verdicts_[verdict]);
  mixes("no_rows", without_rows_);
  mixes("deadline", late_);
  mixes("cancelled", cancelled_);
  visitor.Counter("kedge_mix_read_bytes_total", "Bytes of anchors that were mixed.", {},
                  load(read_bytes_));
  visitor.Counter("kedge_mix_answer_bytes_total", "Bytes of mixed segments.", {},
                  load(mixed_bytes_));
  durations_.Visit(visitor, "kedge_mix_duration_seconds",
                   "Evidence and mixture of a question, without waiting.", {});
  size_t waiting = 0;
  uint32_t running = 0;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    waiting = waiting_.size();
    running = running_;
  }
  visitor.Gauge("kedge_mixes_waiting", "Questions that wait for the executor.", {},
                static_cast<double>(waiting));
  visitor.Gauge("kedge_mixes_running", "Questions that are being answered.", {},
                static_cast<double>(running));
  visitor.Gauge("kedge_mix_held_bytes", "Of answers that wait, are mixed or are being sent.", {},
                load(*held_));
}

}  // namespace kedge
