#include "tests/quality/offset_prompt.h"

#include "absl/strings/str_cat.h"

namespace kedge::quality {

OffsetPrompt PromptOf(const EvalContext& context) {
  OffsetPrompt prompt{.consumer = context.consumer, .tokens = context.tokens, .lead = context.lead};
  for (const EvalPiece& piece : context.pieces) {
    prompt.segments.push_back({.filling = piece.filling,
                               .placeholder = absl::StrCat(piece.placeholder),
                               .first = piece.first,
                               .count = piece.count});
  }
  return prompt;
}

}  // namespace kedge::quality
