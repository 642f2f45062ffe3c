// Figures of one task from its scores: what `tools/bench quality` prints.
//
// Names are paths of plain words; POLICY is dense or a policy's name:
//
//   POLICY/accuracy/TASK         share of right answers, 0 to 1; of a long answer's tokens
//   dense/accuracy/TASK/TAG      of the questions with this tag
//   dense/accuracy/TASK/at16     of a long answer's tokens 16 to 31, and so on
//   POLICY/exact/TASK            share of long answers without a mistake
//   POLICY/consistency/TASK      share of groups that get one and the same answer in every order
//   POLICY/loss/TASK             nats a token, where a task is plain text
//   POLICY/points_lost/TASK      100 times what dense gets more, on the same questions (not for
//                                dense); also by TAG, and by position of long answers
//   POLICY/loss_added/TASK       nats a token more than dense
//   POLICY/kl/TASK               nats, the next-token distribution from dense's, over all tokens of
//                                the answers
//
// Intervals are 95%, clustered by context (bootstrap.h). A points_lost figure says which bar it
// serves and whether the interval is narrow enough for that: at most half as wide.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tests/quality/bootstrap.h"
#include "tests/quality/evaluate.h"

namespace kedge::quality {

// An answer of this many tokens or more is scored token by token.
inline constexpr int64_t kLongAnswer = 16;

struct QualityFigure {
  std::string name;
  std::string unit;  // "share", "points", "nats", "ratio"
  Interval interval;
  std::optional<double> bar;  // points

  bool narrow_enough() const { return !bar || interval.width() <= *bar / 2; }
};

// The bar that a policy's loss on a task is held against: what `none` has to lose to show that the
// task can tell (20 points; 1 on recall, the control), 1 point for all others.
double BarOf(const std::string& policy, const std::string& task);

// `policies` are the names of scores' policies, "dense" first.
std::vector<QualityFigure> Summarize(const EvalTask& task, const std::vector<ContextScores>& scores,
                                     const std::vector<std::string>& policies);

}  // namespace kedge::quality
