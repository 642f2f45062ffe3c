// The node of a demonstration: a real kedged of its own on loopback, or one inside this process.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/kv_client.h"
#include "tests/cluster/kedged_process.h"
#include "tools/demonstration/metrics_page.h"

namespace kedge {

struct DemoNodeOptions {
  bool embedded = false;
  std::string kedged;             // path of the daemon; "" where the build put it
  std::string transport = "tcp";  // or "shm"
  std::string directory;          // for the SSD tier and the log
  uint64_t host_bytes = 0;
  uint64_t ssd_bytes = 0;
  std::string profile;  // of a model that lossy variants come of; "": none
};

// One thread. A daemon is stopped when the DemoNode goes.
class DemoNode {
 public:
  // Blocks until it is ready. Errors name the program and show the end of its log.
  static absl::StatusOr<std::unique_ptr<DemoNode>> Start(const DemoNodeOptions& options);
  ~DemoNode() = default;

  // A client that knows nothing yet; the one given before is closed, and must not be in use. An
  // embedded node lives inside its client: there it is the same one again.
  absl::StatusOr<const sdk::Client*> Connect();

  bool embedded() const { return options_.embedded; }
  // "tcp://127.0.0.1:41234", or "embedded:...".
  const std::string& address() const { return address_; }
  // What carries the bytes, e.g. "tcp/lo". After Connect.
  std::string wire() const;
  // The node's own counts. FailedPrecondition for an embedded node: it has no page.
  absl::StatusOr<std::vector<MetricSample>> Metrics() const;
  // Closes the client and drains the node. An error when kedged did not end with status 0.
  absl::Status Stop();

 private:
  explicit DemoNode(DemoNodeOptions options) : options_(std::move(options)) {}

  const DemoNodeOptions options_;
  std::unique_ptr<KedgedProcess> process_;  // null when embedded
  std::string address_;
  std::optional<sdk::Client> client_;
};

}  // namespace kedge
