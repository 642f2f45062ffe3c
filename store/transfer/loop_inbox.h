// What other threads leave for a loop, and the descriptor that wakes it. Internal to transport_net.
#pragma once

#include <atomic>
#include <mutex>
#include <vector>

#include "store/world/executor.h"

namespace kedge {

class LoopInbox {
 public:
  LoopInbox();
  ~LoopInbox();

  // Any thread.
  void Put(Task task);
  void Wake();
  // Tasks that are left die unrun, and so do later ones.
  void CloseForGood();

  // [loop] Into an empty vector. False when there was nothing.
  bool Take(std::vector<Task>& tasks);
  // [loop] False when there is something to take: do not sleep. Between the two calls `event_fd`
  // becomes readable when something comes.
  bool BeginSleep();
  void EndSleep();
  int event_fd() const { return event_fd_; }

 private:
  const int event_fd_;
  std::mutex mutex_;
  std::vector<Task> tasks_;
  bool closed_ = false;
  std::atomic<bool> ready_{false};
  std::atomic<bool> sleeping_{false};
};

}  // namespace kedge
