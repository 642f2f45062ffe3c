#include "tests/quality/paired.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace kedge::quality {
namespace {

QuestionScore Answered(std::vector<uint8_t> right) {
  QuestionScore score;
  score.right = std::move(right);
  return score;
}

TEST(PointsWon, PairsTheSameQuestions) {
  EvalTask task{.name = "alias"};
  std::vector<ContextScores> scores;
  for (int i = 0; i < 2; ++i) {
    task.contexts.push_back({.id = std::to_string(i), .cluster = std::to_string(i)});
    ContextScores context;
    // Dense; one that knows the first of three; one that knows all, in the first context only.
    context.policies.push_back({Answered({1}), Answered({1}), Answered({1, 1})});
    context.policies.push_back({Answered({1}), Answered({0}), Answered({1, 0})});
    const uint8_t known = i == 0;
    context.policies.push_back({Answered({known}), Answered({known}), Answered({known, known})});
    scores.push_back(context);
  }
  const Interval won = PointsWon(task, scores, 2, 1);
  EXPECT_EQ(won.values, 6);
  EXPECT_EQ(won.clusters, 2);
  EXPECT_NEAR(won.mean, 100.0 * (2 - 1) / 6, 1e-9);
  EXPECT_NEAR(won.low, 100.0 * -2 / 6, 1e-9);
  EXPECT_NEAR(won.high, 100.0 * 4 / 6, 1e-9);
  EXPECT_EQ(PointsWon(task, scores, 1, 2).mean, -won.mean);
  EXPECT_EQ(PointsWon(task, scores, 0, 0).width(), 0.0);
}

TEST(PointsWon, CountsLongAnswersByToken) {
  EvalTask task{.name = "long"};
  task.contexts.push_back({.id = "0", .cluster = "0"});
  std::vector<uint8_t> half(20, 1);
  for (int i = 0; i < 10; ++i) half[i] = 0;
  ContextScores context;
  context.policies = {{Answered(std::vector<uint8_t>(20, 1))}, {Answered(half)}};
  EXPECT_NEAR(PointsWon(task, {context}, 0, 1).mean, 50.0, 1e-9);
}

}  // namespace
}  // namespace kedge::quality
