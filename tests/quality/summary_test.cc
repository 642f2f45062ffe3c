#include "tests/quality/summary.h"

#include <map>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kedge::quality {
namespace {

QuestionScore Answered(std::vector<uint8_t> right, float kl = 0, std::vector<int32_t> greedy = {}) {
  QuestionScore score;
  score.log_probability.assign(right.size(), kl == 0 ? -1.0f : -2.0f);
  score.kl.assign(right.size(), kl);
  score.right = std::move(right);
  score.greedy = std::move(greedy);
  return score;
}

EvalQuestion Asked(size_t answer_tokens, const std::string& tag) {
  return {.tokens = {1}, .answer = std::vector<int32_t>(answer_tokens, 2), .tag = tag};
}

std::map<std::string, QualityFigure> ByName(const std::vector<QualityFigure>& figures) {
  std::map<std::string, QualityFigure> by_name;
  for (const QualityFigure& figure : figures) by_name[figure.name] = figure;
  EXPECT_EQ(by_name.size(), figures.size()) << "a name came twice";
  return by_name;
}

TEST(Summary, PointsLostAreOnTheSameQuestions) {
  EvalTask task{.name = "role"};
  std::vector<ContextScores> scores;
  for (int c = 0; c < 2; ++c) {
    task.contexts.push_back({.id = std::to_string(c), .cluster = std::to_string(c)});
    task.contexts.back().questions = {Asked(1, "near"), Asked(1, "far")};
    ContextScores context;
    context.policies = {{Answered({1}), Answered({1})}, {Answered({1}, 0.5f), Answered({0}, 0.5f)}};
    scores.push_back(context);
  }
  auto figures = ByName(Summarize(task, scores, {"dense", "none"}));
  EXPECT_EQ(figures["dense/accuracy/role"].interval.mean, 1);
  EXPECT_EQ(figures["dense/accuracy/role/far"].interval.mean, 1);
  EXPECT_EQ(figures["none/accuracy/role"].interval.mean, 0.5);
  EXPECT_EQ(figures["none/points_lost/role"].interval.mean, 50);
  EXPECT_EQ(figures["none/points_lost/role"].bar, 20);
  EXPECT_EQ(figures["none/points_lost/role/near"].interval.mean, 0);
  EXPECT_EQ(figures["none/points_lost/role/far"].interval.mean, 100);
  EXPECT_EQ(figures["none/points_lost/role/far"].interval.values, 2);
  EXPECT_FLOAT_EQ(static_cast<float>(figures["none/kl/role"].interval.mean), 0.5f);
  EXPECT_EQ(figures.count("dense/points_lost/role"), 0u);
  EXPECT_EQ(figures.count("none/accuracy/role/far"), 0u);
  EXPECT_EQ(BarOf("none", "recall"), 1);
  EXPECT_EQ(BarOf("fetched", "role"), 1);
}

TEST(Summary, LongAnswersAreScoredByPosition) {
  EvalTask task{.name = "long"};
  task.contexts.push_back({.id = "0", .cluster = "0"});
  task.contexts.back().questions = {Asked(20, "")};
  std::vector<uint8_t> half(20, 1);
  for (size_t i = 16; i < 20; ++i) half[i] = 0;
  ContextScores context;
  context.policies = {{Answered(std::vector<uint8_t>(20, 1))}, {Answered(half)}};
  auto figures = ByName(Summarize(task, {context}, {"dense", "x"}));
  EXPECT_EQ(figures["x/accuracy/long"].interval.mean, 0.8);
  EXPECT_EQ(figures["x/points_lost/long/at0"].interval.mean, 0);
  EXPECT_EQ(figures["x/points_lost/long/at16"].interval.mean, 100);
  EXPECT_EQ(figures["x/exact/long"].interval.mean, 0);
  EXPECT_EQ(figures["dense/exact/long"].interval.mean, 1);
}

TEST(Summary, ConsistencyIsOfWholeGroups) {
  EvalTask task{.name = "judge"};
  std::vector<ContextScores> scores;
  const std::vector<std::vector<int32_t>> answers = {{7}, {7}, {8}, {9}};
  for (int c = 0; c < 4; ++c) {
    const std::string group = c < 2 ? "g0" : "g1";
    task.contexts.push_back({.id = std::to_string(c), .group = group, .cluster = group});
    task.contexts.back().questions = {Asked(1, "")};
    ContextScores context;
    context.policies = {{Answered({1}, 0, answers[c])}};
    scores.push_back(context);
  }
  auto figures = ByName(Summarize(task, scores, {"dense"}));
  EXPECT_EQ(figures["dense/consistency/judge"].interval.mean, 0.5);
  EXPECT_EQ(figures["dense/consistency/judge"].interval.values, 2);
}

TEST(Summary, ProseHasLosses) {
  EvalTask task{.name = "prose", .prose = true};
  task.contexts.push_back({.id = "0", .cluster = "0"});
  task.contexts.back().questions = {Asked(40, "")};
  ContextScores context;
  context.policies = {{Answered(std::vector<uint8_t>(40, 0))},
                      {Answered(std::vector<uint8_t>(40, 0), 0.25f)}};
  auto figures = ByName(Summarize(task, {context}, {"dense", "none"}));
  EXPECT_EQ(figures["dense/loss/prose"].interval.mean, 1);
  EXPECT_EQ(figures["none/loss/prose"].interval.mean, 2);
  EXPECT_EQ(figures["none/loss_added/prose"].interval.mean, 1);
  EXPECT_EQ(figures["none/kl/prose"].interval.mean, 0.25);
  EXPECT_EQ(figures.count("dense/accuracy/prose"), 0u);
}

TEST(Summary, AnIntervalIsNarrowEnoughAtHalfTheBar) {
  QualityFigure figure{.bar = 1.0};
  figure.interval.low = -0.25;
  figure.interval.high = 0.25;
  EXPECT_TRUE(figure.narrow_enough());
  figure.interval.high = 0.26;
  EXPECT_FALSE(figure.narrow_enough());
}

}  // namespace
}  // namespace kedge::quality
