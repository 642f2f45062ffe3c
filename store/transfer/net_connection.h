// One connection between processes, and what all connections of a loop share: the socket on which
// the two sides greet each other, the queues of what is to be sent, and the way to the end. What
// carries the messages is in tcp_connection and shm_connection. Internal to transport_net.
//
// A message waits in the connection's queues until the wire takes it, then the wire may look at its
// payload until it is on the list `ended`, and the loop tells the owner. Every message goes through
// that list, also one that was sent at once or never given to the wire: callbacks never come inside
// Send or Close.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/stream.h"
#include "store/transfer/net_address.h"
#include "store/transfer/socket.h"
#include "store/transfer/transport.h"
#include "store/transfer/transport_counters.h"
#include "store/transfer/transport_net.h"

namespace kedge {

class NetConnection;

struct NetSend {
  NetConnection* connection = nullptr;
  std::vector<uint8_t> own;  // the head; behind it a payload that was copied
  uint32_t head_bytes = 0;
  std::span<const uint8_t> payload;
  uint64_t cookie = 0;
  absl::Status status;

  std::span<const uint8_t> head() const { return std::span(own).first(head_bytes); }
  uint64_t bytes() const { return head_bytes + payload.size(); }
};

// What epoll hands back: whose descriptor, and which.
struct Watched {
  enum class Kind { kWake, kListener, kSocket };
  Kind kind = Kind::kWake;  // kWake: only ends a sleep
  void* owner = nullptr;
};

// [loop] What the connections of one loop share.
struct NetLoopState {
  TransportHandler& handler;
  const NetTransportOptions options;
  TransportCounters tcp_counters, shm_counters;
  Epoll epoll;
  std::vector<std::unique_ptr<NetSend>> ended;
  std::vector<std::unique_ptr<NetSend>> spare_sends;
  std::vector<NetConnection*> closing;
  // For messages that are arriving over tcp; the last one used is the one still in the cache.
  std::vector<std::unique_ptr<uint8_t[]>> spare_buffers;
  // A peer has greeted one of our listeners: the connection is open.
  std::function<void(NetConnection&)> on_accepted;

  std::unique_ptr<NetSend> NewSend();
  void Recycle(std::unique_ptr<NetSend> send);
};

class NetConnection : public Connection {
 public:
  ~NetConnection() override;

  absl::Status Send(std::span<const uint8_t> head, std::span<const uint8_t> payload,
                    uint64_t cookie) final;
  uint64_t queued_bytes() const final { return queued_bytes_; }
  void Close(const absl::Status& why) final;
  std::string peer() const final { return peer_; }

  // What follows is for the loop. One of the two begins it; the first may fail at once.
  absl::Status BeginConnect(const NetAddress& address);
  void BeginAccepted(Socket socket);
  void OnSocketEvents(uint32_t events);
  // Makes progress that no descriptor tells of; true when there was some.
  virtual bool Progress() { return false; }
  // False: do not sleep, something has come.
  virtual bool Arm() { return true; }
  // `send` is over: tells the owner, sends on.
  void Tell(std::unique_ptr<NetSend> send);
  // Goes on with closing; true when the wire has let go of everything.
  bool CloseStep();

  StreamWire stream_wire() const { return wire_; }
  TransportCounters& counters() { return counters_; }
  const absl::Status& why() const { return why_; }
  bool is_open() const { return phase_ == Phase::kOpen; }
  bool closing() const { return phase_ == Phase::kClosing; }
  // The owner has been told of it, by Connect or OnAccepted, and is owed an OnClosed.
  bool known() const { return connecting_side_ || was_open_; }
  bool was_open() const { return was_open_; }

 protected:
  NetConnection(NetLoopState& loop, StreamWire wire, std::string peer);

  // Our queue's address for the greeting; makes the queue.
  virtual absl::StatusOr<std::vector<uint8_t>> GreetingAddress() = 0;
  // The peer has greeted; its address is valid during the call.
  virtual absl::Status OnGreeting(const Greeting& peer) = 0;
  virtual void OnReadable() = 0;  // only when open
  // Gives the wire what is queued, as far as it takes it.
  virtual void Pump() = 0;
  // Takes back what the wire has (with End) as far as possible; true when it has nothing more. The
  // first call comes before the socket is closed.
  virtual bool ReleaseStep() = 0;
  // Told to `loop_.ended`: a send that the wire has finished with.
  void End(std::unique_ptr<NetSend> send, const absl::Status& status);
  // The next to send, small ones first; empty when nothing waits.
  std::unique_ptr<NetSend> NextSend();
  // What a send that the close has cut off is told.
  absl::Status CutOff() const;
  // Whether to call Pump when the socket takes more.
  void WantWritable(bool want);
  // 1 to 512 KiB: tell of bytes only when there are so many.
  void WantReadable(uint32_t bytes);

  NetLoopState& loop_;
  Socket socket_;

 private:
  enum class Phase { kConnecting, kGreeting, kOpen, kClosing };

  absl::Status SendGreeting(GreetingStatus status, std::span<const uint8_t> address);
  void FinishConnect();
  void ReadGreeting();
  absl::Status TakeGreeting(const Greeting& greeting);
  void Refuse(const absl::Status& why);

  const StreamWire wire_;
  TransportCounters& counters_;
  const std::string peer_;
  Watched watched_;
  Phase phase_ = Phase::kGreeting;
  bool connecting_side_ = false;
  bool was_open_ = false;
  bool want_writable_ = false;
  uint32_t want_readable_ = 1;
  std::vector<uint8_t> greeting_;
  std::deque<std::unique_ptr<NetSend>> small_;
  std::deque<std::unique_ptr<NetSend>> bulk_;
  int small_in_a_row_ = 0;
  uint64_t queued_bytes_ = 0;  // accepted and not told
  absl::Status why_;
};

}  // namespace kedge
