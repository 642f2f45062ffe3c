// An executor without threads: nothing runs until a test says so, and always in the same order.
//
// Timers are due by the clock that is given, usually a SimulatedClock. A loop's body is one more
// thing to run: `RunAll` calls the body of every loop after the tasks, in the order in which the
// loops were started, so that a part that polls works unchanged. Such a body must return at once
// (poll with a timeout of 0): there is nobody to wake it. One thread only. Everything may be called
// from inside a task.
#pragma once

#include <deque>
#include <map>
#include <vector>

#include "store/world/clock.h"
#include "store/world/executor.h"

namespace kedge {

class SteppedExecutor final : public Executor {
 public:
  // `clock` must outlive the executor.
  explicit SteppedExecutor(const Clock& clock) : clock_(clock) {}
  ~SteppedExecutor() override;

  void Post(Task task) override;
  void PostAfter(int64_t delay_ms, Task task) override;
  size_t pending() const override { return ready_.size() + running_; }
  // The loop must not outlive the executor.
  std::unique_ptr<Loop> StartLoop(std::string name, std::function<void()> body,
                                  std::function<void()> wake) override;
  void Shutdown() override;

  // Runs the oldest posted (or due) task. False when there was none.
  bool RunOne();
  // Runs tasks until none is left, calls each loop's body once, and goes on until a round ran no
  // task. Returns the number of tasks run. A task that always posts another one never ends:
  // `max_tasks` stops it.
  size_t RunAll(size_t max_tasks = 1'000'000);

  size_t timers() const { return timers_.size(); }
  // When the next timer is due, in the clock's microseconds; -1 when there is none.
  int64_t next_timer_us() const { return timers_.empty() ? -1 : timers_.begin()->first; }

 private:
  class SteppedLoop;
  void MoveDueTimers();

  const Clock& clock_;
  std::deque<Task> ready_;
  std::multimap<int64_t, Task> timers_;  // by due time; equal ones stay in the order of posting
  std::vector<SteppedLoop*> loops_;
  size_t running_ = 0;
  bool stopping_ = false;
};

}  // namespace kedge
