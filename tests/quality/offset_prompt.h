// A context as the client's offsets see it: fillings under their placeholders' names.
#pragma once

#include "client/reuse/kvcomm.h"
#include "tests/quality/eval_context.h"

namespace kedge::quality {

// The context must outlive it.
OffsetPrompt PromptOf(const EvalContext& context);

}  // namespace kedge::quality
