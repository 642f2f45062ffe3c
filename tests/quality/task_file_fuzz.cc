// Any bytes as a task file: no crash, and what is accepted keeps the promises of task_file.h.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "tests/quality/task_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto file = kedge::quality::ParseTaskFile(text, "fuzz");
  if (!file.ok()) return 0;
  if (file->version != kedge::quality::kTaskVersion || file->contexts.empty()) std::abort();
  for (const kedge::quality::TaskContext& context : file->contexts) {
    if (context.pieces.empty() || context.pieces[0].filling) std::abort();
    if (context.questions.empty() && context.pieces.size() < 2) std::abort();
    for (const kedge::quality::TaskQuestion& question : context.questions) {
      if (question.text.empty() || question.answer.empty()) std::abort();
    }
  }
  return 0;
}
