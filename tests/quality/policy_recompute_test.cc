// Policies that compute some tokens anew, on a random model.
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/quality/evaluate.h"
#include "tests/quality/policies.h"
#include "tests/quality/testing_eval.h"

namespace kedge::quality {
namespace {

class RecomputePolicyTest : public ::testing::Test {
 protected:
  RecomputePolicyTest()
      : eval_(MakeTestingEvalModel("recompute")),
        task_(MakeTestingTask(eval_)),
        runners_(*MakeRunners(eval_, 1, {.block_tokens = 32})) {}

  Model& model() { return *runners_[0].model; }
  absl::StatusOr<PolicyKv> Obtain(const KvPolicy& policy, const EvalContext& context) {
    absl::StatusOr<KvCache> dense = DenseKv(model(), context, CapacityFor(context));
    if (!dense.ok()) return dense.status();
    return policy.Obtain(model(),
                         {.context = context, .dense = *dense, .capacity = CapacityFor(context)});
  }
  bool SameKv(const std::string& a, const std::string& b) {
    for (const EvalContext& context : task_.contexts) {
      const absl::StatusOr<PolicyKv> x = Obtain(**MakePolicy(a), context);
      const absl::StatusOr<PolicyKv> y = Obtain(**MakePolicy(b), context);
      EXPECT_TRUE(x.ok() && y.ok()) << x.status() << y.status();
      const auto tokens = static_cast<int64_t>(context.tokens.size());
      for (int64_t layer = 0; layer < model().config().layers; ++layer) {
        for (const Component component : {Component::kK, Component::kV}) {
          const auto p = x->cache.PartSpan(layer, component, 0, tokens);
          const auto q = y->cache.PartSpan(layer, component, 0, tokens);
          if (std::memcmp(p.data(), q.data(), p.size()) != 0) return false;
        }
      }
    }
    return true;
  }

  const EvalModel eval_;
  const EvalTask task_;
  std::vector<Runner> runners_;
};

TEST_F(RecomputePolicyTest, EndsOfTheScale) {
  EXPECT_FALSE(SameKv("none", "dense"));
  for (const std::string name : {"deviation", "cacheblend", "dhd", "random", "oracle"}) {
    EXPECT_TRUE(SameKv(name + "1@1", "dense")) << name;
    EXPECT_TRUE(SameKv(name + "0@1", "none")) << name;
    EXPECT_FALSE(SameKv(name + "0.3@0", "dense")) << name;  // at layer 1 all are projected
  }
  EXPECT_TRUE(SameKv("epic256", "dense"));
  EXPECT_TRUE(SameKv("epic0", "none"));
}

TEST_F(RecomputePolicyTest, CountsWhatItComputed) {
  const std::unique_ptr<KvPolicy> policy = *MakePolicy("deviation0.3@1");
  EXPECT_EQ(policy->OperationsShare(), 0.0);
  const absl::StatusOr<PolicyKv> kv = Obtain(*policy, task_.contexts[0]);
  ASSERT_TRUE(kv.ok()) << kv.status();
  EXPECT_EQ(kv->provenance, KvProvenance::kRecomputed);
  EXPECT_FALSE(kv->lossless);
  EXPECT_TRUE(kv->repair.done());
  EXPECT_GT(policy->OperationsShare(), 0.5);  // one of two layers in full
  EXPECT_LT(policy->OperationsShare(), 1.0);
  // EPIC at the same cost does not take more.
  const std::unique_ptr<KvPolicy> epic = *MakePolicy("epic0.3@1");
  ASSERT_TRUE(Obtain(*epic, task_.contexts[0]).ok());
  EXPECT_LE(epic->OperationsShare(), policy->OperationsShare() + 0.01);
}

TEST_F(RecomputePolicyTest, LeavesTheRestToDecoding) {
  const absl::StatusOr<PolicyKv> kv =
      Obtain(**MakePolicy("deviation0.3@1+repair2"), task_.contexts[0]);
  ASSERT_TRUE(kv.ok()) << kv.status();
  EXPECT_GT(kv->repair.pending(), 0);
  Policies policies;
  policies.push_back(*MakePolicy("deviation0.3@1+repair2"));
  policies.push_back(*MakePolicy("deviation0.3@1"));
  const absl::StatusOr<std::vector<ContextScores>> scores = Evaluate(task_, policies, runners_);
  ASSERT_TRUE(scores.ok()) << scores.status();
  // The first answer token is chosen before anything is repaired.
  for (const ContextScores& context : *scores) {
    for (size_t i = 0; i < context.policies[1].size(); ++i)
      EXPECT_EQ(context.policies[1][i].kl[0], context.policies[2][i].kl[0]);
  }
}

TEST_F(RecomputePolicyTest, RefusesByName) {
  for (const char* name : {"deviation0.15", "deviation@2", "dhd1.5@1", "epic-1", "epic",
                           "random0.1@1+asked", "deviation0.1@1+repair0", "dhd0.1@1+"}) {
    EXPECT_FALSE(MakePolicy(name).ok()) << name;
  }
  const absl::StatusOr<PolicyKv> late = Obtain(**MakePolicy("deviation0.1@2"), task_.contexts[0]);
  EXPECT_EQ(late.status().message(), "check_layer: 2 is not in [0, 2)");
  ASSERT_GT(task_.contexts[0].questions.size(), 1u);
  EXPECT_EQ(Obtain(**MakePolicy("dhd0.1@1+asked"), task_.contexts[0]).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace kedge::quality
