// Both ends of one in-process connection, and the inbox that wakes a loop. Internal to
// transport_memory.
//
// A message waits in the sender's `out` queue until the receiver's loop takes it; then it is being
// shown, and its receipt goes back to the sender. Closing takes back what waits; the sender's end
// is over only when the last receipt has arrived, so no payload is looked at after its OnSent.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "store/transfer/transport_memory.h"
#include "store/world/clock.h"
#include "store/world/executor.h"
#include "store/world/random.h"

namespace kedge {

class MemoryLink;

// What waits for one loop. Any thread puts, the loop takes.
class MemoryInbox {
 public:
  using Ends = std::vector<std::pair<std::shared_ptr<MemoryLink>, int>>;  // link and side
  using Tasks = std::vector<Task>;

  // False after CloseForGood: nothing was kept.
  bool Put(std::shared_ptr<MemoryLink> link, int side);
  bool Put(Task task);
  // Makes a sleeping Take return with nothing.
  void Wake();
  // Waits until there is something, Wake was called, or the clock shows `until_us`; looks for
  // `spin_us` before it sleeps.
  void Take(const Clock& clock, int64_t until_us, int64_t spin_us, Ends& ends, Tasks& tasks);
  // Nothing is taken any more; returns what was left.
  std::pair<Ends, Tasks> CloseForGood();

 private:
  void NotifyLocked();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::atomic<bool> ready_{false};  // there is something to take, or Wake
  bool sleeping_ = false;
  bool closed_ = false;
  Ends ends_;
  Tasks tasks_;
};

struct MemoryMessage {
  std::vector<uint8_t> own;  // the head; behind it a payload that was copied
  uint32_t head_bytes = 0;
  std::span<const uint8_t> payload;
  uint64_t cookie = 0;
  int64_t due_us = 0;

  std::span<const uint8_t> head() const { return {own.data(), head_bytes}; }
  uint64_t bytes() const { return head_bytes + payload.size(); }
};

// A message on its way back to the sender.
struct MemoryReceipt {
  uint64_t cookie = 0;
  uint64_t bytes = 0;
  absl::Status status;
  std::vector<uint8_t> own;  // to be used again
};

// Side 0 connected, side 1 accepted. Any thread; `side` is the caller's own.
class MemoryLink : public std::enable_shared_from_this<MemoryLink> {
 public:
  MemoryLink(const MemoryFaults& faults, uint64_t number, std::shared_ptr<MemoryInbox> connector,
             std::shared_ptr<MemoryInbox> acceptor);

  // UNAVAILABLE when the link is over.
  absl::Status Send(int side, MemoryMessage message, int64_t now_us);
  // Ends the link; `why` is what this side will be told, the other one learns that its peer closed.
  void Close(int side, const absl::Status& why);
  void Schedule(int side);

  // The loop of `side` has begun to look: later changes schedule it again.
  void Begin(int side);
  std::vector<MemoryReceipt> TakeReceipts(int side);
  // The next message for `side`; `due_us` is set when there is one that is not due.
  std::optional<MemoryMessage> TakeMessage(int side, int64_t now_us, int64_t& due_us);
  // `message` has been shown.
  void Return(int side, MemoryMessage message);
  // The reason, once this side has nothing more to be told.
  std::optional<absl::Status> Ended(int side);
  bool HasMessages(int side);
  bool closed();

 private:
  struct Side {
    std::shared_ptr<MemoryInbox> inbox;
    bool scheduled = false;
    std::deque<MemoryMessage> out;
    bool shown = false;  // the other side is looking at a message of ours
    std::vector<MemoryReceipt> receipts;
    absl::Status why;
  };

  void ScheduleLocked(int side);
  void CloseLocked(const absl::Status& why_0, const absl::Status& why_1);

  std::mutex mutex_;
  std::array<Side, 2> sides_;
  bool closed_ = false;
  const MemoryFaults faults_;
  Random random_;
  uint64_t messages_left_ = 0;  // until the fault; 0: none
};

}  // namespace kedge
