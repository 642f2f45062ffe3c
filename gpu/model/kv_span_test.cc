#include "gpu/model/kv_span.h"

#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gpu/kernels/cast.h"
#include "gpu/model/testing_model.h"
#include "gtest/gtest.h"

namespace kedge {
namespace {

using ::testing::HasSubstr;

class KvSpanTest : public ::testing::TestWithParam<DType> {
 protected:
  KvSpanTest()
      : model_(MakeTestingModel(Architecture::kLlama, device_, {.kv_dtype = GetParam()})) {}

  KvCache Dense(std::span<const int32_t> tokens, const PrefillOptions& options = {}) {
    absl::StatusOr<KvCache> cache = model_->NewCache(static_cast<int64_t>(tokens.size()));
    EXPECT_TRUE(cache.ok());
    EXPECT_TRUE(model_->Prefill(tokens, *cache, options).ok());
    return *std::move(cache);
  }
  // The largest difference of keys or values at the given tokens, against the size of a value.
  double Difference(const KvCache& a, int64_t a_first, const KvCache& b, int64_t b_first,
                    int64_t tokens, Component component) {
    double largest = 0;
    const int64_t values = tokens * 2 * 16;
    std::vector<float> left(values), right(values);
    for (int64_t layer = 0; layer < 3; ++layer) {
      kernels::CastToFloat(GetParam(), a.PartSpan(layer, component, a_first, tokens).data(), values,
                           left.data());
      kernels::CastToFloat(GetParam(), b.PartSpan(layer, component, b_first, tokens).data(), values,
                           right.data());
      for (int64_t i = 0; i < values; ++i) {
        largest = std::max(
            largest, double{std::fabs(left[i] - right[i])} / std::max(1.0f, std::fabs(left[i])));
      }
    }
    return largest;
  }
  double Tolerance() const {
    return GetParam() == DType::kF32 ? 2e-5 : GetParam() == DType::kBf16 ? 0.04 : 0.004;
  }

  CpuDevice device_{1};
  std::unique_ptr<Model> model_;
};

TEST_P(KvSpanTest, PlacedWhereItWasComputedItIsTheDenseOne) {
  const std::vector<int32_t> tokens = TestingPrompt(90);
  const std::span<const int32_t> all(tokens);
  absl::StatusOr<KvSpan> span = ComputeAlone(*model_, all.first(10), all.subspan(10));
  ASSERT_TRUE(span.ok()) << span.status();
  EXPECT_EQ(span->tokens, 80);
  const KvCache dense = Dense(tokens);
  KvCache placed = Dense(all.first(10));
  absl::StatusOr<KvCache> cache = model_->Fork(placed, 10, 90);
  ASSERT_TRUE(cache.ok()) << cache.status();
  ASSERT_TRUE(PlaceSpan(*model_, *span, 10, *cache).ok());
  cache->set_length(90);
  EXPECT_EQ(Difference(dense, 0, *cache, 0, 90, Component::kV), 0);
  EXPECT_LE(Difference(dense, 0, *cache, 0, 90, Component::kK), Tolerance());
  if (GetParam() == DType::kF32) {
    EXPECT_EQ(Difference(dense, 0, *cache, 0, 90, Component::kK), 0);
  }
}

TEST_P(KvSpanTest, MovedKeysScoreByDistanceOnly) {
  const std::vector<int32_t> tokens = TestingPrompt(40);
  absl::StatusOr<KvSpan> span = ComputeAlone(*model_, {}, tokens);
  ASSERT_TRUE(span.ok());
  absl::StatusOr<KvCache> near = model_->NewCache(600);
  absl::StatusOr<KvCache> far = model_->NewCache(600);
  ASSERT_TRUE(PlaceSpan(*model_, *span, 3, *near).ok());
  ASSERT_TRUE(PlaceSpan(*model_, *span, 503, *far).ok());
  EXPECT_EQ(Difference(*near, 3, *far, 503, 40, Component::kV), 0);
  EXPECT_GT(Difference(*near, 3, *far, 503, 40, Component::kK), 0.1);
  const auto score = [&](const KvCache& cache, int64_t first) {
    std::vector<float> keys(40 * 32);
    kernels::CastToFloat(GetParam(), cache.PartSpan(2, Component::kK, first, 40).data(), 40 * 32,
                         keys.data());
    double dot = 0;  // of tokens 7 and 30 in head 1
    for (int64_t i = 16; i < 32; ++i) dot += double{keys[7 * 32 + i]} * keys[30 * 32 + i];
    return dot;
  };
  EXPECT_NEAR(score(*near, 3), score(*far, 503), 16 * Tolerance());
}

TEST_P(KvSpanTest, LiftedAndPlacedAgainItIsNearlyTheSame) {
  const std::vector<int32_t> tokens = TestingPrompt(100);
  const KvCache dense = Dense(tokens);
  absl::StatusOr<KvSpan> span = LiftSpan(*model_, dense, 30, 50);
  ASSERT_TRUE(span.ok()) << span.status();
  absl::StatusOr<KvCache> again = model_->Fork(dense, 100, 100);
  ASSERT_TRUE(PlaceSpan(*model_, *span, 30, *again).ok());
  EXPECT_LE(Difference(dense, 0, *again, 0, 100, Component::kK), Tolerance());
  absl::StatusOr<KvSpan> alone =
      ComputeAlone(*model_, std::span(tokens).first(30), std::span(tokens).subspan(30, 50));
  std::vector<float> lifted(50 * 32), computed(50 * 32);
  kernels::CastToFloat(GetParam(), span->Layer(span->keys, 2).data(), 50 * 32, lifted.data());
  kernels::CastToFloat(GetParam(), alone->Layer(alone->keys, 2).data(), 50 * 32, computed.data());
  for (size_t i = 0; i < lifted.size(); ++i) ASSERT_NEAR(lifted[i], computed[i], 2 * Tolerance());
}

// What the mask is for: a span that sees only itself has the KV of a span computed alone, moved.
TEST_P(KvSpanTest, AMaskedPrefillIsASpanComputedAlone) {
  const std::vector<int32_t> tokens = TestingPrompt(120);
  constexpr int64_t kFirst = 40;
  PrefillOptions options;
  options.visible = [&](int64_t token, int64_t key) { return token < kFirst || key >= kFirst; };
  const KvCache masked = Dense(tokens, options);
  absl::StatusOr<KvSpan> span = ComputeAlone(*model_, {}, std::span(tokens).subspan(kFirst));
  absl::StatusOr<KvCache> placed = model_->Fork(masked, kFirst, 120);
  ASSERT_TRUE(PlaceSpan(*model_, *span, kFirst, *placed).ok());
  for (Component component : {Component::kK, Component::kV})
    EXPECT_LE(Difference(masked, 0, *placed, 0, 120, component), 2 * Tolerance());
  EXPECT_GT(Difference(masked, kFirst, Dense(tokens), kFirst, 80, Component::kV), 0.1);
}

TEST_P(KvSpanTest, ForksGoOnAlone) {
  const std::vector<int32_t> tokens = TestingPrompt(70);
  KvCache cache = Dense(std::span(tokens).first(60));
  absl::StatusOr<KvCache> fork = model_->Fork(cache, 60, 70);
  ASSERT_TRUE(fork.ok());
  const absl::StatusOr<Logits> logits = model_->Prefill(tokens, *fork);
  EXPECT_EQ(cache.length(), 60);
  EXPECT_EQ(fork->length(), 70);
  KvCache dense = Dense(std::span(tokens).first(69));
  absl::StatusOr<KvCache> whole = model_->Fork(dense, 69, 70);
  const absl::StatusOr<Logits> expected = model_->Decode(tokens[69], *whole);
  EXPECT_EQ(logits->values, expected->values);
}

TEST_P(KvSpanTest, BadRangesAreNamed) {
  KvCache cache = Dense(TestingPrompt(20));
  EXPECT_THAT(std::string(LiftSpan(*model_, cache, 15, 6).status().message()), HasSubstr("21"));
  EXPECT_FALSE(LiftSpan(*model_, cache, -1, 2).ok());
  EXPECT_FALSE(model_->Fork(cache, 21, 40).ok());
  EXPECT_FALSE(model_->Fork(cache, 20, 19).ok());
  const KvSpan span = MakeSpan(*model_, 5);
  EXPECT_THAT(std::string(PlaceSpan(*model_, span, 16, cache).message()), HasSubstr("16"));
  KvSpan other = span;
  other.geometry.kv_heads = 1;
  EXPECT_THAT(std::string(PlaceSpan(*model_, other, 0, cache).message()), HasSubstr("geometry"));
}

INSTANTIATE_TEST_SUITE_P(Types, KvSpanTest,
                         ::testing::Values(DType::kF32, DType::kBf16, DType::kF16),
                         [](const ::testing::TestParamInfo<DType>& info) {
                           return std::string(info.param == DType::kF32    ? "f32"
                                              : info.param == DType::kBf16 ? "bf16"
                                                                           : "f16");
                         });

}  // namespace
}  // namespace kedge
