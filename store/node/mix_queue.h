// Questions to pools on their way through the executor: bounded, in the order of their coming, with
// their deadlines.
//
// Thread-safe; answers come on executor threads. The executor must be shut down before this goes.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "proto/offset_messages.h"
#include "store/node/anchor_store.h"
#include "store/world/clock.h"
#include "store/world/executor.h"
#include "store/world/histogram.h"
#include "store/world/metrics.h"

namespace kedge {

// The mixed segments of an answer (proto/offset_messages.h). While it lives it counts.
struct MixedBytes {
  std::vector<uint8_t> bytes;
  uint64_t counted = 0;
  std::shared_ptr<std::atomic<uint64_t>> held;
  ~MixedBytes() {
    if (held != nullptr) held->fetch_sub(counted, std::memory_order_relaxed);
  }
};

class MixQueue {
 public:
  struct Answer {
    ResultCode code = ResultCode::kOk;  // else there is no reply: kExhausted, kDeadline, kCancelled
    std::string text;
    MixReplyBody reply;
    std::shared_ptr<MixedBytes> mixed;  // null without rows
  };
  struct Question {
    MixBody mix;  // with its whole sketch
    int64_t deadline_us = 0;
    std::shared_ptr<std::atomic<bool>> cancelled;
    absl::AnyInvocable<void(Answer)> done;  // once, on an executor thread
  };

  MixQueue(AnchorStore& anchors, Executor& executor, const Clock& clock)
      : anchors_(anchors), executor_(executor), clock_(clock) {}

  void Ask(Question question);
  void VisitMetrics(MetricsVisitor& visitor) const;

 private:
  void RunOne();
  Answer AnswerTo(const Question& question, std::shared_ptr<MixedBytes> mixed);
  void End(Question question, Answer answer);

  AnchorStore& anchors_;
  Executor& executor_;
  const Clock& clock_;

  struct Waiting {
    Question question;
    std::shared_ptr<MixedBytes> mixed;
  };
  mutable std::mutex mutex_;
  std::deque<Waiting> waiting_;
  uint32_t running_ = 0;

  const std::shared_ptr<std::atomic<uint64_t>> held_ = std::make_shared<std::atomic<uint64_t>>(0);
  std::array<std::atomic<uint64_t>, kPoolVerdictMax + 1> verdicts_{};
  std::atomic<uint64_t> without_rows_{0};
  std::atomic<uint64_t> late_{0};
  std::atomic<uint64_t> cancelled_{0};
  std::atomic<uint64_t> read_bytes_{0};
  std::atomic<uint64_t> mixed_bytes_{0};
  Histogram durations_;
};

}  // namespace kedge
