// The wire. A transport moves *messages* (a small head and a bulk payload) over connections; it
// knows nothing of blocks.
//
// One transport is one event loop: one thread (store/world/executor.h, StartLoop) that makes
// progress, runs every callback, and sleeps when there is nothing to do. Calls marked [loop] may be
// made on that thread only; `Post` brings work there.
//
// Nobody but the receiver writes into the receiver's memory: payload bytes are shown to the
// handler, which copies them where it wants them, or drops them. So cancelling a transfer is a
// matter of the receiver's own tables, and a peer that wakes up late can write nowhere
// (DESIGN 4.3).
//
// Messages of one connection arrive once, or the connection ends; their order is not promised.
//
//   transport_memory  inside one process; can lose, delay and reorder by a seed
//   transport_net     between processes: tcp by sockets, shared memory by UCX active messages
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "store/world/executor.h"
#include "store/world/metrics.h"

namespace kedge {

class Connection;

// What the owner of connections is told; every call comes on the transport's loop. Must outlive the
// transport.
class TransportHandler {
 public:
  virtual ~TransportHandler() = default;
  // A peer connected to a listener. Not called for connections made by Connect.
  virtual void OnAccepted(Connection& connection) = 0;
  // `head` and `payload` are valid during the call only. The handler may Send and Close inside.
  virtual void OnMessage(Connection& connection, std::span<const uint8_t> head,
                         std::span<const uint8_t> payload) = 0;
  // A Send with a non-zero cookie ended; its payload memory belongs to the sender again. Comes
  // exactly once for each such Send, also when the connection ends (then with an error), and always
  // before OnClosed.
  virtual void OnSent(Connection& connection, uint64_t cookie, const absl::Status& status) = 0;
  // The connection is over; the object dies after this call. Comes exactly once for each connection
  // that was accepted or connected, also after Close and Shutdown.
  virtual void OnClosed(Connection& connection, const absl::Status& why) = 0;
};

class Connection {
 public:
  virtual ~Connection() = default;
  // [loop] Largest payload of one message on this connection. At least 32 KiB.
  virtual uint32_t payload_bytes_max() const = 0;
  // [loop] Queues a message. `head` is copied (at most kHeadBytesMax bytes). `payload` is borrowed
  // until OnSent(cookie); with cookie 0 there is no OnSent and the payload must be empty or is
  // copied. RESOURCE_EXHAUSTED when more than the transport's send queue is waiting: nothing was
  // queued. UNAVAILABLE after the connection ended.
  virtual absl::Status Send(std::span<const uint8_t> head, std::span<const uint8_t> payload,
                            uint64_t cookie) = 0;
  // [loop] Bytes queued and not yet handed to the wire.
  virtual uint64_t queued_bytes() const = 0;
  // [loop] Ends the connection; OnSent for what was queued, then OnClosed, follow later on the
  // loop.
  virtual void Close(const absl::Status& why) = 0;
  // [loop] "tcp://127.0.0.1:40000" or what the transport knows.
  virtual std::string peer() const = 0;
  // [loop] What carries it, for logs and benchmarks, e.g. "tcp", "sysv", "memory".
  virtual std::string wire() const = 0;

  // Owner's own data; the transport does not look at it. [loop]
  void set_context(void* context) { context_ = context; }
  void* context() const { return context_; }

 private:
  void* context_ = nullptr;
};

class Transport {
 public:
  virtual ~Transport() = default;  // = Shutdown

  // Accepts on `address` ("tcp://127.0.0.1:0", "shm://127.0.0.1:0", "memory://name"). Returns the
  // bound address. ALREADY_EXISTS with the address when it is taken; INVALID_ARGUMENT when it
  // cannot be parsed. Any thread but the loop; call it before traffic starts.
  virtual absl::StatusOr<std::string> Listen(const std::string& address) = 0;
  // [loop] Starts to connect; failure is told by OnClosed. Sending may begin at once.
  virtual absl::StatusOr<Connection*> Connect(const std::string& address) = 0;
  // Runs `task` on the loop soon; wakes it. Any thread. After Shutdown the task is destroyed unrun.
  virtual void Post(Task task) = 0;
  // Runs `task` on the loop about every `period_ms` until Shutdown. Call before traffic starts.
  virtual void Every(int64_t period_ms, std::function<void()> task) = 0;
  virtual bool OnLoop() const = 0;
  // Closes all connections (OnClosed for each) and ends the loop. Not from the loop. Idempotent.
  virtual void Shutdown() = 0;
  virtual void VisitMetrics(MetricsVisitor& visitor) const = 0;
};

}  // namespace kedge
