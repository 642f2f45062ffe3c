// A whole node inside the caller's process: same code, same API, no daemon and no socket.
// The client SDK uses it for addresses that start with "embedded:".
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "store/transfer/transport.h"

namespace kedge {

struct EmbeddedOptions {
  uint64_t host_bytes = 256ull << 20;
  std::string ssd_directory;  // empty: no SSD tier
  uint64_t ssd_bytes = 1ull << 30;
  std::vector<std::string> recode;    // as in a kedged's config
  std::vector<std::string> profiles;  // paths
  bool allow_unprofiled = false;
};

// Parses "embedded:" or "embedded:?host=256MiB&ssd=/path&ssd_size=1GiB"; also "recode=ssd:
// kivi4g32" and "profile=/path" (both may be repeated) and "allow_unprofiled=true". InvalidArgument
// names the part and its value.
absl::StatusOr<EmbeddedOptions> ParseEmbeddedAddress(const std::string& address);

// Any thread. Destruction drains the node (what was acknowledged as durable is on disk); transports
// made from it must be gone by then.
class EmbeddedNode {
 public:
  static absl::StatusOr<std::unique_ptr<EmbeddedNode>> Start(const EmbeddedOptions& options);
  virtual ~EmbeddedNode() = default;
  // A client's transport on the node's in-process network. `handler` must outlive it.
  virtual std::unique_ptr<Transport> MakeClientTransport(TransportHandler* handler) = 0;
  // What that transport connects to, e.g. "memory://kedged".
  virtual std::string address() const = 0;
};

}  // namespace kedge
