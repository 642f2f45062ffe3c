// One policy against another on the same questions: what a choice of tokens wins over chance, or
// over another choice of the same cost.
#pragma once

#include <cstddef>
#include <vector>

#include "tests/quality/bootstrap.h"
#include "tests/quality/evaluate.h"

namespace kedge::quality {

// Points that scores' policy `policy` gets more than policy `other`, 100 times the mean over
// questions of the share of answer tokens that are right; clustered by context. An answer below
// kLongAnswer tokens is right as a whole or wrong. Not for tasks without questions. Both are places
// among ContextScores::policies, 0 for dense.
Interval PointsWon(const EvalTask& task, const std::vector<ContextScores>& scores, size_t policy,
                   size_t other);

}  // namespace kedge::quality
