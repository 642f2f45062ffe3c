// The node's own account of itself, by its control service.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace kedge::bench {

struct NodeStatusView {
  uint64_t blocks = 0;
  uint64_t index_bytes = 0;
};
absl::StatusOr<NodeStatusView> NodeStatus(const std::string& control_address);

}  // namespace kedge::bench
