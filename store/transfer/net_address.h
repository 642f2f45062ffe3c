// "tcp://host:port" and "shm://host:port" as a socket address. Internal to transport_net.
#pragma once

#include <netinet/in.h>

#include <string>

#include "absl/status/statusor.h"
#include "proto/stream.h"

namespace kedge {

struct NetAddress {
  StreamWire wire = StreamWire::kTcp;
  sockaddr_in socket{};

  // "tcp://127.0.0.1:40000"
  std::string text() const;
};

// An empty host is 127.0.0.1; "localhost" and names are resolved (IPv4), which may block.
// InvalidArgument naming the address; Unavailable when the resolver does not answer.
absl::StatusOr<NetAddress> ParseNetAddress(const std::string& address);

}  // namespace kedge
