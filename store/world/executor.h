// Threads as an argument. The real executor has a pool; the stepped one runs tasks when a test says
// so.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/functional/any_invocable.h"

namespace kedge {

using Task = absl::AnyInvocable<void()>;

// One thread of its own that calls `body` again and again until it is destroyed. Destruction calls
// `wake` (so that a sleeping body returns), joins, and then no call of body is under way. A wake
// that comes just before the body goes to sleep must count too (an eventfd, or a flag under the
// mutex). Never destroy a loop from its own body.
class Loop {
 public:
  virtual ~Loop() = default;
};

class Executor {
 public:
  virtual ~Executor() = default;

  // Runs `task` on some thread of the pool, soon. Never runs it inside the call. Any thread. Tasks
  // may block on disk.
  virtual void Post(Task task) = 0;
  // The same, not before `delay_ms` have passed.
  virtual void PostAfter(int64_t delay_ms, Task task) = 0;
  // Tasks that are posted or running (timers that are not due do not count).
  virtual size_t pending() const = 0;
  // A thread outside the pool, for a part that polls. `name` shows in top (15 bytes).
  virtual std::unique_ptr<Loop> StartLoop(std::string name, std::function<void()> body,
                                          std::function<void()> wake) = 0;
  // Runs no timer any more, waits until running and posted tasks are done. Posts after this are
  // dropped. Idempotent. Never from a task. Loops are their owners' to end.
  virtual void Shutdown() = 0;
};

// `threads` workers named "<name>-N" and a timer thread.
std::unique_ptr<Executor> MakeThreadExecutor(std::string name, int threads);

}  // namespace kedge
