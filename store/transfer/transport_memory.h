// Transports inside one process: the embedded node's wire, and the wire of tests.
//
// A MemoryNetwork joins transports by name ("memory://name"). Each has a loop of its own, so
// callbacks come on the threads that they come on with UCX. A payload is never copied: the
// receiver's handler is shown the sender's memory, and OnSent follows when that handler has
// returned (or when the message was taken back before it was shown).
//
// Faults are drawn from a seed for each connection, by the order in which it was made: the
// connection ends after some messages, messages arrive late or out of order. None loses a single
// message: a connection that lost one has ended (transport.h).
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "store/transfer/transport.h"
#include "store/world/clock.h"
#include "store/world/executor.h"

namespace kedge {

struct MemoryFaults {
  uint64_t seed = 1;
  // A connection ends when it has been given a number of messages (both directions), drawn from
  // this range; 0: never.
  uint64_t drop_after_messages_min = 0;
  uint64_t drop_after_messages_max = 0;
  double reorder_share = 0;  // of messages that overtake others at random, 0 to 1
  double delay_share = 0;    // of messages that wait, and hold up what is behind them
  int64_t delay_us_max = 0;  // drawn from 0 to this
};

struct MemoryTransportOptions {
  std::string name = "memory";  // of the loop's thread, and in peer()
  uint64_t send_queue_bytes_max =
      64ull << 20;  // for each connection: sent and not yet handled by the peer
  // How long a loop looks for work before it sleeps; waking a thread costs more than most messages.
  int64_t spin_us = 20;
};

// Any thread. May be destroyed before its transports.
class MemoryNetwork {
 public:
  explicit MemoryNetwork(MemoryFaults faults = {});
  ~MemoryNetwork();

  // `handler`, `executor` and `clock` must outlive the transport.
  std::unique_ptr<Transport> MakeTransport(TransportHandler& handler, Executor& executor,
                                           const Clock& clock, MemoryTransportOptions options = {});

  struct State;

 private:
  std::shared_ptr<State> state_;
};

}  // namespace kedge
