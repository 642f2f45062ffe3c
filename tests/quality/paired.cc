#include "tests/quality/paired.h"

#include <numeric>

#include "tests/quality/summary.h"

namespace kedge::quality {
namespace {

double Points(const QuestionScore& score) {
  const auto tokens = static_cast<int64_t>(score.right.size());
  if (tokens < kLongAnswer) return score.correct() ? 100.0 : 0.0;
  const int right = std::accumulate(score.right.begin(), score.right.end(), 0);
  return 100.0 * right / static_cast<double>(tokens);
}

}  // namespace

Interval PointsWon(const EvalTask& task, const std::vector<ContextScores>& scores, size_t policy,
                   size_t other) {
  std::vector<ClusteredValue> values;
  for (size_t context = 0; context < scores.size(); ++context) {
    const auto& ours = scores[context].policies[policy];
    const auto& theirs = scores[context].policies[other];
    for (size_t i = 0; i < ours.size(); ++i)
      values.push_back({task.contexts[context].cluster, Points(ours[i]) - Points(theirs[i])});
  }
  return Bootstrap(values);
}

}  // namespace kedge::quality
