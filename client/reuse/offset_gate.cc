#include "client/reuse/offset_gate.h"

#include <cmath>

namespace kedge {

const char* OffsetRefusalName(OffsetRefusal refusal) {
  switch (refusal) {
    case OffsetRefusal::kNone:
      return "none";
    case OffsetRefusal::kEmpty:
      return "empty";
    case OffsetRefusal::kNoPool:
      return "no_pool";
    case OffsetRefusal::kTemplate:
      return "template";
    case OffsetRefusal::kShape:
      return "shape";
    case OffsetRefusal::kFewRuns:
      return "few_runs";
    case OffsetRefusal::kTooLong:
      return "too_long";
    case OffsetRefusal::kEntropy:
      return "entropy";
    case OffsetRefusal::kTooFar:
      return "too_far";
    case OffsetRefusal::kPoolError:
      return "pool_error";
    case OffsetRefusal::kUnavailable:
      return "unavailable";
    case OffsetRefusal::kSuspended:
      return "suspended";
  }
  return "unknown";
}

OffsetRefusal Judge(const OffsetEvidence& evidence, int64_t filling_tokens,
                    const OffsetGateOptions& options) {
  if (filling_tokens == 0) return OffsetRefusal::kEmpty;
  if (evidence.runs == 0) return OffsetRefusal::kNoPool;
  // What was computed for this filling, in this context.
  if (evidence.same) return OffsetRefusal::kNone;
  if (!evidence.linear && (filling_tokens > evidence.longest || evidence.eligible == 0))
    return OffsetRefusal::kTooLong;
  if (options.off) return OffsetRefusal::kNone;
  if (evidence.runs < options.min_runs || evidence.error.predicted < options.min_runs - 1)
    return OffsetRefusal::kFewRuns;
  if (!evidence.linear) {
    const auto eligible = static_cast<double>(evidence.eligible);
    // One anchor has no entropy and says nothing about its likes.
    if (evidence.eligible < 2 || !(evidence.entropy <= options.gamma * std::log(eligible)))
      return OffsetRefusal::kEntropy;
    if (!(evidence.nearest <= options.max_distance)) return OffsetRefusal::kTooFar;
  }
  if (!(evidence.error.filling <= options.max_error) ||
      !(evidence.error.filling_worst <= options.max_token_error)) {
    return OffsetRefusal::kPoolError;
  }
  return OffsetRefusal::kNone;
}

}  // namespace kedge
