// /metrics for Prometheus, by prometheus-cpp: what the node's parts tell a MetricsVisitor,
// collected anew for each scrape.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "store/node/node.h"

namespace kedge {

class MetricsServer {
 public:
  // HOST:PORT; port 0 lets the kernel choose. ALREADY_EXISTS naming the address when it cannot be
  // bound. `node` must outlive the server.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Start(const Node& node,
                                                              const std::string& address);
  virtual ~MetricsServer() = default;
  virtual const std::string& address() const = 0;
};

// What a scrape answers, in Prometheus' text format.
std::string MetricsText(const Node& node);

}  // namespace kedge
