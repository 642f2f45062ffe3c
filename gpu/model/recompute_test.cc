#include "gpu/model/recompute.h"

#include <cstring>
#include <numeric>
#include <vector>

#include <gtest/gtest.h>

#include "gpu/kernels/cast.h"
#include "gpu/kernels/column_mass.h"
#include "gpu/model/kv_span.h"
#include "gpu/model/testing_model.h"

namespace kedge {
namespace {

constexpr int64_t kTokens = 200;

std::vector<int32_t> AllPositions(int64_t tokens) {
  std::vector<int32_t> positions(tokens);
  std::iota(positions.begin(), positions.end(), 0);
  return positions;
}

bool SameRow(const KvCache& a, const KvCache& b, int64_t layer, int64_t token) {
  for (const Component component : {Component::kK, Component::kV}) {
    const auto x = a.PartSpan(layer, component, token, 1);
    const auto y = b.PartSpan(layer, component, token, 1);
    if (std::memcmp(x.data(), y.data(), x.size()) != 0) return false;
  }
  return true;
}

int64_t RowsThatDiffer(const KvCache& a, const KvCache& b) {
  int64_t count = 0;
  for (int64_t layer = 0; layer < a.geometry().layers; ++layer) {
    for (int64_t token = 0; token < a.length(); ++token) count += !SameRow(a, b, layer, token);
  }
  return count;
}

class RecomputationTest : public testing::TestWithParam<DType> {
 protected:
  void SetUp() override {
    model_ = MakeTestingModel(Architecture::kLlama, device_,
                              {.block_tokens = 64, .kv_dtype = GetParam()});
    prompt_ = TestingPrompt(kTokens);
    absl::StatusOr<KvCache> cache = model_->NewCache(kTokens + 8);
    ASSERT_TRUE(cache.ok());
    dense_.emplace_back(*std::move(cache));
    absl::StatusOr<Logits> logits = model_->Prefill(prompt_, dense());
    ASSERT_TRUE(logits.ok());
    logits_ = *std::move(logits);
  }

  KvCache& dense() { return dense_.front(); }

  // The first 80 tokens computed in place, two texts of 60 computed alone and moved.
  KvCache PutTogether() {
    absl::StatusOr<KvCache> cache = model_->Fork(dense(), 80, kTokens + 8);
    EXPECT_TRUE(cache.ok());
    for (const int64_t first : {80, 140}) {
      absl::StatusOr<KvSpan> span =
          ComputeAlone(*model_, std::span(prompt_).first(1), std::span(prompt_).subspan(first, 60));
      EXPECT_TRUE(span.ok());
      EXPECT_TRUE(PlaceSpan(*model_, *span, first, *cache).ok());
    }
    cache->set_length(kTokens);
    return *std::move(cache);
  }

  Recomputation Started(std::span<const int32_t> positions, KvCache& cache) {
    absl::StatusOr<Recomputation> run = Recomputation::Start(*model_, prompt_, positions, cache);
    EXPECT_TRUE(run.ok()) << run.status();
    return *std::move(run);
  }

  CpuDevice device_{2};
  std::unique_ptr<Model> model_;
  std::vector<int32_t> prompt_;
  std::vector<KvCache> dense_;
  Logits logits_;
};

TEST_P(RecomputationTest, AllTokensFromLayerZeroAreDenseToTheBit) {
  KvCache cache = PutTogether();
  ASSERT_GT(RowsThatDiffer(cache, dense()), 0);
  Recomputation run = Started(AllPositions(kTokens), cache);
  ASSERT_TRUE(run.RunToEnd().ok());
  EXPECT_EQ(RowsThatDiffer(cache, dense()), 0);
  const absl::StatusOr<Logits> logits = run.LastLogits();
  ASSERT_TRUE(logits.ok());
  EXPECT_EQ(logits->values, logits_.values);
  EXPECT_EQ(run.operations(), DenseOperations(model_->config(), kTokens));
}

TEST_P(RecomputationTest, NoTokenChangesNothing) {
  KvCache cache = PutTogether();
  const KvCache before = PutTogether();
  Recomputation run = Started({}, cache);
  ASSERT_TRUE(run.RunToEnd().ok());
  EXPECT_EQ(RowsThatDiffer(cache, before), 0);
  EXPECT_EQ(run.operations(), 0);
  EXPECT_EQ(run.LastLogits().status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_P(RecomputationTest, ChosenTokensOfADenseCacheGetTheBitsTheyHad) {
  absl::StatusOr<KvCache> cache = model_->Fork(dense(), kTokens, kTokens);
  ASSERT_TRUE(cache.ok());
  const std::vector<int32_t> chosen{0, 1, 5, 63, 64, 100, 130, 131, 199};
  for (int64_t layer = 0; layer < 3; ++layer) {  // so that something has to be written
    for (const int32_t token : chosen) {
      const auto row = cache->PartSpan(layer, Component::kK, token, 1);
      std::memset(row.data(), 0x11, row.size());
    }
  }
  Recomputation run = Started(chosen, *cache);
  ASSERT_TRUE(run.RunToEnd().ok());
  EXPECT_EQ(RowsThatDiffer(*cache, dense()), 0);
  EXPECT_EQ(run.LastLogits()->values, logits_.values);
}

TEST_P(RecomputationTest, OnlyTheRowsThatGoOnAreWritten) {
  KvCache cache = PutTogether();
  const KvCache before = PutTogether();
  Recomputation run = Started(AllPositions(kTokens), cache);
  ASSERT_TRUE(run.Project().ok());
  run.WriteKv();
  run.Finish();
  ASSERT_TRUE(run.Project().ok());
  run.WriteKv();
  const std::vector<int32_t> chosen{3, 90, 199};
  ASSERT_TRUE(run.Keep(chosen).ok());
  run.Finish();
  ASSERT_TRUE(run.RunToEnd().ok());
  for (int64_t token = 0; token < kTokens; ++token) {
    EXPECT_TRUE(SameRow(cache, dense(), 0, token)) << token;
    EXPECT_TRUE(SameRow(cache, dense(), 1, token)) << token;
    const bool kept = token == 3 || token == 90 || token == 199;
    EXPECT_TRUE(kept || SameRow(cache, before, 2, token)) << token;
  }
  EXPECT_TRUE(SameRow(cache, dense(), 2, 90)) << "its hidden state before layer 2 was dense";
}

TEST_P(RecomputationTest, GoesOnFromHiddenStatesOfALayer) {
  KvCache one = PutTogether();
  Recomputation run = Started(AllPositions(kTokens), one);
  ASSERT_TRUE(run.Project().ok());
  run.WriteKv();
  run.Finish();
  absl::StatusOr<KvCache> two = model_->Fork(one, kTokens, kTokens);
  ASSERT_TRUE(two.ok());
  absl::StatusOr<Recomputation> later = Recomputation::StartFrom(
      *model_, {.layer = 1, .hidden = run.hidden()}, run.positions(), *two);
  ASSERT_TRUE(later.ok()) << later.status();
  ASSERT_TRUE(later->RunToEnd().ok());
  EXPECT_EQ(RowsThatDiffer(*two, dense()), 0);
}

TEST_P(RecomputationTest, ValueDeviationIsTheL1DistanceOfWhatIsStored) {
  KvCache cache = PutTogether();
  Recomputation run = Started(AllPositions(kTokens), cache);
  ASSERT_TRUE(run.Project().ok());
  for (const float deviation : run.ValueDeviation())
    EXPECT_EQ(deviation, 0.0f) << "values of layer 0 depend on the token alone";
  run.WriteKv();
  run.Finish();
  ASSERT_TRUE(run.Project().ok());
  const std::vector<float> deviation = run.ValueDeviation();
  const int64_t width = cache.geometry().kv_heads * cache.geometry().head_size;
  std::vector<float> a(width);
  std::vector<float> b(width);
  for (int64_t token = 0; token < kTokens; ++token) {
    kernels::CastToFloat(GetParam(), cache.PartSpan(1, Component::kV, token, 1).data(), width,
                         a.data());
    kernels::CastToFloat(GetParam(), dense().PartSpan(1, Component::kV, token, 1).data(), width,
                         b.data());
    float expected = 0;
    for (int64_t i = 0; i < width; ++i) expected += std::abs(a[i] - b[i]);
    EXPECT_FLOAT_EQ(deviation[token], expected) << token;
    EXPECT_TRUE(token >= 80 || deviation[token] == 0.0f) << token;
  }
  EXPECT_GT(deviation[100], 0.0f);
}

TEST_P(RecomputationTest, AttentionIsThatOfTheSequencesOwnLastQueries) {
  std::vector<float> expected(model_->config().heads * kTokens);
  PrefillOptions options;
  options.on_attention_done = [&](int64_t layer, const kernels::AttentionArgs& args) {
    // The last chunk has tokens 192 to 199; its last 4 are asked for.
    if (layer == 1 && args.first_position == 192)
      kernels::ColumnMass(device_, args, 4, kTokens, expected.data());
  };
  absl::StatusOr<KvCache> again = model_->NewCache(kTokens);
  ASSERT_TRUE(model_->Prefill(prompt_, *again, options).ok());
  KvCache cache = PutTogether();
  Recomputation run = Started(AllPositions(kTokens), cache);
  ASSERT_TRUE(run.Project().ok());
  run.WriteKv();
  run.Finish();
  ASSERT_TRUE(run.Project().ok());
  run.WriteKv();
  const std::vector<float> mass = run.AttentionOfLast(4);
  float total = 0;
  for (int64_t token = 0; token < kTokens; ++token) {
    float mean = 0;
    for (int64_t head = 0; head < 4; ++head) mean += expected[head * kTokens + token] / 16;
    EXPECT_NEAR(mass[token], mean, 1e-6) << token;
    total += mass[token];
  }
  EXPECT_NEAR(total, 1.0f, 1e-4);
}

TEST_P(RecomputationTest, LayersMayArriveWhileItRuns) {
  KvCache ready = PutTogether();
  const std::vector<int32_t> chosen{82, 150, 199};
  Recomputation first = Started(chosen, ready);
  ASSERT_TRUE(first.RunToEnd().ok());

  const KvCache source = PutTogether();
  absl::StatusOr<KvCache> cache = model_->NewCache(kTokens);
  ASSERT_TRUE(cache.ok());
  cache->set_length(kTokens);
  std::vector<int64_t> layers;
  absl::StatusOr<Recomputation> run =
      Recomputation::Start(*model_, prompt_, chosen, *cache, [&](int64_t layer) {
        layers.push_back(layer);
        for (const Component component : {Component::kK, Component::kV}) {
          const auto from = source.PartSpan(layer, component, 0, kTokens);
          std::memcpy(cache->PartSpan(layer, component, 0, kTokens).data(), from.data(),
                      from.size());
        }
        return absl::OkStatus();
      });
  ASSERT_TRUE(run.ok());
  ASSERT_TRUE(run->RunToEnd().ok());
  EXPECT_EQ(layers, (std::vector<int64_t>{0, 1, 2}));
  EXPECT_EQ(RowsThatDiffer(*cache, ready), 0);
}

TEST_P(RecomputationTest, AnErrorOfTheHookEndsIt) {
  KvCache cache = PutTogether();
  const std::vector<int32_t> last{199};
  absl::StatusOr<Recomputation> run =
      Recomputation::Start(*model_, prompt_, last, cache, [](int64_t layer) {
        return layer == 1 ? absl::DeadlineExceededError("layer 1 did not come") : absl::OkStatus();
      });
  ASSERT_TRUE(run.ok());
  EXPECT_EQ(run->RunToEnd().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(run->layer(), 1);
}

TEST_P(RecomputationTest, RefusesWhatDoesNotFit) {
  KvCache cache = PutTogether();
  const auto status = [&](std::vector<int32_t> positions) {
    return std::string(Recomputation::Start(*model_, prompt_, positions, cache).status().message());
  };
  EXPECT_EQ(status({1, 1}), "positions[1]: 1 does not ascend inside [0, 200)");
  EXPECT_EQ(status({200}), "positions[0]: 200 does not ascend inside [0, 200)");
  EXPECT_EQ(status({-1}), "positions[0]: -1 does not ascend inside [0, 200)");
  EXPECT_EQ(Recomputation::Start(*model_, std::span(prompt_).first(9), {}, cache).status().code(),
            absl::StatusCode::kInvalidArgument);
  const std::vector<float> hidden(7);
  const std::vector<int32_t> one{4};
  EXPECT_EQ(Recomputation::StartFrom(*model_, {.layer = 1, .hidden = hidden}, one, cache)
                .status()
                .message(),
            "from.hidden: 7 values, not 64");
  EXPECT_FALSE(Recomputation::StartFrom(*model_, {.layer = 4}, {}, cache).ok());
  Recomputation run = Started(one, cache);
  ASSERT_TRUE(run.Project().ok());
  run.WriteKv();
  const std::vector<int32_t> other{5};
  EXPECT_EQ(run.Keep(other).code(), absl::StatusCode::kInvalidArgument);
}

INSTANTIATE_TEST_SUITE_P(All, RecomputationTest, testing::Values(DType::kF32, DType::kBf16));

}  // namespace
}  // namespace kedge
