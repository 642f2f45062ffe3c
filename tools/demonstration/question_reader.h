// Reads questions from a file in the format of GSM8K: one JSON object a line with the texts
// "question" and "answer". Source: Cobbe et al., "Training Verifiers to Solve Math Word Problems"
// (arXiv 2110.14168).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace kedge {

inline constexpr uint64_t kQuestionBytesMax = 16 << 10;
inline constexpr uint64_t kInstructionsBytesMax = 64 << 10;

// The first `count` questions. NotFound names the path; InvalidArgument path, line number and
// field; a file with fewer questions gives those that it has, one without any InvalidArgument.
absl::StatusOr<std::vector<std::string>> ReadQuestions(const std::string& path, uint64_t count);

// A whole text file, not empty. NotFound or InvalidArgument name the path.
absl::StatusOr<std::string> ReadInstructions(const std::string& path);

}  // namespace kedge
