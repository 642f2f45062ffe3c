#include "store/transfer/memory_link.h"

#include <algorithm>
#include <chrono>

namespace kedge {

bool MemoryInbox::Put(std::shared_ptr<MemoryLink> link, int side) {
  std::lock_guard lock(mutex_);
  if (closed_) return false;
  ends_.emplace_back(std::move(link), side);
  NotifyLocked();
  return true;
}

bool MemoryInbox::Put(Task task) {
  std::lock_guard lock(mutex_);
  if (closed_) return false;
  tasks_.push_back(std::move(task));
  NotifyLocked();
  return true;
}

void MemoryInbox::Wake() {
  std::lock_guard lock(mutex_);
  NotifyLocked();
}

void MemoryInbox::NotifyLocked() {
  ready_.store(true, std::memory_order_release);
  if (sleeping_) changed_.notify_one();
}

void MemoryInbox::Take(const Clock& clock, int64_t until_us, int64_t spin_us, Ends& ends,
                       Tasks& tasks) {
  // Bounded by looks as well: a simulated clock stands still.
  const int64_t spin_until_us = spin_us > 0 ? std::min(until_us, clock.NowUs() + spin_us) : 0;
  for (int64_t looks = 0; looks < spin_us * 50; ++looks) {
    if (ready_.load(std::memory_order_acquire) || clock.NowUs() >= spin_until_us) break;
  }
  std::unique_lock lock(mutex_);
  const auto ready = [this] { return ready_.load(std::memory_order_relaxed); };
  sleeping_ = true;
  if (until_us == INT64_MAX) {
    changed_.wait(lock, ready);
  } else if (const int64_t left_us = until_us - clock.NowUs(); left_us > 0) {
    changed_.wait_for(lock, std::chrono::microseconds(left_us), ready);
  }
  sleeping_ = false;
  ready_.store(false, std::memory_order_relaxed);
  // Swapped, so that both sides keep their capacity.
  ends.swap(ends_);
  tasks.swap(tasks_);
}

std::pair<MemoryInbox::Ends, MemoryInbox::Tasks> MemoryInbox::CloseForGood() {
  std::lock_guard lock(mutex_);
  closed_ = true;
  return {std::move(ends_), std::move(tasks_)};
}

MemoryLink::MemoryLink(const MemoryFaults& faults, uint64_t number,
                       std::shared_ptr<MemoryInbox> connector,
                       std::shared_ptr<MemoryInbox> acceptor)
    : faults_(faults), random_(faults.seed * 0x9E3779B97F4A7C15u + number) {
  sides_[0].inbox = std::move(connector);
  sides_[1].inbox = std::move(acceptor);
  if (faults.drop_after_messages_max > 0) {
    const uint64_t min = std::max<uint64_t>(faults.drop_after_messages_min, 1);
    const uint64_t max = std::max(min, faults.drop_after_messages_max);
    messages_left_ = min + random_.Below(max - min + 1);
  }
}

absl::Status MemoryLink::Send(int side, MemoryMessage message, int64_t now_us) {
  std::lock_guard lock(mutex_);
  if (closed_) return absl::UnavailableError("send: the connection has ended");
  std::deque<MemoryMessage>& out = sides_[side].out;
  if (faults_.delay_share > 0 && random_.Chance(faults_.delay_share)) {
    message.due_us = now_us + static_cast<int64_t>(random_.Below(faults_.delay_us_max + 1));
  }
  if (faults_.reorder_share > 0 && random_.Chance(faults_.reorder_share)) {
    const auto place = static_cast<ptrdiff_t>(random_.Below(out.size() + 1));
    out.insert(out.begin() + place, std::move(message));
  } else {
    out.push_back(std::move(message));
  }
  if (messages_left_ > 0 && --messages_left_ == 0) {
    const absl::Status why = absl::UnavailableError("the connection was dropped (fault by seed)");
    CloseLocked(why, why);
    return absl::OkStatus();  // the message was taken; its OnSent tells the rest
  }
  ScheduleLocked(1 - side);
  return absl::OkStatus();
}

void MemoryLink::Close(int side, const absl::Status& why) {
  const absl::Status peers = absl::UnavailableError("the peer closed the connection");
  std::lock_guard lock(mutex_);
  CloseLocked(side == 0 ? why : peers, side == 0 ? peers : why);
}

void MemoryLink::CloseLocked(const absl::Status& why_0, const absl::Status& why_1) {
  if (closed_) return;
  closed_ = true;
  sides_[0].why = why_0;
  sides_[1].why = why_1;
  for (int side = 0; side < 2; ++side) {
    Side& s = sides_[side];
    const absl::Status status =
        s.why.ok() ? absl::CancelledError("closed before it was sent") : s.why;
    for (MemoryMessage& message : s.out) {
      s.receipts.push_back({message.cookie, message.bytes(), status, std::move(message.own)});
    }
    s.out.clear();
    ScheduleLocked(side);
  }
}

void MemoryLink::Schedule(int side) {
  std::lock_guard lock(mutex_);
  ScheduleLocked(side);
}

void MemoryLink::ScheduleLocked(int side) {
  if (sides_[side].scheduled) return;
  sides_[side].scheduled = sides_[side].inbox->Put(shared_from_this(), side);
  // Nobody is there: the other loop has ended, and with it the link.
  if (!sides_[side].scheduled && !closed_) {
    const absl::Status gone = absl::UnavailableError("the peer has shut down");
    CloseLocked(gone, gone);
  }
}

void MemoryLink::Begin(int side) {
  std::lock_guard lock(mutex_);
  sides_[side].scheduled = false;
}

std::vector<MemoryReceipt> MemoryLink::TakeReceipts(int side) {
  std::lock_guard lock(mutex_);
  return std::exchange(sides_[side].receipts, {});
}

std::optional<MemoryMessage> MemoryLink::TakeMessage(int side, int64_t now_us, int64_t& due_us) {
  std::lock_guard lock(mutex_);
  Side& sender = sides_[1 - side];
  if (sender.out.empty()) return std::nullopt;
  if (sender.out.front().due_us > now_us) {
    due_us = sender.out.front().due_us;
    return std::nullopt;
  }
  MemoryMessage message = std::move(sender.out.front());
  sender.out.pop_front();
  sender.shown = true;
  return message;
}

void MemoryLink::Return(int side, MemoryMessage message) {
  std::lock_guard lock(mutex_);
  Side& sender = sides_[1 - side];
  sender.shown = false;
  sender.receipts.push_back(
      {message.cookie, message.bytes(), absl::OkStatus(), std::move(message.own)});
  ScheduleLocked(1 - side);
}

std::optional<absl::Status> MemoryLink::Ended(int side) {
  std::lock_guard lock(mutex_);
  const Side& s = sides_[side];
  if (!closed_ || s.shown || !s.receipts.empty()) return std::nullopt;
  return s.why;
}

bool MemoryLink::HasMessages(int side) {
  std::lock_guard lock(mutex_);
  return !sides_[1 - side].out.empty();
}

bool MemoryLink::closed() {
  std::lock_guard lock(mutex_);
  return closed_;
}

}  // namespace kedge
