// One request of the caller: what the C ABI calls kedge_request.
//
// It is made on the caller's thread, started on the engine's loop, and from then on changed there
// only. The caller's threads look at its items and wait for its end. It has *ended* when its last
// item has a code and none of the caller's memory is in use: the loop neither reads nor writes it
// after that.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "proto/block_header.h"
#include "proto/frame.h"
#include "proto/result_code.h"

namespace kedge {

class Engine;

struct ItemResult {
  bool ended = false;
  ResultCode code = ResultCode::kInternal;  // once ended
  TierId tier = TierId::kNone;
  uint8_t fidelity = 0;  // of Fidelity; 0: none
  uint8_t variant = 0;
  bool exact = false;  // the very bytes that were stored under the key
  uint64_t bytes = 0;
};

class Operation : public std::enable_shared_from_this<Operation> {
 public:
  Operation(uint32_t items, int64_t deadline_us) : deadline_us_(deadline_us), items_(items) {}
  virtual ~Operation() = default;
  Operation(const Operation&) = delete;
  Operation& operator=(const Operation&) = delete;

  // --- Any thread ---
  bool ended() const { return ended_.load(std::memory_order_acquire); }
  // False when `timeout_ms` passed first.
  bool Wait(uint32_t timeout_ms);
  // Until `layers` layers are there (see SetLayers) or it has ended; false when `timeout_ms` passed
  // first.
  bool WaitLayers(uint32_t layers, uint32_t timeout_ms);
  uint32_t count() const { return static_cast<uint32_t>(items_.size()); }
  void CopyItems(std::span<ItemResult> out) const;
  // Leading items that succeeded; with `running`, those that still run count too.
  uint32_t Prefix(bool running) const;
  // The name behind ItemResult::variant; lives as long as the operation.
  virtual std::string_view variant_name(uint8_t) const { return "raw"; }
  // Why the first item (in time) that failed did.
  std::string text() const;
  // The same; only once ended, when it does not change any more.
  const std::string& final_text() const { return text_; }

  // --- [loop] ---
  // Sends what begins it. May end it.
  virtual void Start(Engine& engine) = 0;
  // A frame that answers `wire`, which this operation opened with `tag`.
  virtual void OnFrame(Engine& engine, uint64_t wire, uint32_t tag, const Frame& frame,
                       std::span<const uint8_t> payload) = 0;
  // Sends one message of bulk. Called while the engine's send window has room and the operation is
  // queued there.
  enum class Pumped {
    kSent,
    kIdle,
    kBlocked
  };  // kIdle: nothing to send now; kBlocked: the transport takes no more now
  virtual Pumped Pump(Engine&) { return Pumped::kIdle; }
  // A bulk message of this operation is not borrowed any more.
  virtual void OnSent(Engine&, uint32_t /*item*/, uint64_t /*bytes*/) {}
  // Gives every running item this code, tells the node, and ends as soon as no memory is in use.
  virtual void Abandon(Engine& engine, ResultCode code, std::string_view text) = 0;

  int64_t deadline_us() const { return deadline_us_.load(std::memory_order_relaxed); }
  // When its borrowed memory should have come back after Abandon; 0: nothing is awaited.
  int64_t drain_until_us = 0;
  // Where it stands in the engine's list of active operations; engine only.
  size_t active_index = SIZE_MAX;
  bool queued_to_send = false;

 protected:
  // [loop] Sets the item's result; returns false when it had one already.
  bool EndItem(uint32_t item, const ItemResult& result, std::string_view text = {});
  bool EndItem(uint32_t item, ResultCode code, std::string_view text = {});
  bool item_ended(uint32_t item) const { return items_[item].ended; }
  uint32_t items_running() const { return running_; }
  // [loop] The first `layers` layers are there in all items that have not failed.
  void SetLayers(uint32_t layers);
  // [loop] Wakes the waiting; takes it out of the engine's tables. Once.
  void End(Engine& engine);
  void set_deadline_us(int64_t at) { deadline_us_.store(at, std::memory_order_relaxed); }

 private:
  template <typename Done>
  bool WaitUntil(uint32_t timeout_ms, Done done);

  std::atomic<int64_t> deadline_us_;
  std::atomic<bool> ended_{false};
  std::atomic<uint32_t> layers_{0};
  mutable std::mutex mutex_;  // items_, text_ against the caller's threads
  std::condition_variable changed_;
  std::vector<ItemResult> items_;
  uint32_t running_ = static_cast<uint32_t>(items_.size());
  std::string text_;
};

}  // namespace kedge
