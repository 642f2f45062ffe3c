#include "gpu/kernels/distribution.h"

#include <cmath>
#include <vector>

#include "gpu/kernels/random_floats.h"
#include "gtest/gtest.h"

namespace kedge::kernels {
namespace {

TEST(Distribution, LogProbabilities) {
  const std::vector<float> logits = {std::log(1.0f), std::log(2.0f), std::log(5.0f)};
  EXPECT_NEAR(LogSumExp(logits), std::log(8.0), 1e-6);
  EXPECT_NEAR(LogProbability(logits, 2), std::log(5.0 / 8.0), 1e-6);
  const std::vector<float> large = {1000.0f, 999.0f};  // e^1000 is no number
  EXPECT_NEAR(LogProbability(large, 1), -std::log(1 + std::exp(1.0)), 1e-9);
  EXPECT_EQ(LogSumExp({}), -INFINITY);
}

TEST(Distribution, Divergence) {
  const std::vector<float> p = {std::log(0.5f), std::log(0.25f), std::log(0.25f)};
  const std::vector<float> q = {std::log(0.25f), std::log(0.5f), std::log(0.25f)};
  EXPECT_NEAR(KullbackLeibler(p, q), 0.5 * std::log(2.0) - 0.25 * std::log(2.0), 1e-6);
  std::vector<float> shifted = p;
  for (float& logit : shifted) logit += 7.0f;
  EXPECT_NEAR(KullbackLeibler(p, shifted), 0, 1e-6);
  const std::vector<float> some = RandomFloats(300, 1);
  EXPECT_EQ(KullbackLeibler(some, some), 0.0);
  EXPECT_GT(KullbackLeibler(some, RandomFloats(300, 2)), 0.01);
}

}  // namespace
}  // namespace kedge::kernels
