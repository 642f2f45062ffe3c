#include "store/transfer/loop_inbox.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdint>
#include <utility>

#include "absl/base/internal/raw_logging.h"

namespace kedge {

LoopInbox::LoopInbox() : event_fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  ABSL_RAW_CHECK(event_fd_ >= 0, "eventfd: no descriptors left");
}

LoopInbox::~LoopInbox() { close(event_fd_); }

void LoopInbox::Put(Task task) {
  {
    std::lock_guard lock(mutex_);
    if (closed_) return;
    tasks_.push_back(std::move(task));
  }
  Wake();
}

void LoopInbox::Wake() {
  ready_.store(true);
  if (!sleeping_.load()) return;
  const uint64_t one = 1;
  // It can fail only when the counter is full: then the loop is about to wake anyway.
  [[maybe_unused]] const ssize_t written = write(event_fd_, &one, sizeof(one));
}

bool LoopInbox::Take(std::vector<Task>& tasks) {
  if (!ready_.load(std::memory_order_acquire)) return false;
  ready_.store(false);
  std::lock_guard lock(mutex_);
  tasks.swap(tasks_);
  return true;
}

bool LoopInbox::BeginSleep() {
  sleeping_.store(true);
  if (!ready_.load()) return true;
  sleeping_.store(false);
  return false;
}

void LoopInbox::EndSleep() {
  sleeping_.store(false);
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t taken = read(event_fd_, &count, sizeof(count));
}

void LoopInbox::CloseForGood() {
  std::vector<Task> left;
  std::lock_guard lock(mutex_);
  closed_ = true;
  left.swap(tasks_);
}

}  // namespace kedge
