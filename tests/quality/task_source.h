// Where task files come from: a folder of them, or the generator of tests/quality/tasks.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace kedge::quality {

// Runs `python3 GENERATOR --all --split SPLIT --contexts COUNT --out FOLDER`. The error says which
// program, and its status; what it printed went to standard error.
absl::Status GenerateTasks(const std::string& generator, const std::string& split, int64_t contexts,
                           const std::string& folder);

// The names of the task files in a folder (TASK of TASK.jsonl), sorted. NotFound names the folder
// when there is none.
absl::StatusOr<std::vector<std::string>> TasksIn(const std::string& folder);

}  // namespace kedge::quality
