// The policy that client/reuse decides, on a random model.
#include <memory>
#include <string>

#include "gtest/gtest.h"
#include "tests/quality/evaluate.h"
#include "tests/quality/policies.h"
#include "tests/quality/testing_eval.h"

namespace kedge::quality {
namespace {

class AutoPolicyTest : public ::testing::Test {
 protected:
  AutoPolicyTest()
      : eval_(MakeTestingEvalModel("auto")),
        task_(MakeTestingTask(eval_)),
        runners_(*MakeRunners(eval_, 1, {.block_tokens = 32})) {}

  absl::StatusOr<PolicyKv> Obtain(const KvPolicy& policy) {
    Model& model = *runners_[0].model;
    const EvalContext& context = task_.contexts[0];
    absl::StatusOr<KvCache> dense = DenseKv(model, context, CapacityFor(context));
    if (!dense.ok()) return dense.status();
    return policy.Obtain(model,
                         {.context = context, .dense = *dense, .capacity = CapacityFor(context)});
  }
  std::unique_ptr<KvPolicy> Learnt(const std::string& name) {
    std::unique_ptr<KvPolicy> policy = *MakePolicy(name);
    EXPECT_TRUE(policy->Calibrate(*runners_[0].model, task_.contexts).ok());
    return policy;
  }

  const EvalModel eval_;
  const EvalTask task_;
  std::vector<Runner> runners_;
};

TEST_F(AutoPolicyTest, WhatTheGateRefusesIsComputed) {
  // Random weights: no pool predicts its members, but of this very context it has an anchor.
  const auto learnt = Learnt("auto-nogate+none");
  const absl::StatusOr<PolicyKv> corrected = Obtain(*learnt);
  ASSERT_TRUE(corrected.ok()) << corrected.status();
  EXPECT_EQ(corrected->provenance, KvProvenance::kCorrected);
  EXPECT_FALSE(corrected->lossless);
  EXPECT_EQ(learnt->AcceptedShare(), 1.0);
  EXPECT_EQ(learnt->ReusedShare(), 1.0);
  EXPECT_LT(learnt->OperationsShare(), 1.0);

  std::unique_ptr<KvPolicy> nothing = *MakePolicy("auto+none");
  ASSERT_TRUE(nothing->Calibrate(*runners_[0].model, {}).ok());
  const absl::StatusOr<PolicyKv> dense = Obtain(*nothing);
  ASSERT_TRUE(dense.ok()) << dense.status();
  EXPECT_EQ(dense->provenance, KvProvenance::kDense);
  EXPECT_TRUE(dense->lossless);
  EXPECT_EQ(nothing->ReusedShare(), 0.0);
  EXPECT_EQ(nothing->OperationsShare(), 1.0);

  std::unique_ptr<KvPolicy> moved = *MakePolicy("auto+epic1");
  ASSERT_TRUE(moved->Calibrate(*runners_[0].model, {}).ok());
  const absl::StatusOr<PolicyKv> recomputed = Obtain(*moved);
  ASSERT_TRUE(recomputed.ok()) << recomputed.status();
  EXPECT_EQ(recomputed->provenance, KvProvenance::kRecomputed);
}

TEST_F(AutoPolicyTest, NamesWhatIsWrong) {
  EXPECT_EQ(MakePolicy("auto-often").status().message(),
            "policy: no variant 'often' of auto-often");
  EXPECT_EQ(MakePolicy("auto+magic").status().message(), "policy: 'magic' recomputes nothing");
  EXPECT_FALSE(MakePolicy("auto+deviation1.5@1").ok());
  EXPECT_EQ(Obtain(**MakePolicy("auto")).status().message(),
            "auto: learns from calibration contexts");
}

}  // namespace
}  // namespace kedge::quality
