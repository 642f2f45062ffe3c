#include "tests/quality/attention_error.h"

#include <cstring>
#include <vector>

#include "gtest/gtest.h"
#include "tests/quality/evaluate.h"
#include "tests/quality/policies.h"
#include "tests/quality/testing_eval.h"

namespace kedge::quality {
namespace {

class AttentionErrorTest : public ::testing::Test {
 protected:
  AttentionErrorTest()
      : eval_(MakeTestingEvalModel("attention_error", 0, 32)),
        task_(MakeTestingTask(eval_)),
        runners_(*MakeRunners(eval_, 1, {.block_tokens = 32})),
        model_(*runners_[0].model),
        dense_(*DenseKv(model_, context(), CapacityFor(context()))),
        probe_(*AttentionProbe::Record(model_, dense_, context(), context().questions[0])) {}

  const EvalContext& context() const { return task_.contexts[0]; }
  std::vector<double> ErrorsOf(const std::string& name) {
    const auto policy = MakePolicy(name);
    EXPECT_TRUE(policy.ok()) << policy.status();
    const auto kv = (*policy)->Obtain(
        model_, {.context = context(), .dense = dense_, .capacity = CapacityFor(context())});
    EXPECT_TRUE(kv.ok()) << kv.status();
    return probe_.ErrorsOf(model_, kv->cache);
  }

  const EvalModel eval_;
  const EvalTask task_;
  std::vector<Runner> runners_;
  Model& model_;
  KvCache dense_;
  const AttentionProbe probe_;
};

TEST_F(AttentionErrorTest, DenseHasNone) {
  EXPECT_EQ(dense_.length(), static_cast<int64_t>(context().tokens.size()));
  EXPECT_EQ(probe_.ErrorsOf(model_, dense_), std::vector<double>({0.0, 0.0}));
}

TEST_F(AttentionErrorTest, FewerBitsErrMore) {
  const std::vector<double> bits8 = ErrorsOf("kivi8g32");
  const std::vector<double> bits4 = ErrorsOf("kivi4g32");
  const std::vector<double> bits2 = ErrorsOf("kivi2g32");
  ASSERT_EQ(bits8.size(), 2u);
  for (size_t layer = 0; layer < 2; ++layer) {
    EXPECT_GT(bits8[layer], 0.0);
    EXPECT_GT(bits4[layer], 2 * bits8[layer]);
    EXPECT_GT(bits2[layer], 2 * bits4[layer]);
  }
}

TEST_F(AttentionErrorTest, OneLayersValuesErrThereOnly) {
  KvCache other = *model_.Fork(dense_, dense_.length(), CapacityFor(context()));
  const std::span<uint8_t> values = other.PartSpan(1, Component::kV, 0, dense_.length());
  std::memset(values.data(), 0, values.size());
  const std::vector<double> errors = probe_.ErrorsOf(model_, other);
  EXPECT_EQ(errors[0], 0.0);
  EXPECT_GT(errors[1], 0.1);
}

TEST_F(AttentionErrorTest, ATailKeepsTheLastTokens) {
  const int64_t length = dense_.length();
  const auto kv =
      (*MakePolicy("kivi2g32+tail40"))
          ->Obtain(model_,
                   {.context = context(), .dense = dense_, .capacity = CapacityFor(context())});
  ASSERT_TRUE(kv.ok()) << kv.status();
  const auto same = [&](int64_t first, int64_t tokens) {
    const auto a = dense_.PartSpan(1, Component::kK, first, tokens);
    const auto b = kv->cache.PartSpan(1, Component::kK, first, tokens);
    return std::memcmp(a.data(), b.data(), a.size()) == 0;
  };
  EXPECT_TRUE(same(length - 40, 40));
  EXPECT_FALSE(same(length - 41, 1));
  EXPECT_TRUE(same(0, 4));
  EXPECT_FALSE(MakePolicy("kivi2g32+tail0").ok());
  EXPECT_FALSE(MakePolicy("kivi2g32+tail").ok());
}

}  // namespace
}  // namespace kedge::quality
