// A file that is small enough to be read at once: configuration, model profiles.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace kedge {

// Errors name the path: NotFound when it cannot be read, ResourceExhausted past `bytes_max`.
absl::StatusOr<std::vector<uint8_t>> ReadWholeFile(const std::string& path, uint64_t bytes_max);

}  // namespace kedge
