#include "client/reuse/recompute_plan.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace kedge {
namespace {

using Positions = std::vector<int32_t>;

constexpr RecomputePolicy kScored[] = {RecomputePolicy::kDeviation, RecomputePolicy::kDhd,
                                       RecomputePolicy::kCacheBlend, RecomputePolicy::kRandom,
                                       RecomputePolicy::kOracle};

RecomputePlanner Planner(const RecomputeConfig& config, int64_t layers, int64_t tokens,
                         const std::vector<ReusedSegment>& segments) {
  absl::StatusOr<RecomputePlanner> planner =
      RecomputePlanner::Make(config, layers, tokens, segments);
  EXPECT_TRUE(planner.ok()) << planner.status();
  return *std::move(planner);
}

// One number a token; gives every layer the same scores.
struct Scores {
  std::vector<float> deviation;
  std::vector<float> attention;
};

// The rows that finish each layer.
std::vector<Positions> Choices(RecomputePlanner& planner, int64_t layers, const Scores& scores) {
  std::vector<Positions> finished;
  Positions rows = planner.start();
  for (int64_t layer = 0; layer < layers; ++layer) {
    if (planner.Chooses(layer)) {
      std::vector<float> deviation;
      std::vector<float> attention;
      for (const int32_t row : rows) {
        deviation.push_back(scores.deviation[row]);
        if (!scores.attention.empty()) attention.push_back(scores.attention[row]);
      }
      rows = planner.Choose(layer, rows,
                            {.deviation = deviation, .attention = attention, .oracle = deviation});
    }
    finished.push_back(rows);
  }
  return finished;
}

TEST(TopTokens, TakesTheHighestAndTheFirstOfEqualOnes) {
  const std::vector<ScoredToken> tokens{{2, 1.0f}, {3, 5.0f}, {5, 1.0f}, {8, NAN}, {9, 1.0f}};
  EXPECT_EQ(TopTokens(tokens, 0), Positions{});
  EXPECT_EQ(TopTokens(tokens, 1), (Positions{3}));
  EXPECT_EQ(TopTokens(tokens, 3), (Positions{2, 3, 5}));
  EXPECT_EQ(TopTokens(tokens, 4), (Positions{2, 3, 5, 9}));
  EXPECT_EQ(TopTokens(tokens, 99), (Positions{2, 3, 5, 8, 9}));
}

TEST(CountOf, IsTheFloorAndAtLeastOne) {
  EXPECT_EQ(CountOf(0.15, 20), 3);
  EXPECT_EQ(CountOf(0.15, 19), 2);
  EXPECT_EQ(CountOf(0.01, 19), 1);
  EXPECT_EQ(CountOf(0.0, 19), 0);
  EXPECT_EQ(CountOf(1.0, 19), 19);
  EXPECT_EQ(CountOf(0.5, 0), 0);
}

// 12 tokens: 2 new, 4 reused, 1 new, 4 reused, and the last.
const std::vector<ReusedSegment> kTwo{{2, 4}, {7, 5}};

TEST(RecomputePlanner, NoneComputesWhatNoDonorHasAndTheLastToken) {
  RecomputePlanner planner = Planner({.policy = RecomputePolicy::kNone}, 4, 12, kTwo);
  EXPECT_EQ(planner.start(), (Positions{0, 1, 6, 11}));
  EXPECT_EQ(planner.reused_tokens(), 8);
  for (int64_t layer = 0; layer < 4; ++layer) EXPECT_FALSE(planner.Chooses(layer));
}

TEST(RecomputePlanner, EpicTakesTheFirstTokensOfSegmentsThatHaveSomethingBefore) {
  RecomputeConfig config{.policy = RecomputePolicy::kEpic, .epic_tokens = 2};
  EXPECT_EQ(Planner(config, 4, 12, kTwo).start(), (Positions{0, 1, 2, 3, 6, 7, 8, 11}));
  EXPECT_EQ(Planner(config, 4, 12, {{0, 5}, {5, 6}}).start(), (Positions{5, 6, 11}));
  config.epic_tokens = 100;
  EXPECT_EQ(Planner(config, 4, 12, kTwo).start().size(), 12u);
  config.epic_tokens = 0;
  EXPECT_EQ(Planner(config, 4, 12, kTwo).start(), (Positions{0, 1, 6, 11}));
}

TEST(RecomputePlanner, DeviationChoosesOnceAtTheCheckLayer) {
  RecomputePlanner planner = Planner(
      {.policy = RecomputePolicy::kDeviation, .check_layer = 1, .ratio = 0.25}, 4, 12, kTwo);
  //                     new   reused         new  reused        last
  const Scores scores{{9, 9, 1, 7, 0, 2, 9, 3, 8, 3, 0, 99}, {}};
  const std::vector<Positions> rows = Choices(planner, 4, scores);
  EXPECT_EQ(rows[0].size(), 12u);
  const Positions chosen{0, 1, 3, 6, 8, 11};
  EXPECT_EQ(rows[1], chosen);
  EXPECT_EQ(rows[3], chosen);
  std::map<int32_t, float> left;
  for (const ScoredToken& token : planner.left()) left[token.position] = token.score;
  EXPECT_EQ(left, (std::map<int32_t, float>{{2, 1}, {5, 2}, {7, 3}, {9, 3}}))
      << "not those without a deviation";
}

TEST(RecomputePlanner, DhdWeighsByAttentionAndIsDeviationWithoutIt) {
  const RecomputeConfig config{.policy = RecomputePolicy::kDhd, .check_layer = 1, .ratio = 0.25};
  const std::vector<float> deviation{9, 9, 1, 7, 0, 2, 9, 3, 8, 3, 0, 99};
  RecomputePlanner asked = Planner(config, 4, 12, kTwo);
  EXPECT_EQ(Choices(asked, 4, {deviation, {0, 0, .5f, 0, 9, .1f, 0, .3f, .01f, 0, 0, 0}})[1],
            (Positions{0, 1, 2, 6, 7, 11}));
  RecomputePlanner unasked = Planner(config, 4, 12, kTwo);
  EXPECT_EQ(Choices(unasked, 4, {deviation, {}})[1], (Positions{0, 1, 3, 6, 8, 11}));
}

TEST(RecomputePlanner, TheNoiseOfTheCodecIsTakenOff) {
  RecomputePlanner planner = Planner(
      {.policy = RecomputePolicy::kDeviation, .check_layer = 1, .ratio = 0.34}, 2, 4, {{0, 4}});
  const Positions rows{0, 1, 2, 3};
  const std::vector<float> deviation{5, 4, 3, 0};
  const std::vector<float> noise{5, 1, 9, 0};
  EXPECT_EQ(planner.Choose(1, rows, {.deviation = deviation, .noise = noise}), (Positions{1, 3}));
  EXPECT_TRUE(planner.left().empty()) << "what is noise alone is not repaired";
}

TEST(RecomputePlanner, CacheBlendKeepsFewerAtEveryLayer) {
  const int64_t layers = 9;
  RecomputePlanner planner =
      Planner({.policy = RecomputePolicy::kCacheBlend, .check_layer = 2, .ratio = 0.2}, layers, 101,
              {{0, 101}});
  Scores scores;
  for (int i = 0; i < 101; ++i) scores.deviation.push_back(static_cast<float>((i * 37) % 101));
  const std::vector<Positions> rows = Choices(planner, layers, scores);
  EXPECT_EQ(rows[1].size(), 101u);
  EXPECT_EQ(rows[2].size(), 31u);  // 30% and the last
  EXPECT_EQ(rows[5].size(), 21u);
  EXPECT_EQ(rows[8].size(), 11u);
  double sum = 0;
  for (int64_t layer = 2; layer < layers; ++layer) {
    sum += static_cast<double>(rows[layer].size() - 1);
    EXPECT_TRUE(std::includes(rows[layer - 1].begin(), rows[layer - 1].end(), rows[layer].begin(),
                              rows[layer].end()));
  }
  EXPECT_NEAR(sum / 7, 20.0, 0.5);  // rounded down at every layer
}

TEST(RecomputePlanner, RandomIsTheSeedsAlone) {
  RecomputeConfig config{.policy = RecomputePolicy::kRandom, .check_layer = 1, .ratio = 0.5};
  const auto chosen = [&](float score) {
    RecomputePlanner planner = Planner(config, 3, 200, {{0, 200}});
    return Choices(planner, 3, {std::vector<float>(200, score), {}})[2];
  };
  const Positions first = chosen(1);
  EXPECT_EQ(first, chosen(2));
  EXPECT_EQ(first.size(), 100u);  // 99 of 199, and the last
  config.seed = 1;
  EXPECT_NE(first, chosen(1));
  int64_t front = std::count_if(first.begin(), first.end(), [](int32_t p) { return p < 100; });
  EXPECT_GT(front, 30);
  EXPECT_LT(front, 70);
}

TEST(RecomputePlanner, PropertiesOfEveryPolicy) {
  std::mt19937 random(5);
  for (int trial = 0; trial < 200; ++trial) {
    const int64_t layers = 1 + random() % 6;
    const int64_t tokens = 1 + random() % 60;
    std::vector<ReusedSegment> segments;
    for (int32_t at = random() % 7; at < tokens;) {
      const auto count = static_cast<int32_t>(std::min<int64_t>(random() % 15, tokens - at));
      segments.push_back({at, count});
      at += count + static_cast<int32_t>(random() % 4);
    }
    Scores scores;
    for (int64_t i = 0; i < tokens; ++i) {
      scores.deviation.push_back(static_cast<float>(random() % 5));
      scores.attention.push_back(static_cast<float>(random() % 3));
    }
    const Positions none =
        Planner({.policy = RecomputePolicy::kNone}, layers, tokens, segments).start();
    for (const RecomputePolicy policy : kScored) {
      for (const double ratio : {0.0, 0.2, 0.7, 1.0}) {
        const RecomputeConfig config{.policy = policy,
                                     .check_layer = static_cast<int64_t>(random() % layers),
                                     .ratio = ratio};
        RecomputePlanner planner = Planner(config, layers, tokens, segments);
        RecomputePlanner again = Planner(config, layers, tokens, segments);
        const std::vector<Positions> rows = Choices(planner, layers, scores);
        EXPECT_EQ(rows, Choices(again, layers, scores)) << "ties are settled";
        double row_layers = 0;
        for (const Positions& row : rows) {
          EXPECT_TRUE(std::is_sorted(row.begin(), row.end()));
          EXPECT_EQ(row.back(), tokens - 1) << "the last prompt token";
          EXPECT_TRUE(std::includes(row.begin(), row.end(), none.begin(), none.end()));
          row_layers += static_cast<double>(row.size());
          EXPECT_TRUE(ratio < 1.0 || static_cast<int64_t>(row.size()) == tokens);
          EXPECT_TRUE(ratio > 0.0 || row == none);
        }
        EXPECT_DOUBLE_EQ(planner.RowLayers(0.0), row_layers);
        for (const ScoredToken& token : planner.left()) {
          EXPECT_GT(token.score, 0.0f);
          EXPECT_FALSE(std::binary_search(rows[config.check_layer].begin(),
                                          rows[config.check_layer].end(), token.position));
        }
      }
    }
  }
}

TEST(RecomputePlanner, FixedRowsAreNeverComputedButTheLast) {
  for (const RecomputePolicy policy : {RecomputePolicy::kNone, RecomputePolicy::kEpic,
                                       RecomputePolicy::kDeviation, RecomputePolicy::kCacheBlend}) {
    auto planner = RecomputePlanner::Make(
        {.policy = policy, .check_layer = 1, .ratio = 1.0, .epic_tokens = 2}, 4, 10,
        std::vector<ReusedSegment>{{0, 3, true}, {4, 3}, {8, 2, true}});
    ASSERT_TRUE(planner.ok());
    Positions start{3, 4, 5, 6, 7, 9};
    if (policy == RecomputePolicy::kNone) start = {3, 7, 9};
    if (policy == RecomputePolicy::kEpic) start = {3, 4, 5, 7, 9};
    EXPECT_EQ(planner->start(), start) << RecomputePolicyName(policy);
    EXPECT_EQ(planner->fixed_tokens(), 4);
    EXPECT_EQ(planner->reused_tokens(), 3);
  }
}

TEST(RecomputePlanner, NamesWhatIsWrong) {
  const auto error = [](RecomputeConfig config, std::vector<ReusedSegment> segments) {
    return std::string(RecomputePlanner::Make(config, 4, 10, segments).status().message());
  };
  EXPECT_EQ(error({.ratio = 1.5}, {}), "ratio: 1.5 is not in [0, 1]");
  EXPECT_EQ(error({.ratio = NAN}, {}), "ratio: nan is not in [0, 1]");
  EXPECT_EQ(error({.check_layer = 4}, {}), "check_layer: 4 is not in [0, 4)");
  EXPECT_EQ(error({.slope = -1}, {}), "slope: -1 is not in [0, 1]");
  EXPECT_EQ(error({.epic_tokens = -1}, {}), "epic_tokens: -1 is negative");
  EXPECT_EQ(error({}, {{4, 3}, {6, 2}}), "segments[1]: 2 tokens at 6 do not ascend inside [0, 10)");
  EXPECT_EQ(error({}, {{8, 3}}), "segments[0]: 3 tokens at 8 do not ascend inside [0, 10)");
  EXPECT_EQ(error({}, {{2, -1}}), "segments[0]: -1 tokens at 2 do not ascend inside [0, 10)");
}

TEST(DecodeRepair, TakesTheHighestAndGoesThroughThemInOrder) {
  const std::vector<ScoredToken> left{{3, 1}, {10, 8}, {20, 2}, {21, 6}, {30, 0}, {40, 3}};
  DecodeRepair repair(left, {.tokens_per_step = 2, .coverage = 0.84});  // 17 of 20
  EXPECT_EQ(repair.pending(), 3);
  EXPECT_EQ(repair.Next(), (Positions{10, 21}));
  EXPECT_FALSE(repair.done());
  EXPECT_EQ(repair.Next(), (Positions{40}));
  EXPECT_TRUE(repair.done());
  EXPECT_EQ(repair.Next(), Positions{});
}

TEST(DecodeRepair, StopsAtItsLimits) {
  const std::vector<ScoredToken> left{{3, 1}, {10, 1}, {20, 1}, {21, NAN}};
  EXPECT_EQ(DecodeRepair(left, {.coverage = 1.0}).pending(), 3);
  EXPECT_EQ(DecodeRepair(left, {.coverage = 0.0}).pending(), 0);
  EXPECT_EQ(DecodeRepair(left, {.coverage = 1.0, .max_tokens = 2}).Next(), (Positions{3, 10}));
  EXPECT_TRUE(DecodeRepair().done());
  EXPECT_TRUE(DecodeRepair({}, {}).done());
}

}  // namespace
}  // namespace kedge
