#include "tests/quality/bootstrap.h"

#include <cmath>
#include <string>
#include <vector>

#include "gpu/kernels/sampling.h"
#include "gtest/gtest.h"

namespace kedge::quality {
namespace {

TEST(Bootstrap, AConstantHasNoWidth) {
  const Interval interval = Bootstrap({{"a", 2}, {"a", 2}, {"b", 2}});
  EXPECT_EQ(interval.mean, 2);
  EXPECT_EQ(interval.width(), 0);
  EXPECT_EQ(interval.values, 3);
  EXPECT_EQ(interval.clusters, 2);
  EXPECT_EQ(Bootstrap({}).values, 0);
}

// Values that are alike inside a cluster say as much as one value a cluster.
TEST(Bootstrap, TheWidthIsThatOfTheClusters) {
  kernels::SamplingGenerator generator(5);
  std::vector<ClusteredValue> once, tenfold, apart;
  for (int c = 0; c < 100; ++c) {
    const double value = generator.NextUniform() < 0.5 ? 0 : 1;
    once.push_back({std::to_string(c), value});
    for (int i = 0; i < 10; ++i) {
      tenfold.push_back({std::to_string(c), value});
      apart.push_back({std::to_string(c) + "/" + std::to_string(i), value});
    }
  }
  const Interval interval = Bootstrap(once);
  // Of a mean of 100 coin tosses: 2 * 1.96 * 0.05.
  EXPECT_NEAR(interval.width(), 0.196, 0.03);
  EXPECT_LT(interval.low, interval.mean);
  EXPECT_GT(interval.high, interval.mean);
  EXPECT_NEAR(Bootstrap(tenfold).width(), interval.width(), 1e-12);
  EXPECT_NEAR(Bootstrap(apart).width(), interval.width() / std::sqrt(10.0), 0.02);
}

TEST(Bootstrap, CoversTheTruthAsOftenAsItSays) {
  kernels::SamplingGenerator generator(9);
  int covered = 0;
  constexpr int kTrials = 300;
  for (int trial = 0; trial < kTrials; ++trial) {
    std::vector<ClusteredValue> values;
    for (int c = 0; c < 40; ++c) {
      const double rate = 0.2 + 0.2 * generator.NextUniform();  // differs by cluster; 0.3 in all
      for (int i = 0; i < 12; ++i)
        values.push_back({std::to_string(c), generator.NextUniform() < rate ? 1.0 : 0.0});
    }
    const Interval interval = Bootstrap(values, 400);
    if (interval.low <= 0.3 && 0.3 <= interval.high) ++covered;
  }
  EXPECT_GT(covered, 0.90 * kTrials);
  EXPECT_LT(covered, 0.99 * kTrials);
}

}  // namespace
}  // namespace kedge::quality
