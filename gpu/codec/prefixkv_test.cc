#include "gpu/codec/prefixkv.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gpu/codec/token_scores.h"
#include "gpu/kernels/random_floats.h"
#include "gtest/gtest.h"

namespace kedge::codec {
namespace {

using ::testing::HasSubstr;

// Layers whose attention is more and more concentrated.
std::vector<std::vector<double>> Importances(int64_t layers, int64_t tokens) {
  std::vector<std::vector<double>> all;
  for (int64_t layer = 0; layer < layers; ++layer) {
    const std::vector<float> floats = kernels::RandomFloats(tokens, 1 + layer);
    std::vector<double> values;
    for (const float value : floats)
      values.push_back(std::pow(std::abs(double{value}), 0.5 + 2.0 * static_cast<double>(layer)));
    all.push_back(std::move(values));
  }
  return all;
}

std::vector<PriorityCurve> Curves(const std::vector<std::vector<double>>& importances) {
  std::vector<PriorityCurve> curves;
  for (const std::vector<double>& importance : importances) curves.push_back(CurveOf(importance));
  return curves;
}

// By hand. A: four tokens alike. B: 0.7 and three times 0.1. p is in B's second step:
// p + (0.25 + 2.5 (p - 0.7)) = 2 * 0.5, so p = 5/7.
TEST(PrefixKv, SmallCaseByHand) {
  const std::vector<double> alike = {1, 1, 1, 1};
  const std::vector<double> one = {0.1, 0.7, 0.1, 0.1};
  const std::vector<PriorityCurve> curves = {CurveOf(alike), CurveOf(one)};
  const double expected[] = {0, 0.7, 0.8, 0.9, 1};
  for (int i = 0; i < 5; ++i) EXPECT_NEAR(curves[1][i], expected[i], 1e-12);
  EXPECT_NEAR(ShareFor(curves[1], 0.35), 0.125, 1e-12);
  EXPECT_NEAR(ShareFor(curves[1], 0.75), 0.375, 1e-12);
  EXPECT_EQ(ShareFor(curves[1], 0.0), 0.0);
  EXPECT_EQ(ShareFor(curves[1], 1.0), 1.0);
  const std::vector<double> shares = EqualMassShares(curves, 0.5);
  EXPECT_NEAR(shares[0], 5.0 / 7, 1e-9);
  EXPECT_NEAR(shares[1], 2.0 / 7, 1e-9);
  // 28.57 and 11.43 of 40: the larger remainder gets the odd one. In groups of 8: 3.57 and 1.43.
  EXPECT_EQ(*BudgetRows(shares, 0.5, 40, 1), (std::vector<int64_t>{29, 11}));
  EXPECT_EQ(*BudgetRows(shares, 0.5, 40, 8), (std::vector<int64_t>{32, 8}));
}

// The authors' search: whole tokens, a tolerance, then scaled to the budget.
std::vector<double> AuthorsRows(const std::vector<std::vector<double>>& importances,
                                double budget) {
  const auto layers = static_cast<double>(importances.size());
  const auto tokens = static_cast<double>(importances[0].size());
  double low = 0, high = 1;
  std::vector<double> dropped;
  for (int i = 0; i < 40; ++i) {
    const double p = (low + high) / 2;
    dropped.clear();
    for (std::vector<double> sorted : importances) {
      std::sort(sorted.begin(), sorted.end(), std::greater<>());
      const double sum = std::accumulate(sorted.begin(), sorted.end(), 0.0);
      double held = 0;
      size_t kept = 0;
      while (kept < sorted.size() && held < p * sum) held += sorted[kept++];
      dropped.push_back(tokens - static_cast<double>(kept));
    }
    const double total = std::accumulate(dropped.begin(), dropped.end(), 0.0);
    (total < (1 - budget) * layers * tokens ? high : low) = p;
  }
  const double total = std::accumulate(dropped.begin(), dropped.end(), 0.0);
  std::vector<double> rows;
  for (const double each : dropped)
    rows.push_back(tokens - each * (1 - budget) * layers * tokens / total);
  return rows;
}

TEST(PrefixKv, AgreesWithTheAuthorsSearch) {
  const auto importances = Importances(5, 400);
  for (const double budget : {0.1, 0.3, 0.5, 0.8}) {
    const std::vector<double> shares = EqualMassShares(Curves(importances), budget);
    const std::vector<double> authors = AuthorsRows(importances, budget);
    for (size_t layer = 0; layer < shares.size(); ++layer)
      EXPECT_NEAR(shares[layer] * 400, authors[layer], 2.0) << budget << " layer " << layer;
  }
}

TEST(PrefixKv, EveryLayerKeepsTheSameMassAndTheMeanIsTheBudget) {
  const std::vector<PriorityCurve> curves = Curves(Importances(6, 300));
  std::vector<double> last(6, 0.0);
  for (double budget = 0.05; budget < 0.96; budget += 0.05) {
    const std::vector<double> shares = EqualMassShares(curves, budget);
    EXPECT_NEAR(std::accumulate(shares.begin(), shares.end(), 0.0) / 6, budget, 1e-9);
    std::vector<double> masses;
    for (size_t layer = 0; layer < 6; ++layer) {
      EXPECT_GE(shares[layer], last[layer]) << "more budget, fewer tokens";
      const double at = shares[layer] * 300;
      const auto below = static_cast<int64_t>(at);
      const double part = at - static_cast<double>(below);
      masses.push_back(curves[layer][below] * (1 - part) +
                       (part > 0 ? curves[layer][below + 1] * part : 0.0));
    }
    for (const double mass : masses) EXPECT_NEAR(mass, masses[0], 1e-6) << "budget " << budget;
    EXPECT_GT(shares[0], shares[5]) << "the layer that spreads its attention keeps more";
    last = shares;
  }
}

TEST(PrefixKv, BudgetsBeyondAllMassGoToWhatIsLeft) {
  const std::vector<double> two = {1, 0, 0, 0, 1, 0, 0, 0, 0, 0};
  const std::vector<PriorityCurve> curves = {CurveOf(two), CurveOf(std::vector<double>(10, 0.0))};
  const std::vector<double> shares = EqualMassShares(curves, 0.9);
  EXPECT_NEAR(shares[0] + shares[1], 1.8, 1e-9);
  EXPECT_LE(shares[0], 1.0);
  EXPECT_LE(shares[1], 1.0);
}

TEST(PrefixKv, RowsAreExactMultiplesOfTheGroup) {
  const std::vector<PriorityCurve> curves = Curves(Importances(7, 320));
  for (const int64_t tokens : {64, 128, 320, 1024}) {
    for (const int64_t group : {1, 32, 64}) {
      for (double budget = 0.1; budget < 0.99; budget += 0.07) {
        const std::vector<double> shares = EqualMassShares(curves, budget);
        const absl::StatusOr<std::vector<int64_t>> rows = BudgetRows(shares, budget, tokens, group);
        ASSERT_TRUE(rows.ok()) << rows.status();
        int64_t sum = 0;
        for (const int64_t row : *rows) {
          EXPECT_EQ(row % group, 0);
          EXPECT_GE(row, 5);
          EXPECT_LE(row, tokens);
          sum += row;
        }
        const int64_t least = 7 * (group == 1 ? 5 : group);
        const int64_t wanted =
            std::llround(budget * 7 * static_cast<double>(tokens) / static_cast<double>(group)) *
            group;
        EXPECT_EQ(sum, std::clamp(wanted, least, 7 * tokens)) << tokens << " " << group;
      }
    }
  }
  EXPECT_THAT(std::string(BudgetRows(std::vector<double>(2, 0.5), 0.5, 64, 128).status().message()),
              HasSubstr("groups of 128 do not fit in 64 tokens"));
}

TEST(PrefixKv, SinksAndTheLastTokenStay) {
  std::vector<double> importance(20);
  std::iota(importance.begin(), importance.end(), -10.0);
  importance[19] = -99;
  EXPECT_EQ(KeptPositions(importance, 8), (std::vector<int32_t>{0, 1, 2, 3, 16, 17, 18, 19}));
  EXPECT_EQ(KeptPositions(importance, 5), (std::vector<int32_t>{0, 1, 2, 3, 19}));
  EXPECT_EQ(KeptPositions(importance, 20).size(), 20u);
  EXPECT_EQ(KeptPositions(std::vector<double>(3, 1.0), 3), (std::vector<int32_t>{0, 1, 2}));
}

TEST(PrefixKvProfile, AveragesCurvesAndRoundTrips) {
  PrefixKvBuilder builder(3);
  EXPECT_FALSE(builder.Build().ok());
  builder.Add(Curves(Importances(3, 100)));
  builder.Add(Curves(Importances(3, 333)));
  const absl::StatusOr<PrefixKvProfile> profile = builder.Build();
  ASSERT_TRUE(profile.ok());
  EXPECT_EQ(profile->samples, 2u);
  const std::vector<uint8_t> bytes = EncodePrefixKv(*profile);
  EXPECT_EQ(bytes.size(), 12u + 3 * 257 * 4);
  const absl::StatusOr<PrefixKvProfile> read = DecodePrefixKv(bytes);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(EncodePrefixKv(*read), bytes);
  for (size_t i = 0; i < 257; ++i) EXPECT_NEAR(read->curves[2][i], profile->curves[2][i], 3e-10);
  const std::vector<double> a = EqualMassShares(profile->curves, 0.4);
  const std::vector<double> b = EqualMassShares(Curves(Importances(3, 100)), 0.4);
  for (size_t layer = 0; layer < 3; ++layer) EXPECT_NEAR(a[layer], b[layer], 0.1);
}

TEST(PrefixKvProfile, ErrorsNameTheField) {
  PrefixKvBuilder builder(2);
  builder.Add(Curves(Importances(2, 50)));
  const std::vector<uint8_t> bytes = EncodePrefixKv(*builder.Build());
  const auto message = [&](size_t at, uint8_t value) {
    std::vector<uint8_t> hurt = bytes;
    hurt[at] = value;
    return std::string(DecodePrefixKv(hurt).status().message());
  };
  EXPECT_THAT(message(0, 7), HasSubstr("prefixkv: version: 7"));
  EXPECT_THAT(message(2, 0), HasSubstr("prefixkv: layers: 0"));
  EXPECT_THAT(message(2, 3), HasSubstr("prefixkv: bytes"));
  EXPECT_THAT(message(5, 255), HasSubstr("prefixkv: points"));
  EXPECT_THAT(message(8, 0), HasSubstr("prefixkv: samples: 0"));
  EXPECT_THAT(message(12, 1), HasSubstr("prefixkv: curve point: 0"));
  EXPECT_THAT(message(12 + 4 * 200 + 3, 0), HasSubstr("prefixkv: curve point: 200 falls"));
  EXPECT_FALSE(DecodePrefixKv(std::span(bytes).first(bytes.size() - 1)).ok());
}

}  // namespace
}  // namespace kedge::codec
