// Reads the task files of tests/quality/tasks: JSON lines, a header and one context a line.
//
// Format and version are checked before anything else is looked at; a file of another format or
// version is refused by name. Lengths in tokens are checked where a tokenizer is at hand
// (eval_context.h).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace kedge::quality {

inline constexpr char kTaskFormat[] = "kedge-tasks";
inline constexpr int64_t kTaskVersion = 2;

// A run of a context's text: a template's words, or what fills a placeholder.
struct TaskPiece {
  bool filling = false;
  int64_t placeholder = 0;  // of a filling
  std::string text;         // words joined by single spaces
  std::string plain;        // prose as people write it; "" for words
};

struct TaskQuestion {
  std::string text;
  std::string answer;
  std::string tag;  // a plain word that accuracies are broken down by; may be ""
};

struct TaskContext {
  std::string id;
  std::string consumer;  // whose templates these are; "" when the file does not say
  std::string group;     // contexts that say the same in another order; "" for none
  std::vector<TaskPiece> pieces;
  std::vector<TaskQuestion> questions;  // none: the loss over the last piece is the score
};

struct TaskFile {
  std::string task;
  std::string split;
  int64_t version = 0;
  std::vector<TaskContext> contexts;
};

// InvalidArgument names file, line, field and value. A file with fewer contexts than its header
// says is refused: it was cut off.
absl::StatusOr<TaskFile> ParseTaskFile(std::string_view text, std::string_view file);
// NotFound when there is no such file.
absl::StatusOr<TaskFile> ReadTaskFile(const std::string& path);

}  // namespace kedge::quality
