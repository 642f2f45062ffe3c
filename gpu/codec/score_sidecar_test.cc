#include "gpu/codec/score_sidecar.h"

#include <cmath>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gpu/kernels/random_floats.h"
#include "gtest/gtest.h"

namespace kedge::codec {
namespace {

using ::testing::HasSubstr;

TEST(ScoreCode, IsALogarithmInEighthsOfAnOctave) {
  EXPECT_EQ(ScoreCode(1.0f), 255);
  EXPECT_EQ(ScoreCode(2.0f), 255);
  EXPECT_EQ(ScoreCode(0.5f), 247);
  EXPECT_EQ(ScoreCode(0.25f), 239);
  EXPECT_EQ(ScoreCode(0.0f), 0);
  EXPECT_EQ(ScoreCode(-1.0f), 0);
  EXPECT_EQ(ScoreCode(NAN), 0);
  EXPECT_EQ(ScoreCode(0.917f), 254) << "2^(-1/8)";
  EXPECT_EQ(ScoreCode(0x1p-31f), 7);
  EXPECT_EQ(ScoreCode(0x1p-32f), 0);
  EXPECT_EQ(ScoreOfCode(255), 1.0f);
  EXPECT_EQ(ScoreOfCode(247), 0.5f);
  EXPECT_EQ(ScoreOfCode(0), 0.0f);
  EXPECT_NEAR(ScoreOfCode(254), 0.91700404f, 1e-7);
}

TEST(ScoreCode, ComesBackWithinHalfAStepAndNeverFalls) {
  int last = 0;
  for (double score = 3e-10; score < 1.0; score *= 1.001) {
    const int code = ScoreCode(static_cast<float>(score));
    ASSERT_GE(code, last);
    last = code;
    if (code == 0) continue;
    ASSERT_NEAR(std::log2(ScoreOfCode(static_cast<uint8_t>(code)) / score), 0.0, 0.0626);
  }
  for (int code = 1; code < 256; ++code)
    EXPECT_EQ(ScoreCode(ScoreOfCode(static_cast<uint8_t>(code))), code);
}

ScoreSidecar Sample() {
  ScoreSidecar sidecar{.tokens = 64, .layers = 3, .heads = 8, .window = 32};
  const std::vector<float> floats = kernels::RandomFloats(3 * 8 * 64, 1);
  for (const float value : floats) sidecar.codes.push_back(ScoreCode(std::abs(value)));
  return sidecar;
}

TEST(ScoreSidecar, RoundTrips) {
  const ScoreSidecar sidecar = Sample();
  const std::vector<uint8_t> bytes = EncodeSidecar(sidecar);
  EXPECT_EQ(bytes.size(), 20u + 3 * 8 * 64 + 4);
  EXPECT_EQ(bytes.size(), sidecar.encoded_bytes());
  const absl::StatusOr<ScoreSidecar> read = DecodeSidecar(bytes);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->codes, sidecar.codes);
  EXPECT_EQ(EncodeSidecar(*read), bytes);
  const TokenScores scores = ScoresOf(*read);
  EXPECT_EQ(scores.of(2, 7)[63], ScoreOfCode(sidecar.codes.back()));
}

TEST(ScoreSidecar, EveryFlippedBitIsNoticed) {
  const std::vector<uint8_t> bytes = EncodeSidecar(Sample());
  for (size_t at = 0; at < bytes.size(); at += at < 24 ? 1 : 37) {
    for (int bit = 0; bit < 8; ++bit) {
      std::vector<uint8_t> hurt = bytes;
      hurt[at] ^= static_cast<uint8_t>(1 << bit);
      EXPECT_FALSE(DecodeSidecar(hurt).ok()) << "byte " << at << " bit " << bit;
    }
  }
  for (const size_t size : {0, 3, 20, 23, 100})
    EXPECT_FALSE(DecodeSidecar(std::span(bytes).first(size)).ok());
}

TEST(ScoreSidecar, ErrorsNameTheField) {
  const auto message = [](size_t at, uint8_t value) {
    std::vector<uint8_t> bytes = EncodeSidecar(Sample());
    bytes[at] = value;
    return std::string(DecodeSidecar(bytes).status().message());
  };
  EXPECT_THAT(message(0, 9), HasSubstr("sidecar: magic"));
  EXPECT_THAT(message(4, 9), HasSubstr("sidecar: version: 9, this program reads 1"));
  EXPECT_THAT(message(6, 3), HasSubstr("sidecar: kind: 3"));
  EXPECT_THAT(message(11, 255), HasSubstr("sidecar: tokens: 4278190144"));
  EXPECT_THAT(message(12, 0), HasSubstr("sidecar: layers: 0"));
  EXPECT_THAT(message(14, 9), HasSubstr("sidecar: bytes"));
  EXPECT_THAT(message(16, 65), HasSubstr("sidecar: window: 65"));
  EXPECT_THAT(message(40, 1), HasSubstr("sidecar: crc"));
}

}  // namespace
}  // namespace kedge::codec
