#include "client/reuse/blend.h"

#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include <gtest/gtest.h>

#include "gpu/model/kv_span.h"
#include "gpu/model/testing_model.h"

namespace kedge {
namespace {

constexpr int64_t kTokens = 180;
constexpr int64_t kCapacity = 200;

bool SameKv(const KvCache& a, const KvCache& b, int64_t tokens) {
  for (int64_t layer = 0; layer < a.geometry().layers; ++layer) {
    for (const Component component : {Component::kK, Component::kV}) {
      const auto x = a.PartSpan(layer, component, 0, tokens);
      const auto y = b.PartSpan(layer, component, 0, tokens);
      if (std::memcmp(x.data(), y.data(), x.size()) != 0) return false;
    }
  }
  return true;
}

class BlendTest : public testing::Test {
 protected:
  void SetUp() override {
    model_ = MakeTestingModel(Architecture::kLlama, device_,
                              {.block_tokens = 64, .kv_dtype = DType::kBf16});
    prompt_ = TestingPrompt(kTokens);
    absl::StatusOr<KvCache> dense = model_->NewCache(kCapacity);
    ASSERT_TRUE(dense.ok());
    dense_ = std::make_unique<KvCache>(*std::move(dense));
    absl::StatusOr<Logits> logits = model_->Prefill(prompt_, *dense_);
    ASSERT_TRUE(logits.ok());
    logits_ = *std::move(logits);
  }

  // Two segments computed alone and moved; nothing else is there.
  KvCache PutTogether() {
    absl::StatusOr<KvCache> cache = model_->NewCache(kCapacity);
    EXPECT_TRUE(cache.ok());
    for (const ReusedSegment& segment : segments_) {
      absl::StatusOr<KvSpan> span =
          ComputeAlone(*model_, std::span(prompt_).first(1),
                       std::span(prompt_).subspan(segment.first, segment.count));
      EXPECT_TRUE(span.ok());
      EXPECT_TRUE(PlaceSpan(*model_, *span, segment.first, *cache).ok());
    }
    cache->set_length(kTokens);
    return *std::move(cache);
  }

  BlendRequest Request(RecomputePolicy policy, double ratio) {
    return {.tokens = prompt_,
            .segments = segments_,
            .config = {.policy = policy, .check_layer = 1, .ratio = ratio},
            .queries = 4};
  }

  CpuDevice device_{2};
  std::unique_ptr<Model> model_;
  std::vector<int32_t> prompt_;
  std::vector<ReusedSegment> segments_{{20, 70}, {100, 70}};
  std::unique_ptr<KvCache> dense_;
  Logits logits_;
};

TEST_F(BlendTest, RatioOneIsDenseToTheBit) {
  for (const RecomputePolicy policy : {RecomputePolicy::kDeviation, RecomputePolicy::kDhd,
                                       RecomputePolicy::kCacheBlend, RecomputePolicy::kRandom}) {
    KvCache cache = PutTogether();
    absl::StatusOr<BlendResult> result = Blend(*model_, Request(policy, 1.0), cache);
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_TRUE(SameKv(cache, *dense_, kTokens)) << RecomputePolicyName(policy);
    EXPECT_EQ(result->logits.values, logits_.values);
    EXPECT_TRUE(result->left.empty());
    EXPECT_GE(result->operations, DenseOperations(model_->config(), kTokens));
  }
}

TEST_F(BlendTest, RatioZeroIsNone) {
  KvCache none = PutTogether();
  const BlendRequest request = Request(RecomputePolicy::kNone, 0.5);
  ASSERT_TRUE(Blend(*model_, request, none).ok());
  KvCache plain = PutTogether();  // as a prefill computes it: a template at a time
  for (const auto& [first, end] : {std::pair{0, 20}, {90, 100}, {170, 180}}) {
    plain.set_length(first);
    ASSERT_TRUE(model_->Prefill(std::span(prompt_).first(end), plain).ok());
  }
  EXPECT_TRUE(SameKv(none, plain, kTokens));
  for (const RecomputePolicy policy : {RecomputePolicy::kDeviation, RecomputePolicy::kDhd,
                                       RecomputePolicy::kCacheBlend, RecomputePolicy::kRandom}) {
    KvCache cache = PutTogether();
    absl::StatusOr<BlendResult> result = Blend(*model_, Request(policy, 0.0), cache);
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_TRUE(SameKv(cache, none, kTokens)) << RecomputePolicyName(policy);
  }
}

TEST_F(BlendTest, CostsLessThanDenseAndComputesWhatItSays) {
  KvCache cache = PutTogether();
  absl::StatusOr<BlendResult> result =
      Blend(*model_, Request(RecomputePolicy::kDeviation, 0.1), cache);
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->computed.size(), 40u + 14u);
  EXPECT_EQ(result->left.size(), 140u - 14u) << "random weights: every value deviates";
  EXPECT_LT(result->operations, 0.75 * DenseOperations(model_->config(), kTokens));
  EXPECT_FALSE(SameKv(cache, *dense_, kTokens));
}

TEST_F(BlendTest, DonorsThatAreDenseAlreadyGiveDense) {
  for (const double ratio : {0.0, 0.2}) {
    absl::StatusOr<KvCache> cache = model_->Fork(*dense_, kTokens, kCapacity);
    ASSERT_TRUE(cache.ok());
    absl::StatusOr<BlendResult> result =
        Blend(*model_, Request(RecomputePolicy::kDeviation, ratio), *cache);
    ASSERT_TRUE(result.ok());
    EXPECT_TRUE(SameKv(*cache, *dense_, kTokens));
    EXPECT_EQ(result->logits.values, logits_.values);
    EXPECT_TRUE(result->left.empty());
  }
}

TEST_F(BlendTest, LayersBeforeTheCheckLayerAreNotRead) {
  KvCache cache = PutTogether();
  for (const Component component : {Component::kK, Component::kV}) {
    const auto bytes = cache.PartSpan(0, component, 0, kTokens);
    std::memset(bytes.data(), 0x7f, bytes.size());
  }
  ASSERT_TRUE(Blend(*model_, Request(RecomputePolicy::kDeviation, 0.1), cache).ok());
  KvCache whole = PutTogether();
  ASSERT_TRUE(Blend(*model_, Request(RecomputePolicy::kDeviation, 0.1), whole).ok());
  EXPECT_TRUE(SameKv(cache, whole, kTokens));
}

TEST_F(BlendTest, RepairsACopyWhileItDecodes) {
  KvCache cache = PutTogether();
  absl::StatusOr<BlendResult> result =
      Blend(*model_, Request(RecomputePolicy::kDeviation, 0.1), cache);
  ASSERT_TRUE(result.ok());
  absl::StatusOr<KvCache> before = model_->Fork(cache, kTokens, kCapacity);
  ASSERT_TRUE(before.ok());
  const DecodeRepair repair(result->left, {.tokens_per_step = 3, .coverage = 1.0, .max_tokens = 7});
  DecodeRepair expected = repair;
  absl::StatusOr<RepairedSequence> sequence =
      RepairedSequence::Make(*model_, prompt_, cache, repair, kCapacity);
  ASSERT_TRUE(sequence.ok()) << sequence.status();
  absl::StatusOr<KvCache> by_hand = model_->Fork(cache, kTokens, kCapacity);
  ASSERT_TRUE(by_hand.ok());
  std::vector<int32_t> tokens = prompt_;
  for (int32_t token = 0; token < 5; ++token) {
    const std::vector<int32_t> rows = expected.Next();
    EXPECT_EQ(rows.size(), token < 2 ? 3u : token == 2 ? 1u : 0u);
    absl::StatusOr<Recomputation> run = Recomputation::Start(*model_, tokens, rows, *by_hand);
    ASSERT_TRUE(run.ok());
    ASSERT_TRUE(run->RunToEnd().ok());
    const absl::StatusOr<Logits> wanted = model_->Decode(token, *by_hand);
    const absl::StatusOr<Logits> logits = sequence->Decode(token);
    ASSERT_TRUE(logits.ok()) << logits.status();
    EXPECT_EQ(logits->values, wanted->values);
    tokens.push_back(token);
  }
  EXPECT_EQ(sequence->pending(), 0);
  EXPECT_TRUE(SameKv(sequence->cache(), *by_hand, kTokens + 5));
  EXPECT_FALSE(SameKv(sequence->cache(), cache, kTokens)) << "something was repaired";
  EXPECT_TRUE(SameKv(cache, *before, kTokens)) << "in the copy alone";
}

TEST_F(BlendTest, RepairingEverythingInOneStepIsDense) {
  KvCache cache = PutTogether();
  // Everything that no donor has is computed again too: it has seen what was not yet repaired.
  ASSERT_TRUE(Blend(*model_, Request(RecomputePolicy::kNone, 0), cache).ok());
  std::vector<ScoredToken> left;
  for (int32_t token = 0; token < kTokens; ++token) left.push_back({token, 1.0f});
  absl::StatusOr<RepairedSequence> sequence = RepairedSequence::Make(
      *model_, prompt_, cache, DecodeRepair(left, {.tokens_per_step = kTokens, .coverage = 1.0}),
      kCapacity);
  ASSERT_TRUE(sequence.ok());
  absl::StatusOr<Logits> repaired = sequence->Decode(5);
  absl::StatusOr<Logits> dense = model_->Decode(5, *dense_);
  ASSERT_TRUE(repaired.ok() && dense.ok());
  EXPECT_EQ(repaired->values, dense->values);
}

TEST_F(BlendTest, RefusesWhatDoesNotFit) {
  KvCache cache = PutTogether();
  BlendRequest request = Request(RecomputePolicy::kDhd, 0.1);
  request.queries = kTokens + 1;
  EXPECT_EQ(Blend(*model_, request, cache).status().message(), "queries: 181 of 180 tokens");
  request = Request(RecomputePolicy::kDeviation, 0.1);
  const std::vector<float> noise(3);
  request.noise = noise;
  EXPECT_EQ(Blend(*model_, request, cache).status().message(), "noise: 3 values for 180 tokens");
  request = Request(RecomputePolicy::kDeviation, 0.1);
  request.config.check_layer = 3;
  EXPECT_EQ(Blend(*model_, request, cache).status().message(), "check_layer: 3 is not in [0, 3)");
  request = Request(RecomputePolicy::kDeviation, 0.1);
  request.tokens = request.tokens.first(9);
  EXPECT_FALSE(Blend(*model_, request, cache).ok());
}

}  // namespace
}  // namespace kedge
