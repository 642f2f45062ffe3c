// The policies, and the questions that are asked over their KV, on a random model.
#include "tests/quality/evaluate.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gpu/kernels/cast.h"
#include "gpu/kernels/sampling.h"
#include "gpu/model/generate.h"
#include "gpu/model/kv_span.h"
#include "gtest/gtest.h"
#include "tests/quality/policies.h"
#include "tests/quality/testing_eval.h"

namespace kedge::quality {
namespace {

using ::testing::HasSubstr;

class EvaluateTest : public ::testing::Test {
 protected:
  EvaluateTest() : eval_(MakeTestingEvalModel("evaluate")), task_(MakeTestingTask(eval_)) {}

  std::vector<Runner> Runners(int count) {
    absl::StatusOr<std::vector<Runner>> runners = MakeRunners(eval_, count, {.block_tokens = 32});
    EXPECT_TRUE(runners.ok()) << runners.status();
    EXPECT_EQ(runners->size(), static_cast<size_t>(count));
    return *std::move(runners);
  }
  PolicyKv Obtain(Model& model, const std::string& name, const EvalContext& context) {
    absl::StatusOr<std::unique_ptr<KvPolicy>> policy = MakePolicy(name);
    EXPECT_TRUE(policy.ok()) << policy.status();
    EXPECT_EQ((*policy)->name(), name);
    absl::StatusOr<KvCache> dense = DenseKv(model, context, CapacityFor(context));
    EXPECT_TRUE(dense.ok()) << dense.status();
    absl::StatusOr<PolicyKv> kv = (*policy)->Obtain(
        model, {.context = context, .dense = *dense, .capacity = CapacityFor(context)});
    EXPECT_TRUE(kv.ok()) << kv.status();
    return *std::move(kv);
  }
  std::vector<float> Floats(const KvCache& cache, int64_t layer, Component component,
                            int64_t tokens) {
    std::vector<float> values(tokens * 32);
    kernels::CastToFloat(cache.geometry().dtype, cache.PartSpan(layer, component, 0, tokens).data(),
                         tokens * 32, values.data());
    return values;
  }

  const EvalModel eval_;
  const EvalTask task_;
};

TEST_F(EvaluateTest, FetchedIsDenseBitForBit) {
  std::vector<Runner> runners = Runners(1);
  Model& model = *runners[0].model;
  for (const EvalContext& context : task_.contexts) {
    PolicyKv dense = Obtain(model, "dense", context);
    PolicyKv fetched = Obtain(model, "fetched", context);
    EXPECT_EQ(dense.provenance, KvProvenance::kDense);
    EXPECT_EQ(fetched.provenance, KvProvenance::kExact);
    for (int64_t layer = 0; layer < 2; ++layer) {
      for (Component component : {Component::kK, Component::kV}) {
        const auto a = dense.cache.PartSpan(layer, component, 0, 93);
        const auto b = fetched.cache.PartSpan(layer, component, 0, 93);
        EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size()), 0);
      }
    }
    for (const EvalQuestion& question : context.questions) {
      const absl::StatusOr<Logits> a = AnswerLogits(model, dense.cache, context, question);
      const absl::StatusOr<Logits> b = AnswerLogits(model, fetched.cache, context, question);
      ASSERT_TRUE(a.ok() && b.ok());
      EXPECT_EQ(std::memcmp(a->values.data(), b->values.data(), a->values.size() * sizeof(float)),
                0);
    }
  }
}

// Whole blocks are what the codec makes of them; the first 4 tokens, and nothing else, are dense.
TEST_F(EvaluateTest, CodecsChangeWholeBlocksButTheirSinks) {
  std::vector<Runner> runners = Runners(1);
  Model& model = *runners[0].model;
  const EvalContext& context = task_.contexts[0];
  const PolicyKv dense = Obtain(model, "dense", context);
  const PolicyKv fp8 = Obtain(model, "fp8", context);
  EXPECT_FALSE(fp8.lossless);
  EXPECT_EQ(fp8.cache.length(), 93);
  for (const Component component : {Component::kK, Component::kV}) {
    EXPECT_EQ(Floats(fp8.cache, 0, component, 4), Floats(dense.cache, 0, component, 4));
    const std::vector<float> a = Floats(fp8.cache, 0, component, 64);
    const std::vector<float> b = Floats(dense.cache, 0, component, 64);
    EXPECT_NE(a, b);
    float largest = 0.0f;
    for (float value : b) largest = std::max(largest, std::abs(value));
    for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], largest / 12);
  }
  EXPECT_EQ((*MakePolicy("dense"))->BitsPerValue(model, 93), 0.0);
  const double bits = (*MakePolicy("fp8"))->BitsPerValue(model, 93);
  EXPECT_EQ(bits, 8 + 1 + 0.125);  // 4 raw f16 rows and a header over 64 rows of 32
}

TEST_F(EvaluateTest, GroupsThatDoNotDivideAreNamed) {
  std::vector<Runner> runners = Runners(1);
  const EvalContext& context = task_.contexts[0];
  absl::StatusOr<KvCache> dense = DenseKv(*runners[0].model, context, CapacityFor(context));
  ASSERT_TRUE(dense.ok());
  const auto policy = MakePolicy("kivi4g32");
  ASSERT_TRUE(policy.ok());
  const auto kv = (*policy)->Obtain(
      *runners[0].model, {.context = context, .dense = *dense, .capacity = CapacityFor(context)});
  EXPECT_THAT(std::string(kv.status().message()),
              HasSubstr("group: 32 does not divide head_size 16"));
}

TEST_F(EvaluateTest, PrunedKeepsWhatItSaysOfWholeBlocks) {
  std::vector<Runner> runners = Runners(1);
  Model& model = *runners[0].model;
  const EvalContext& context = task_.contexts[0];
  const PolicyKv dense = Obtain(model, "dense", context);
  for (const char* name :
       {"prefixkv0.5+raw", "prefixkv0.5-keydiff+raw", "prefixkv0.5-expect+raw",
        "uniform0.5-sum+raw", "random0.5+raw", "oracle0.5+raw", "asked0.5+raw"}) {
    absl::StatusOr<std::unique_ptr<KvPolicy>> policy = MakePolicy(name);
    ASSERT_TRUE(policy.ok()) << policy.status();
    const PolicyInput input{
        .context = context, .dense = dense.cache, .capacity = CapacityFor(context)};
    EXPECT_EQ((*policy)->Obtain(model, input).status().code(),
              absl::StatusCode::kFailedPrecondition);
    ASSERT_TRUE((*policy)->Calibrate(model, task_.contexts).ok());
    const absl::StatusOr<PolicyKv> kv = (*policy)->Obtain(model, input);
    ASSERT_TRUE(kv.ok()) << kv.status();
    EXPECT_FALSE(kv->lossless);
    EXPECT_EQ(kv->cache.length(), 93);
    EXPECT_EQ(kv->cache.pruned_tokens(), 64);
    EXPECT_EQ(kv->cache.rows(0) + kv->cache.rows(1), 2 * 29 + 64) << "half of 64 in both layers";
    for (int64_t layer = 0; layer < 2; ++layer) {
      const std::span<const int32_t> kept = kv->cache.kept(layer);
      for (size_t row = 0; row < kept.size(); ++row) {
        const auto from = dense.cache.PartSpan(layer, Component::kK, kept[row], 1);
        const auto to = kv->cache.PartSpan(layer, Component::kK, static_cast<int64_t>(row), 1);
        ASSERT_EQ(std::memcmp(from.data(), to.data(), from.size()), 0) << name;
      }
    }
    // 8 bits of rows; 24 and 4 bytes a part, positions, and what ranks them. Few values here.
    EXPECT_GT((*policy)->BitsPerValue(model, 93), 8.0);
    EXPECT_LT((*policy)->BitsPerValue(model, 93), 9.0) << name;
  }
}

// The rule of pruned_chain.h: what stands behind the blocks, and what is asked, change nothing.
TEST_F(EvaluateTest, WhatIsPrunedIsAFunctionOfItsKey) {
  std::vector<Runner> runners = Runners(1);
  Model& model = *runners[0].model;
  const EvalContext& context = task_.contexts[0];
  EvalContext other = context;
  for (size_t i = 64; i < other.tokens.size(); ++i) other.tokens[i] = (other.tokens[i] + 7) % 102;
  other.questions = task_.contexts[2].questions;
  const auto kept = [&](const std::string& name, const EvalContext& of) {
    absl::StatusOr<std::unique_ptr<KvPolicy>> policy = MakePolicy(name);
    EXPECT_TRUE((*policy)->Calibrate(model, task_.contexts).ok());
    absl::StatusOr<KvCache> dense = DenseKv(model, of, CapacityFor(of));
    absl::StatusOr<PolicyKv> kv =
        (*policy)->Obtain(model, {.context = of, .dense = *dense, .capacity = CapacityFor(of)});
    EXPECT_TRUE(kv.ok()) << kv.status();
    std::vector<std::vector<int32_t>> lists;
    for (int64_t layer = 0; layer < 2; ++layer)
      lists.emplace_back(kv->cache.kept(layer).begin(), kv->cache.kept(layer).end());
    return lists;
  };
  for (const char* name : {"prefixkv0.5+raw", "prefixkv0.5-sum+raw", "prefixkv0.5-keydiff+fp8",
                           "prefixkv0.5-knorm+raw", "prefixkv0.5-expect+raw"})
    EXPECT_EQ(kept(name, context), kept(name, other)) << name;
  EXPECT_NE(kept("oracle0.5+raw", context), kept("oracle0.5+raw", other))
      << "an oracle is none, and is never stored";
}

// By another way: a dense prefill in which fillings see themselves and BOS only, which stands
// further away than where `none` computes them. In layer 0 values see nothing of that.
TEST_F(EvaluateTest, NoneComputesFillingsAlone) {
  std::vector<Runner> runners = Runners(1);
  Model& model = *runners[0].model;
  const EvalContext& context = task_.contexts[1];
  const PolicyKv none = Obtain(model, "none", context);
  const PolicyKv dense = Obtain(model, "dense", context);
  EXPECT_EQ(none.provenance, KvProvenance::kMoved);
  EXPECT_EQ(none.cache.length(), 93);
  const EvalPiece& filling = context.pieces[3];
  const std::span<const int32_t> tokens(context.tokens);
  absl::StatusOr<KvSpan> alone =
      ComputeAlone(model, tokens.first(1), tokens.subspan(filling.first, filling.count));
  ASSERT_TRUE(alone.ok());
  const auto values = none.cache.PartSpan(1, Component::kV, filling.first, filling.count);
  EXPECT_EQ(std::memcmp(values.data(), alone->Layer(alone->values, 1).data(), values.size()), 0);
  EXPECT_EQ(Floats(none.cache, 0, Component::kV, 93), Floats(dense.cache, 0, Component::kV, 93));
  const std::vector<float> none_keys = Floats(none.cache, 0, Component::kK, 93);
  const std::vector<float> dense_keys = Floats(dense.cache, 0, Component::kK, 93);
  for (size_t i = 0; i < none_keys.size(); ++i) ASSERT_NEAR(none_keys[i], dense_keys[i], 0.06);
  EXPECT_EQ(Floats(none.cache, 1, Component::kV, 11), Floats(dense.cache, 1, Component::kV, 11));
  EXPECT_NE(Floats(none.cache, 1, Component::kV, 93), Floats(dense.cache, 1, Component::kV, 93));
}

TEST_F(EvaluateTest, TeacherForcingScoresAsDecodingDoes) {
  std::vector<Runner> runners = Runners(1);
  Model& model = *runners[0].model;
  EvalContext context = task_.contexts[0];
  PolicyKv none = Obtain(model, "none", context);
  // The answer that decoding gives is right in every token, and another in its first wrong one.
  std::vector<int32_t> sequence = context.tokens;
  EvalQuestion& question = context.questions[0];
  sequence.insert(sequence.end(), question.tokens.begin(), question.tokens.end());
  absl::StatusOr<KvCache> cache = model.Fork(none.cache, 93, 120);
  absl::StatusOr<Logits> logits = model.Prefill(sequence, *cache);
  absl::StatusOr<std::vector<int32_t>> answer = Generate(model, *cache, *logits, {.max_tokens = 6});
  ASSERT_TRUE(answer.ok());
  question.answer = *answer;
  absl::StatusOr<KvCache> room = model.Fork(none.cache, 93, 120);
  absl::StatusOr<Logits> rows = AnswerLogits(model, *room, context, question);
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_EQ(room->length(), 93) << "the next question finds the context";
  ASSERT_EQ(rows->rows(), 6);
  for (int64_t i = 0; i < 6; ++i) EXPECT_EQ(kernels::ArgMax(rows->row(i)), (*answer)[i]);
  EXPECT_EQ(std::memcmp(rows->row(0).data(), logits->row(0).data(), 102 * sizeof(float)), 0);
}

TEST_F(EvaluateTest, ResultsDoNotDependOnThreads) {
  const auto evaluate = [&](int threads) {
    Policies policies;
    for (const char* name : {"none", "fetched"}) policies.push_back(*MakePolicy(name));
    std::vector<Runner> runners = Runners(threads);
    size_t done = 0;
    absl::StatusOr<std::vector<ContextScores>> scores =
        Evaluate(task_, policies, runners, [&](size_t count) { done = count; });
    EXPECT_TRUE(scores.ok()) << scores.status();
    EXPECT_EQ(done, 3u);
    return *std::move(scores);
  };
  const std::vector<ContextScores> one = evaluate(1);
  const std::vector<ContextScores> two = evaluate(2);
  ASSERT_EQ(one.size(), 3u);
  double none_kl = 0;
  for (size_t c = 0; c < 3; ++c) {
    ASSERT_EQ(one[c].policies.size(), 3u);
    for (size_t p = 0; p < 3; ++p) {
      for (size_t q = 0; q < 3; ++q) {
        const QuestionScore& a = one[c].policies[p][q];
        EXPECT_EQ(a.right.size(), task_.contexts[c].questions[q].answer.size());
        EXPECT_EQ(a.log_probability, two[c].policies[p][q].log_probability);
        EXPECT_EQ(a.greedy, two[c].policies[p][q].greedy);
        for (float kl : a.kl) {
          if (p == 1) none_kl += kl;
          EXPECT_TRUE(p == 1 || kl == 0.0f) << "dense and fetched are dense";
        }
      }
    }
  }
  EXPECT_GT(none_kl, 0.01);
}

TEST(Policies, AnUnknownNameIsAnsweredWithTheNames) {
  const absl::Status status = MakePolicy("magic").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("'magic' is none of: dense, none, fetched"));
}

}  // namespace
}  // namespace kedge::quality
