// "tcp://host:port" and "shm://host:port" as the socket address that UCX wants, and the network
// device that leads there. Internal to transport_ucx.
#pragma once

#include <netinet/in.h>

#include <string>

#include "absl/status/statusor.h"

namespace kedge {

struct UcxAddress {
  std::string scheme;  // "tcp" or "shm"
  sockaddr_in socket{};

  // "tcp://127.0.0.1:40000"
  std::string text() const;
};

// An empty host is 127.0.0.1; "localhost" and names are resolved (IPv4), which may block.
// InvalidArgument naming the address; Unavailable when the resolver does not answer.
absl::StatusOr<UcxAddress> ParseUcxAddress(const std::string& address);

// The device whose traffic a listener on this address takes, "all" for 0.0.0.0. InvalidArgument
// when no device has it.
absl::StatusOr<std::string> DeviceOfLocal(const UcxAddress& address);
// The device through which the kernel would reach this address. Unavailable without a route.
absl::StatusOr<std::string> DeviceTowards(const UcxAddress& address);

}  // namespace kedge
