// The node's control address: proto/control.proto and grpc.health.v1, over gRPC, with gRPC's own
// threads.
//
// Health: "" and "liveness" serve as long as the process does; "readiness" is NOT_SERVING while the
// node drains. Carries no KV bytes and has no authentication: bind it where operators are.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "store/node/node.h"

namespace kedge {

struct ControlOptions {
  std::string address;       // HOST:PORT; port 0 lets the kernel choose
  std::string data_address;  // told by Status
  std::string metrics_address;
  int64_t drain_ms = 20'000;
  std::function<void()> on_exit;  // Drain was called with `exit`
};

// Any thread.
class ControlServer {
 public:
  // ALREADY_EXISTS naming the address when it cannot be bound. `node` must outlive the server.
  static absl::StatusOr<std::unique_ptr<ControlServer>> Start(Node& node, ControlOptions options);
  virtual ~ControlServer() = default;  // ends running calls
  virtual const std::string& address() const = 0;
  virtual void SetReady(bool ready) = 0;
};

}  // namespace kedge
