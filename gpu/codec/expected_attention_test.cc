#include "gpu/codec/expected_attention.h"

#include <cmath>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gpu/kernels/random_floats.h"
#include "gtest/gtest.h"

namespace kedge::codec {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kSize = 4;

QueryStats Sample() {
  QueryStatsBuilder builder(1, 2, kSize);
  const std::vector<float> queries = kernels::RandomFloats(300 * 2 * kSize, 1);
  builder.Add(0, queries.data(), 100, 2 * kSize);
  builder.Add(0, queries.data() + 100 * 2 * kSize, 200, 2 * kSize);
  absl::StatusOr<QueryStats> stats = builder.Build();
  EXPECT_TRUE(stats.ok());
  return *std::move(stats);
}

TEST(QueryStats, AreMeanAndCovariance) {
  QueryStatsBuilder builder(1, 1, 2);
  const float queries[] = {1, 2, 3, 2, 5, 8};  // means 3 and 4
  builder.Add(0, queries, 3, 2);
  const absl::StatusOr<QueryStats> stats = builder.Build();
  ASSERT_TRUE(stats.ok());
  EXPECT_EQ(stats->queries, 3u);
  EXPECT_EQ(stats->mean, (std::vector<float>{3, 4}));
  // Deviations (-2, -2), (0, -2), (2, 4).
  EXPECT_NEAR(stats->covariance[0], 8.0 / 3, 1e-6);
  EXPECT_NEAR(stats->covariance[1], 12.0 / 3, 1e-6);
  EXPECT_NEAR(stats->covariance[2], 24.0 / 3, 1e-6);
  EXPECT_FALSE(QueryStatsBuilder(1, 1, 2).Build().ok());
}

// For normally distributed queries e^(q . k) has just this mean: compared with the mean over many.
TEST(ExpectedAttention, IsWhatNormalQueriesGiveOnAverage) {
  QueryStats stats{.layers = 1, .heads = 1, .head_size = 2, .queries = 1};
  stats.mean = {0.5f, -0.25f};
  stats.covariance = {0.3f, 0.1f, 0.2f};
  const kernels::RopeTable ahead{.cos = {std::cos(0.7f)}, .sin = {std::sin(0.7f)}};
  const std::vector<float> keys = {1, 0, 0, 1, -2, 1, 0.5f, 0.5f};
  const std::vector<float> values = {1, 0, 0, 2, 3, 0, 0, 1};
  const auto bytes = [](const std::vector<float>& floats) {
    return std::span(reinterpret_cast<const uint8_t*>(floats.data()), floats.size() * 4);
  };
  TokenScores scores = TokenScores::Zeros(1, 1, 4);
  ExpectedAttentionScores(stats, 0, DType::kF32, bytes(keys), bytes(values), 1, ahead, 0, scores);
  // Queries mu + L z, turned by 0.7, over a grid of z.
  const double l00 = std::sqrt(0.3), l10 = 0.1 / l00, l11 = std::sqrt(0.2 - l10 * l10);
  double mean[4] = {};
  for (double z0 = -7; z0 <= 7; z0 += 0.05) {
    for (double z1 = -7; z1 <= 7; z1 += 0.05) {
      const double density = std::exp(-(z0 * z0 + z1 * z1) / 2);
      const double a = 0.5 + l00 * z0, b = -0.25 + l10 * z0 + l11 * z1;
      const double q0 = a * std::cos(0.7) - b * std::sin(0.7);
      const double q1 = b * std::cos(0.7) + a * std::sin(0.7);
      for (int j = 0; j < 4; ++j)
        mean[j] += density * std::exp((q0 * keys[2 * j] + q1 * keys[2 * j + 1]) / std::sqrt(2.0));
    }
  }
  const double total = mean[0] + mean[1] + mean[2] + mean[3];
  const double norms[] = {1, 2, 3, 1};
  for (int j = 0; j < 4; ++j)
    EXPECT_NEAR(scores.of(0, 0)[j], mean[j] / total * norms[j], 1e-4) << "key " << j;
}

TEST(QueryStats, RoundTrip) {
  const QueryStats stats = Sample();
  const std::vector<uint8_t> bytes = EncodeQueryStats(stats);
  EXPECT_EQ(bytes.size(), 16u + 2 * (4 + 10) * 4);
  const absl::StatusOr<QueryStats> read = DecodeQueryStats(bytes);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->mean, stats.mean);
  EXPECT_EQ(read->covariance, stats.covariance);
  EXPECT_EQ(read->queries, 300u);
}

TEST(QueryStats, ErrorsNameTheField) {
  const auto message = [](size_t at, uint8_t value) {
    std::vector<uint8_t> bytes = EncodeQueryStats(Sample());
    bytes[at] = value;
    return std::string(DecodeQueryStats(bytes).status().message());
  };
  EXPECT_THAT(message(0, 2), HasSubstr("query_stats: version: 2"));
  EXPECT_THAT(message(2, 0), HasSubstr("query_stats: layers: 0"));
  EXPECT_THAT(message(4, 3), HasSubstr("query_stats: bytes: 128"));
  EXPECT_THAT(message(6, 3), HasSubstr("query_stats: head_size: 3"));
  std::vector<uint8_t> bytes = EncodeQueryStats(Sample());
  bytes[bytes.size() - 1] = 0x7f;
  bytes[bytes.size() - 2] = 0x80;
  EXPECT_THAT(std::string(DecodeQueryStats(bytes).status().message()),
              HasSubstr("covariance: 19 is not finite"));
  bytes.pop_back();
  EXPECT_FALSE(DecodeQueryStats(bytes).ok());
}

}  // namespace
}  // namespace kedge::codec
