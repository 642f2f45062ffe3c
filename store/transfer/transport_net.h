// Connections between processes: "tcp://host:port" over sockets, and "shm://host:port" over shared
// memory of one machine by UCX active messages, where host:port is where the two sides meet.
//
// Two processes always meet over a TCP socket, by a greeting (proto/stream.h). That socket carries
// the messages of tcp; for shm it stays open beside the memory, and its end tells that the peer has
// died. Payloads are sent from the caller's memory. store/transfer/README.md says who owns which
// buffer when, why TCP is not left to UCX, and why the settings are what they are.
//
// Neither wire authenticates or encrypts, and shm believes the peer's queue address: for trusted
// networks only. Strangers who talk nonsense to the port are disconnected.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "store/transfer/transport.h"
#include "store/world/clock.h"
#include "store/world/executor.h"
#include "store/world/limits.h"

namespace kedge {

struct NetTransportOptions {
  std::string name = "net";                     // of the loop's thread
  uint64_t send_queue_bytes_max = 64ull << 20;  // for each connection: queued and not yet sent
  // How long a loop polls after it last had something to do, before it sleeps in the kernel.
  int64_t spin_us = 50;
  // Over shm, handed to UCX at a time, for each connection. What waits behind it is sorted:
  // messages without payload go first. (Over tcp one message at a time is handed to the kernel.)
  uint64_t window_bytes = 1 << 20;
  // A new connection says within this who it is.
  int64_t greeting_ms = kGreetingMs;
};

// `handler`, `executor` and `clock` must outlive the transport. One transport serves both schemes,
// on one loop. Listen: InvalidArgument naming the address when it cannot be parsed or resolved;
// AlreadyExists when it is taken. An address is HOST:PORT, HOST an IPv4 address or "localhost";
// port 0 lets the kernel choose. The first use of shm sets UCX up; errors of its configuration are
// FailedPrecondition.
absl::StatusOr<std::unique_ptr<Transport>> MakeNetTransport(TransportHandler& handler,
                                                            Executor& executor, const Clock& clock,
                                                            NetTransportOptions options = {});

}  // namespace kedge
