// The client's loop: one connection to the node, all requests of all threads on it.
//
// Callers make an Operation and hand it to Run; everything after that happens on the transport's
// loop: frames out, frames in, deadlines, pings, reconnecting. Frames find their operation by the
// *wire id* that the operation opened; a frame for an id that is closed (late, after a cancel) is
// counted and dropped, so nothing can write into memory of a request that has ended.
//
// The connection comes back by itself: after it ended, every running operation has ended with
// kUnavailable, and attempts go on with growing pauses for as long as the engine lives. Operations
// that start while there is no session end at once with kUnavailable.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/operation.h"
#include "client/route.h"
#include "proto/messages.h"
#include "store/node/embedded.h"
#include "store/transfer/transport.h"
#include "store/world/clock.h"

namespace kedge {

struct EngineOptions {
  std::string address;
  std::string client_name;
  uint64_t tenant = 0;
  // A wire of the caller's own, on which `address` is (a test's, with faults). Empty: the address
  // says which. What it refers to must outlive the engine.
  std::function<std::unique_ptr<Transport>(TransportHandler&)> make_transport;
};

struct EngineInfo {
  bool connected = false;
  uint64_t session = 0;
  uint64_t epoch = 0;
  uint64_t reconnects = 0;
  uint64_t requests = 0;
  uint64_t corrupt_parts = 0;
  uint64_t dropped_chunks = 0;
  uint64_t bytes_received = 0;
  uint64_t bytes_sent = 0;
  uint32_t lease_ms_max = 0;
  uint32_t put_idle_ms = 0;
  std::string node_id;
  std::string wire;
};

class Engine final : public TransportHandler {
 public:
  // InvalidArgument naming the address. Begins to connect; does not wait.
  static absl::StatusOr<std::shared_ptr<Engine>> Open(const EngineOptions& options);
  ~Engine() override;

  // --- Any thread but the loop ---
  // OK when a session is open; Unavailable saying why not when `timeout_ms` passed first.
  absl::Status WaitConnected(uint32_t timeout_ms);
  void Run(std::shared_ptr<Operation> operation);
  // Ends it with `code` if it runs, and waits until it has ended.
  void Cancel(const std::shared_ptr<Operation>& operation, ResultCode code);
  // Runs a task on the loop; after Close it is dropped unrun.
  void Post(Task task);
  // Cancels everything and ends the loop. Idempotent; not on two threads at once.
  void Close();
  bool closed() const { return closed_.load(std::memory_order_acquire); }
  EngineInfo info() const;
  int64_t NowUs() const { return clock_.NowUs(); }

  // --- [loop], for operations ---
  bool connected() const { return session_ != 0 && !draining_; }
  Route& route() { return route_; }
  // A new wire id whose frames go to `operation` with `tag`.
  uint64_t OpenWire(Operation& operation, uint32_t tag);
  void CloseWire(uint64_t wire) { wires_.erase(wire); }
  // The scratch for a body: cleared; encode into it, then Send.
  std::vector<uint8_t>& Body() {
    body_.clear();
    return body_;
  }
  // Sends what Body() holds. Waits in a backlog when the transport's queue is full, so it cannot
  // fail: a lost connection ends every operation.
  void Send(FrameType type, uint64_t wire, int64_t deadline_us);
  // Tells the node to stop; closes the wire id.
  void CancelWire(uint64_t wire);
  // Sends what Body() holds with borrowed bulk; `operation` gets OnSent. False when the transport
  // takes no more now. `staging`, if any, owns the payload and comes back to the engine by itself.
  bool SendBulk(FrameType type, uint64_t wire, int64_t deadline_us,
                std::span<const uint8_t> payload, Operation& operation, uint32_t item,
                std::unique_ptr<std::vector<uint8_t>> staging = nullptr);
  // An empty buffer with room for kStagingBytes.
  std::unique_ptr<std::vector<uint8_t>> TakeStaging();
  uint32_t payload_bytes_max() const { return payload_bytes_max_; }
  // Asks for Pump calls until one says kIdle.
  void QueueToSend(Operation& operation);
  void CountCorrupt() { corrupt_parts_.fetch_add(1, std::memory_order_relaxed); }
  void CountReceived(uint64_t bytes) {
    bytes_received_.fetch_add(bytes, std::memory_order_relaxed);
  }
  // Takes an ended operation out of the tables. Called by Operation::End.
  void Forget(Operation& operation);

  // --- TransportHandler ---
  void OnAccepted(Connection& connection) override;
  void OnMessage(Connection& connection, std::span<const uint8_t> head,
                 std::span<const uint8_t> payload) override;
  void OnSent(Connection& connection, uint64_t cookie, const absl::Status& status) override;
  void OnClosed(Connection& connection, const absl::Status& why) override;

 private:
  struct WireEntry {
    Operation* operation = nullptr;
    uint32_t tag = 0;
  };
  struct Sending {  // one borrowed payload; its index + 1 is the cookie
    std::shared_ptr<Operation> operation;
    uint32_t item = 0;
    uint64_t bytes = 0;
    std::unique_ptr<std::vector<uint8_t>> staging;
  };

  explicit Engine(EngineOptions options);
  absl::Status MakeTransport();

  void Connect();
  void OnTick();
  void CheckSilence(int64_t now_us);
  void OnWelcome(Connection& connection, const Frame& frame);
  void OnUnknownWire(const Frame& frame);
  void Lost(const std::string& why);
  void SetWhy(std::string why);
  void SetConnected(bool connected, std::string why);
  Sending Release(uint32_t index);
  std::span<const uint8_t> EncodeHead(FrameType type, uint64_t wire, int64_t deadline_us,
                                      uint64_t payload_bytes);
  void FlushBacklog();
  void PumpAll();

  const EngineOptions options_;
  RealClock clock_;
  Route route_;
  std::unique_ptr<Executor> executor_;
  std::unique_ptr<EmbeddedNode> embedded_;
  std::unique_ptr<Transport> transport_;
  std::string connect_address_;
  std::atomic<bool> closed_{false};

  // [loop]
  Connection* connection_ = nullptr;
  uint64_t session_ = 0;
  bool closing_ = false;
  bool draining_ = false;  // the node said goodbye: what runs may end, nothing is begun
  uint32_t payload_bytes_max_ = 0;
  int64_t hello_at_us_ = 0;
  int64_t connect_at_us_ = 0;  // next attempt
  int64_t backoff_ms_ = 0;
  int64_t heard_us_ = 0;
  int64_t pinged_us_ = 0;
  uint64_t next_wire_ = 1;
  uint64_t sending_bytes_ = 0;
  absl::flat_hash_map<uint64_t, WireEntry> wires_;
  std::vector<std::shared_ptr<Operation>> active_;
  std::deque<std::shared_ptr<Operation>> send_queue_;
  std::vector<Sending> sending_;
  std::vector<uint32_t> sending_free_;
  std::vector<std::unique_ptr<std::vector<uint8_t>>> staging_free_;
  std::deque<std::vector<uint8_t>> backlog_;
  bool pumping_ = false;
  std::vector<uint8_t> body_;
  std::vector<uint8_t> head_;

  std::atomic<uint64_t> requests_{0}, corrupt_parts_{0}, dropped_chunks_{0}, bytes_received_{0},
      bytes_sent_{0};
  mutable std::mutex state_mutex_;  // what follows: for WaitConnected and info()
  std::condition_variable state_changed_;
  EngineInfo state_;
  std::string why_;
};

}  // namespace kedge
