#include "gpu/kernels/sampling.h"

#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

namespace kedge::kernels {
namespace {

const std::vector<float> kLogits = {std::log(0.1f), std::log(0.5f), std::log(0.25f),
                                    std::log(0.15f)};

std::vector<int> Counts(const SamplingOptions& options, int draws) {
  SamplingGenerator generator(11);
  std::vector<int> counts(kLogits.size());
  for (int i = 0; i < draws; ++i) ++counts[SampleToken(kLogits, options, generator)];
  return counts;
}

TEST(Sampling, GreedyTakesTheLargestAndTheLowestOfEquals) {
  SamplingGenerator generator(1);
  EXPECT_EQ(SampleToken(kLogits, {}, generator), 1);
  EXPECT_EQ(ArgMax(std::vector<float>{2.0f, 3.0f, 3.0f}), 1);
  // Greedy draws nothing: the generator is where it was.
  EXPECT_EQ(generator.NextBits(), SamplingGenerator(1).NextBits());
}

TEST(Sampling, FollowsTheProbabilities) {
  const std::vector<int> counts = Counts({.temperature = 1.0f}, 20000);
  EXPECT_NEAR(counts[0], 2000, 200);
  EXPECT_NEAR(counts[1], 10000, 400);
  EXPECT_NEAR(counts[2], 5000, 300);
  EXPECT_NEAR(counts[3], 3000, 250);
}

TEST(Sampling, TemperatureSharpens) {
  const std::vector<int> counts = Counts({.temperature = 0.5f}, 20000);
  // Squares of the probabilities, normalised: 0.25 / 0.345 for the largest.
  EXPECT_NEAR(counts[1], 20000 * 0.25 / 0.345, 400);
}

TEST(Sampling, TopPDropsTheTail) {
  const std::vector<int> counts = Counts({.temperature = 1.0f, .top_p = 0.7f}, 3000);
  EXPECT_EQ(counts[0], 0);
  EXPECT_EQ(counts[3], 0);
  EXPECT_GT(counts[1], counts[2]);
  const std::vector<int> one = Counts({.temperature = 1.0f, .top_p = 0.01f}, 100);
  EXPECT_EQ(one[1], 100);
}

TEST(Sampling, ASeedReplays) {
  for (uint64_t seed : {0u, 1u, 99u}) {
    SamplingGenerator a(seed);
    SamplingGenerator b(seed);
    for (int i = 0; i < 50; ++i) {
      EXPECT_EQ(SampleToken(kLogits, {.temperature = 0.9f}, a),
                SampleToken(kLogits, {.temperature = 0.9f}, b));
    }
  }
  // The first output for seed 0 in the definition of SplitMix64.
  EXPECT_EQ(SamplingGenerator(0).NextBits(), 0xe220a8397b1dcdafu);
}

TEST(Sampling, RefusesBadOptionsByName) {
  EXPECT_TRUE(ValidateSampling({.temperature = 0.7f, .top_p = 1.0f}).ok());
  EXPECT_EQ(ValidateSampling({.temperature = -1.0f}).message(),
            "temperature: -1 is not a finite number >= 0");
  EXPECT_FALSE(ValidateSampling({.temperature = std::nanf("")}).ok());
  EXPECT_EQ(ValidateSampling({.top_p = 0.0f}).message(), "top_p: 0 is not in (0, 1]");
  EXPECT_FALSE(ValidateSampling({.top_p = 1.5f}).ok());
}

}  // namespace
}  // namespace kedge::kernels
