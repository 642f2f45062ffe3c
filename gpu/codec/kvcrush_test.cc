#include "gpu/codec/kvcrush.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gpu/kernels/random_floats.h"
#include "gtest/gtest.h"

namespace kedge::codec {
namespace {

using ::testing::HasSubstr;

// Pages of 2 tokens. Which of the middle pages 1 to 4 are in the upper half of a head's scores:
// page 1 and 2 for heads 0 to 5, page 3 and 4 for heads 6 and 7.
TokenScores SmallCase() {
  TokenScores scores = TokenScores::Zeros(1, 8, 12);
  for (int64_t head = 0; head < 8; ++head) {
    for (int64_t t = 0; t < 12; ++t) {
      const int64_t page = t / 2;
      const bool upper = head < 6 ? page == 1 || page == 2 : page == 3 || page == 4;
      scores.of(0, head)[t] = page == 0 || page == 5 ? 9.0f : upper ? 2.0f : 1.0f;
    }
  }
  return scores;
}

TEST(KvCrush, SmallCaseByHand) {
  const TokenScores scores = SmallCase();
  const std::vector<PageBits> bits = BehaviourBits(scores, 0, 2, 1, 4);
  // Token 0 in bits 0 to 7, token 1 in bits 8 to 15.
  EXPECT_EQ(bits[0], PageBits{0x3f3f});
  EXPECT_EQ(bits[1], PageBits{0x3f3f});
  EXPECT_EQ(bits[2], PageBits{0xc0c0});
  EXPECT_EQ(bits[3], PageBits{0xc0c0});
  EXPECT_EQ(AnchorBits(bits, 16, CrushAnchor::kMean), PageBits{0}) << "even: two pages of four";
  EXPECT_EQ(AnchorBits(bits, 16, CrushAnchor::kAlternating), PageBits{0xaaaa});
  const std::vector<PageBits> three(bits.begin(), bits.begin() + 3);
  EXPECT_EQ(AnchorBits(three, 16, CrushAnchor::kMean), PageBits{0x3f3f});
  EXPECT_EQ(HammingDistance(bits[0], bits[2]), 16);
  EXPECT_EQ(HammingDistance(bits[0], PageBits{0}), 12);

  // 4 of 6 pages. Without representatives: the first, the last, and the two most important.
  CrushOptions options{.page_tokens = 2};
  EXPECT_EQ(*CrushedPositions(scores, 0, 8, options),
            (std::vector<int32_t>{0, 1, 2, 3, 4, 5, 10, 11}));
  // One of four: page 1 is important; of pages 2 (distance 12), 3 and 4 (4 each) the order is
  // 3, 4, 2, and its middle is 4.
  options.share = 0.25;
  EXPECT_EQ(*CrushedPositions(scores, 0, 8, options),
            (std::vector<int32_t>{0, 1, 2, 3, 8, 9, 10, 11}));
  // Two of four: of 3, 4, 1, 2 the first and the last.
  options.share = 0.5;
  EXPECT_EQ(*CrushedPositions(scores, 0, 8, options),
            (std::vector<int32_t>{0, 1, 4, 5, 6, 7, 10, 11}));
}

TEST(KvCrush, EvenlySpacedReachesBothEnds) {
  EXPECT_EQ(EvenlySpaced(7, 1), (std::vector<int64_t>{3}));
  EXPECT_EQ(EvenlySpaced(7, 2), (std::vector<int64_t>{0, 6}));
  EXPECT_EQ(EvenlySpaced(7, 3), (std::vector<int64_t>{0, 3, 6}));
  EXPECT_EQ(EvenlySpaced(8, 4), (std::vector<int64_t>{0, 2, 5, 7}));
  EXPECT_EQ(EvenlySpaced(4, 4), (std::vector<int64_t>{0, 1, 2, 3}));
  EXPECT_TRUE(EvenlySpaced(4, 0).empty());
}

TEST(KvCrush, KeepsExactlyTheRowsInWholePages) {
  TokenScores scores = TokenScores::Zeros(2, 8, 320);
  const std::vector<float> floats = kernels::RandomFloats(2 * 8 * 320, 5);
  for (size_t i = 0; i < floats.size(); ++i) scores.values[i] = floats[i] + 1.0f;
  for (const CrushAnchor anchor :
       {CrushAnchor::kMean, CrushAnchor::kAlternating, CrushAnchor::kRandom}) {
    for (const double share : {0.0, 0.1, 0.5, 0.9}) {
      for (int64_t rows = 32; rows <= 320; rows += 32) {
        const auto kept = CrushedPositions(scores, 1, rows, {.share = share, .anchor = anchor});
        ASSERT_TRUE(kept.ok()) << kept.status();
        ASSERT_EQ(static_cast<int64_t>(kept->size()), rows);
        EXPECT_EQ(kept->front(), 0);
        EXPECT_EQ(kept->back(), 319);
        for (size_t i = 0; i < kept->size(); ++i) {
          ASSERT_TRUE(i == 0 || (*kept)[i] > (*kept)[i - 1]);
          ASSERT_EQ((*kept)[i] % 16, static_cast<int32_t>(i) % 16) << "whole pages";
        }
      }
    }
  }
}

TEST(KvCrush, ErrorsNameTheValue) {
  const TokenScores few = TokenScores::Zeros(1, 4, 64);
  EXPECT_THAT(std::string(CrushedPositions(few, 0, 32, {}).status().message()),
              HasSubstr("kvcrush: heads: 4"));
  const TokenScores scores = TokenScores::Zeros(1, 8, 64);
  EXPECT_THAT(std::string(CrushedPositions(scores, 0, 40, {}).status().message()),
              HasSubstr("kvcrush: rows: 40 is no whole number of pages of 16"));
  EXPECT_THAT(std::string(CrushedPositions(scores, 0, 16, {}).status().message()),
              HasSubstr("kvcrush: rows: 16 has no room"));
  EXPECT_FALSE(CrushedPositions(TokenScores::Zeros(1, 8, 40), 0, 32, {}).ok());
}

}  // namespace
}  // namespace kedge::codec
