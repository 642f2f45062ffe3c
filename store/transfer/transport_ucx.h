// Connections between processes by UCX active messages: over TCP ("tcp://host:port") and over
// shared memory of one machine
// ("shm://host:port", where host:port is the TCP address that the two sides meet at).
//
// No remote memory access: contexts have the active-message feature only, and each message fits one
// fragment, so the receiver's handler is shown the buffer that the wire filled and nobody waits for
// anybody's rendezvous. Payloads are sent from the caller's memory. store/transfer/README.md says
// who owns which buffer when, and why the settings are what they are.
//
// UCX over TCP neither authenticates nor encrypts, and UCX trusts the bytes of its own protocol:
// for trusted networks only.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "store/transfer/transport.h"
#include "store/world/clock.h"
#include "store/world/executor.h"

namespace kedge {

struct UcxTransportOptions {
  std::string name = "ucx";                     // of the loop's thread
  uint64_t send_queue_bytes_max = 64ull << 20;  // for each connection: queued and not yet sent
  // How long a loop polls after it last had something to do, before it sleeps in the kernel.
  int64_t spin_us = 50;
  // Handed to UCX at a time, for each connection. What waits behind it is sorted: messages without
  // payload go first.
  uint64_t window_bytes = 1 << 20;
};

// `handler`, `executor` and `clock` must outlive the transport. One transport serves both schemes,
// on one loop. Listen: InvalidArgument naming the address when it cannot be parsed or resolved;
// AlreadyExists when it is taken. An address is HOST:PORT, HOST an IPv4 address or "localhost";
// port 0 lets the kernel choose. The first use of a scheme sets UCX up; errors of its configuration
// are FailedPrecondition.
absl::StatusOr<std::unique_ptr<Transport>> MakeUcxTransport(TransportHandler& handler,
                                                            Executor& executor, const Clock& clock,
                                                            UcxTransportOptions options = {});

}  // namespace kedge
