// A frozen choice of contexts of several tasks: what `auto` is judged on.
//
//     kedge-mix 1
//     role 1000003              a task, and a context's seed of the test split
//     ...
//     sha256 0567b7...          of the named contexts' lines in the task files, in this order
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace kedge::quality {

// A mix names contexts among so many first ones of each task.
inline constexpr int64_t kMixContexts = 48;

struct MixEntry {
  std::string task;
  int64_t index = 0;  // of the test split
};

struct Mix {
  std::vector<MixEntry> entries;
  std::string digest;  // hex
};

// InvalidArgument names file and line.
absl::StatusOr<Mix> ParseMix(const std::string& text, const std::string& file);
// NotFound when there is no such file.
absl::StatusOr<Mix> ReadMix(const std::string& path);

// Whether TASK.jsonl in `folder` still has the contexts that the mix was made of. InvalidArgument
// says which is missing, or both digests.
absl::Status CheckMix(const Mix& mix, const std::string& file, const std::string& folder);

}  // namespace kedge::quality
