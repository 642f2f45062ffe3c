#include "store/world/executor_stepped.h"

#include <algorithm>
#include <utility>

#include "absl/base/internal/raw_logging.h"

namespace kedge {

class SteppedExecutor::SteppedLoop final : public Loop {
 public:
  SteppedLoop(SteppedExecutor& executor, std::function<void()> body, std::function<void()> wake)
      : executor_(executor), body_(std::move(body)), wake_(std::move(wake)) {
    executor_.loops_.push_back(this);
  }
  ~SteppedLoop() override {
    ABSL_RAW_CHECK(!running_, "a loop destroys itself");
    auto& loops = executor_.loops_;
    loops.erase(std::find(loops.begin(), loops.end(), this));
    if (wake_) wake_();
  }
  void Step() {
    running_ = true;
    body_();
    running_ = false;
  }

 private:
  SteppedExecutor& executor_;
  std::function<void()> body_;
  std::function<void()> wake_;
  bool running_ = false;
};

SteppedExecutor::~SteppedExecutor() {
  ABSL_RAW_CHECK(loops_.empty(), "a loop outlives its executor");
  Shutdown();
}

void SteppedExecutor::Post(Task task) {
  if (!stopping_) ready_.push_back(std::move(task));
}

void SteppedExecutor::PostAfter(int64_t delay_ms, Task task) {
  if (stopping_) return;
  const int64_t due_us = clock_.NowUs() + std::max<int64_t>(0, delay_ms) * 1000;
  timers_.emplace(due_us, std::move(task));
}

std::unique_ptr<Loop> SteppedExecutor::StartLoop(std::string /*name*/, std::function<void()> body,
                                                 std::function<void()> wake) {
  return std::make_unique<SteppedLoop>(*this, std::move(body), std::move(wake));
}

void SteppedExecutor::Shutdown() {
  stopping_ = true;
  std::multimap<int64_t, Task> dropped;
  dropped.swap(timers_);
  while (RunOne()) {
  }
}

void SteppedExecutor::MoveDueTimers() {
  const int64_t now_us = clock_.NowUs();
  while (!timers_.empty() && timers_.begin()->first <= now_us) {
    ready_.push_back(std::move(timers_.begin()->second));
    timers_.erase(timers_.begin());
  }
}

bool SteppedExecutor::RunOne() {
  MoveDueTimers();
  if (ready_.empty()) return false;
  Task task = std::move(ready_.front());
  ready_.pop_front();
  ++running_;
  std::move(task)();
  task = nullptr;
  --running_;
  return true;
}

size_t SteppedExecutor::RunAll(size_t max_tasks) {
  size_t total = 0;
  while (total < max_tasks) {
    size_t round = 0;
    while (total + round < max_tasks && RunOne()) ++round;
    // A body may start or end loops: walk over a copy, and skip those that are gone.
    const std::vector<SteppedLoop*> loops = loops_;
    for (SteppedLoop* loop : loops) {
      if (std::find(loops_.begin(), loops_.end(), loop) != loops_.end()) loop->Step();
    }
    total += round;
    MoveDueTimers();
    if (round == 0 && ready_.empty()) break;
  }
  return total;
}

}  // namespace kedge
