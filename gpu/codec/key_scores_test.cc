#include "gpu/codec/key_scores.h"

#include <cmath>
#include <vector>

#include "gpu/kernels/cast.h"
#include "gtest/gtest.h"

namespace kedge::codec {
namespace {

// Two heads of two: keys of head 0 are (3, 4), (0, 2), (0, 0); of head 1 (1, 0), (1, 0), (-1, 0).
std::vector<uint8_t> Keys(DType dtype) {
  const std::vector<float> values = {3, 4, 1, 0, 0, 2, 1, 0, 0, 0, -1, 0};
  std::vector<uint8_t> bytes(values.size() * kernels::FloatBytes(dtype));
  kernels::CastFromFloat(dtype, values.data(), 12, bytes.data());
  return bytes;
}

TEST(KeyScores, KeyNormPrefersSmallKeys) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBf16}) {
    TokenScores scores = TokenScores::Zeros(2, 2, 3);
    KeyNormScores(dtype, Keys(dtype), 2, 1, scores);
    EXPECT_EQ(std::vector<float>(scores.values.begin(), scores.values.begin() + 6),
              std::vector<float>(6));
    EXPECT_EQ(std::vector<float>(scores.values.begin() + 6, scores.values.end()),
              (std::vector<float>{0, 3, 5, 0, 0, 0}));
  }
}

TEST(KeyScores, KeyDiffPrefersKeysUnlikeTheOthers) {
  TokenScores scores = TokenScores::Zeros(1, 2, 3);
  KeyDiffScores(DType::kF32, Keys(DType::kF32), 2, 0, scores);
  // Head 0: the mean direction is (0.6, 0.8) + (0, 1) = (0.6, 1.8), of length sqrt(3.6).
  const double length = std::sqrt(3.6);
  EXPECT_NEAR(scores.of(0, 0)[0], 1 - (0.36 + 1.44) / length, 1e-6);
  EXPECT_NEAR(scores.of(0, 0)[1], 1 - 1.8 / length, 1e-6);
  EXPECT_EQ(scores.of(0, 0)[2], 1.0f) << "a key of zeros has no direction";
  // Head 1: two against one.
  EXPECT_NEAR(scores.of(0, 1)[0], 0.0, 1e-6);
  EXPECT_NEAR(scores.of(0, 1)[2], 2.0, 1e-6);
}

TEST(KeyScores, WhatIsNotFiniteIsAlone) {
  for (const float bad : {NAN, INFINITY}) {
    const float keys[] = {3, 4, bad, 1, 0, 2};  // one head, three tokens
    const float others[] = {3, 4, 0, 2};
    for (const auto score : {KeyDiffScores, KeyNormScores}) {
      TokenScores scores = TokenScores::Zeros(1, 1, 3);
      score(DType::kF32, {reinterpret_cast<const uint8_t*>(keys), sizeof keys}, 2, 0, scores);
      EXPECT_TRUE(std::isnan(scores.of(0, 0)[1]));
      TokenScores without = TokenScores::Zeros(1, 1, 2);
      score(DType::kF32, {reinterpret_cast<const uint8_t*>(others), sizeof others}, 2, 0, without);
      EXPECT_EQ(scores.of(0, 0)[0], without.of(0, 0)[0]);
      EXPECT_EQ(scores.of(0, 0)[2], without.of(0, 0)[1]);
    }
  }
}

TEST(TokenScores, EachHeadCountsAsMuch) {
  TokenScores scores = TokenScores::Zeros(1, 3, 4);
  const float values[] = {100, 300, 0, 0, 1, 1, 0, 2, 0, 0, 0, 0};
  scores.values.assign(values, values + 12);
  const std::vector<double> importance = LayerImportance(scores, 0);
  // (1/4, 3/4, 0, 0), (1/4, 1/4, 0, 1/2), and a head that says nothing: 1/4 each.
  EXPECT_NEAR(importance[0], 0.75 / 3, 1e-12);
  EXPECT_NEAR(importance[1], 1.25 / 3, 1e-12);
  EXPECT_NEAR(importance[2], 0.25 / 3, 1e-12);
  EXPECT_NEAR(importance[3], 0.75 / 3, 1e-12);
  const std::vector<double> ties = {2, 5, 2, 5};
  EXPECT_EQ(Ranked(ties), (std::vector<int32_t>{1, 3, 0, 2}));
}

}  // namespace
}  // namespace kedge::codec
