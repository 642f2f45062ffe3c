#include "client/reuse/recompute_rates.h"

#include <algorithm>
#include <random>

#include <gtest/gtest.h>

namespace kedge {
namespace {

TEST(ChooseBlend, HidesRecomputeBehindLoading) {
  // Loading a layer takes 0.4 of computing it: 40% of the rows hide behind it.
  const BlendRates rates{.layers = 32, .check_layer = 1, .compute_layer = 1.0, .load_layer = 0.4};
  const BlendChoice choice = ChooseBlend(rates);
  EXPECT_TRUE(choice.blend);
  EXPECT_DOUBLE_EQ(choice.ratio, 0.4);
  EXPECT_DOUBLE_EQ(choice.dense_seconds, 32.0);
  EXPECT_LT(choice.seconds, 32 * 0.5);
}

TEST(ChooseBlend, NewTokensHideFirst) {
  BlendRates rates{
      .layers = 32, .compute_layer = 1.0, .load_layer = 0.4, .new_share = 0.2, .floor_ratio = 0.1};
  EXPECT_DOUBLE_EQ(ChooseBlend(rates).ratio, 0.25);
  rates.new_share = 0.4;
  EXPECT_DOUBLE_EQ(ChooseBlend(rates).ratio, 0.1);
}

TEST(ChooseBlend, NeverGoesBelowTheFloor) {
  const BlendRates rates{.layers = 32, .compute_layer = 1.0, .load_layer = 0.001};
  EXPECT_DOUBLE_EQ(ChooseBlend(rates).ratio, 0.15);
  EXPECT_TRUE(ChooseBlend(rates).blend);
}

TEST(ChooseBlend, RefusesWhatDenseBeats) {
  BlendRates slow{.layers = 32, .compute_layer = 1.0, .load_layer = 1.1};
  EXPECT_FALSE(ChooseBlend(slow).blend);
  BlendRates far{.layers = 32, .compute_layer = 1.0, .load_layer = 0.1, .load_start = 40.0};
  EXPECT_FALSE(ChooseBlend(far).blend);
  BlendRates nothing{.layers = 32, .compute_layer = 1.0, .new_share = 1.0};
  EXPECT_FALSE(ChooseBlend(nothing).blend);
  BlendRates strict{.layers = 32, .compute_layer = 1.0, .load_layer = 0.1, .floor_ratio = 1.0};
  EXPECT_FALSE(ChooseBlend(strict).blend);
  EXPECT_FALSE(ChooseBlend({}).blend);
}

TEST(ChooseBlend, TheBoundOfCounting) {
  // 90% reuse at ratio 0.15 on 32 layers, nothing to wait for: at most 3.8 times.
  const BlendRates rates{.layers = 32,
                         .check_layer = 1,
                         .compute_layer = 1.0,
                         .projection_share = 0.15,
                         .new_share = 0.1};
  const double speedup = 32.0 / BlendSeconds(rates, 0.15);
  EXPECT_GT(speedup, 3.6);
  EXPECT_LT(speedup, 3.9);
}

TEST(ChooseBlend, PropertiesOfAnyRates) {
  std::mt19937 random(3);
  std::uniform_real_distribution<double> any(0.0, 2.0);
  for (int trial = 0; trial < 500; ++trial) {
    const BlendRates rates{.layers = 1 + static_cast<int64_t>(random() % 40),
                           .check_layer = static_cast<int64_t>(random() % 4),
                           .compute_layer = any(random),
                           .load_layer = any(random),
                           .load_start = any(random),
                           .new_share = any(random) / 2,
                           .floor_ratio = any(random) / 2};
    const BlendChoice choice = ChooseBlend(rates);
    EXPECT_GE(choice.ratio, rates.floor_ratio);
    EXPECT_LE(choice.ratio, 1.0);
    EXPECT_EQ(choice.seconds, BlendSeconds(rates, choice.ratio));
    EXPECT_TRUE(!choice.blend || choice.seconds < choice.dense_seconds);
    if (choice.ratio > rates.floor_ratio) {
      const double rows = rates.new_share + (1 - rates.new_share) * choice.ratio;
      EXPECT_LE(rows * rates.compute_layer, rates.load_layer + 1e-9) << "hides behind the load";
    }
    EXPECT_LE(BlendSeconds(rates, choice.ratio / 2), choice.seconds + 1e-9);
  }
}

TEST(PlanCake, IsTheBestSplit) {
  std::mt19937 random(7);
  std::uniform_real_distribution<double> any(0.0, 1.0);
  for (int trial = 0; trial < 2000; ++trial) {
    CakeRates rates{.compute_block = any(random),
                    .compute_growth = any(random) * 0.1,
                    .load_block = any(random),
                    .load_start = any(random) * 5};
    if (trial % 7 == 0) rates.compute_growth = 0;
    if (trial % 11 == 0) rates.load_block = 0;
    if (trial % 13 == 0) rates.compute_block = 0;
    const auto blocks = static_cast<int64_t>(random() % 70);
    const auto seconds = [&](int64_t computed) {
      return std::max(CakeComputeSeconds(rates, computed),
                      CakeLoadSeconds(rates, blocks - computed));
    };
    double best = seconds(0);
    for (int64_t computed = 1; computed <= blocks; ++computed)
      best = std::min(best, seconds(computed));
    const CakePlan plan = PlanCake(blocks, rates);
    EXPECT_EQ(plan.computed + plan.loaded, blocks);
    EXPECT_EQ(plan.seconds, best) << trial;
    EXPECT_EQ(plan.seconds, seconds(plan.computed));
    EXPECT_LE(plan.seconds, CakeLoadSeconds(rates, blocks)) << "never later than a plain load";
    EXPECT_TRUE(plan.computed == 0 || seconds(plan.computed - 1) > best) << "computes the least";
  }
}

TEST(PlanCake, ByHand) {
  // Computing a block takes twice as long as loading one: a third is computed.
  const CakePlan plan = PlanCake(30, {.compute_block = 2, .load_block = 1});
  EXPECT_EQ(plan.computed, 10);
  EXPECT_EQ(plan.loaded, 20);
  EXPECT_EQ(plan.seconds, 20);
  EXPECT_EQ(PlanCake(30, {.compute_block = 100, .load_block = 1}).computed, 0);
  EXPECT_EQ(PlanCake(30, {.compute_block = 1, .load_block = 1, .load_start = 90}).loaded, 0);
  EXPECT_EQ(PlanCake(0, {.compute_block = 1, .load_block = 1}).seconds, 0);
}

}  // namespace
}  // namespace kedge
