// Whether a placeholder's offsets may be used: the one place that says so.
//
// KVCOMM's gate (arXiv 2510.12872, Eq. 5) refuses a filling that is longer than every anchor or
// whose weights are spread too evenly. Both are relative: a pool whose offsets say nothing about
// the next filling passes. So the gate also looks at what is absolute: how far the nearest anchor
// is, and how well the pool predicts its own members, each from the others (or, for a linear map,
// what it had not seen yet). What is refused is computed densely.
#pragma once

#include <cstdint>

#include "store/block/offset_evidence.h"

namespace kedge {

// Why a placeholder is computed densely. Counted by name in metrics.
enum class OffsetRefusal {
  kNone,         // accepted
  kEmpty,        // the filling has no tokens
  kNoPool,       // nothing was learnt of this placeholder, consumer and base kind
  kTemplate,     // the text behind the placeholder is not what was learnt
  kShape,        // layers or width are not the pool's
  kFewRuns,      // too little was seen to know the pool's error
  kTooLong,      // longer than every anchor
  kEntropy,      // no anchor stands out
  kTooFar,       // the nearest anchor is further than anchors are from each other
  kPoolError,    // the pool does not predict its own members
  kUnavailable,  // the pool did not answer: its node is away, busy or late
  kSuspended,    // an audit found that what was accepted did not answer as dense does
};
inline constexpr int kOffsetRefusals = 12;
const char* OffsetRefusalName(OffsetRefusal refusal);

struct OffsetGateOptions {
  bool off = false;  // accept whatever can be calculated (ablation)
  int64_t min_runs = 3;
  // Most entropy, of the logarithm of the number of anchors. The paper has 0.3, on distances that
  // are not the mixture's; on those of the mixture every filling is at 0.9 and more, those that
  // offsets serve and those that they do not (client/README.md), so that the default asks nothing.
  double gamma = 1.01;
  double max_distance = 1.25;  // most distance of the nearest anchor, in the pool's mean distances
  double max_error = 0.48;     // most share of the offsets' squares that is left
  double max_token_error = 1.6;  // the same of the worst hundredth of the tokens
};

OffsetRefusal Judge(const OffsetEvidence& evidence, int64_t filling_tokens,
                    const OffsetGateOptions& options);

}  // namespace kedge
