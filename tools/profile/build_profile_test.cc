// A small model's profile: what is in it, that it comes out the same, and what its gate refuses.
#include "tools/profile/build_profile.h"

#include <algorithm>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gpu/codec/codec_chain.h"
#include "gpu/codec/pruned_chain.h"
#include "gtest/gtest.h"
#include "tests/quality/testing_eval.h"

namespace kedge::profile {
namespace {

using quality::EvalTask;
using quality::Runner;
using ::testing::HasSubstr;

const std::vector<std::string> kChains = {"kivi4g32", "kivi2g32+rans",
                                          "archive3", "prefixkv0.5-keydiff+kivi2g32s8+rans",
                                          "raw",      "prefixkv0.5+kvcrush0.1+archive2"};

class BuildProfileTest : public ::testing::Test {
 protected:
  BuildProfileTest()
      : eval_(quality::MakeTestingEvalModel("profile", 0, 32)),
        tasks_{quality::MakeTestingTask(eval_)} {
    options_ = *OptionsFor(kChains);
    options_.probe_contexts = 1;
    options_.questions = 1;
  }

  std::vector<Runner> Runners(int count) const {
    absl::StatusOr<std::vector<Runner>> runners =
        quality::MakeRunners(eval_, count, {.block_tokens = 32});
    EXPECT_TRUE(runners.ok()) << runners.status();
    return *std::move(runners);
  }
  ModelProfile Build(int threads) const {
    std::vector<Runner> runners = Runners(threads);
    absl::StatusOr<ModelProfile> profile =
        BuildProfile(eval_, "test/weights", runners, tasks_, options_, [](const std::string&) {});
    EXPECT_TRUE(profile.ok()) << profile.status();
    return *std::move(profile);
  }

  const quality::EvalModel eval_;
  std::vector<EvalTask> tasks_;
  ProfileOptions options_;
};

TEST_F(BuildProfileTest, HasWhatItsChainsNeedAndNoMore) {
  EXPECT_EQ(options_.archives, (std::vector<std::string>{"archive3", "archive2"}));
  EXPECT_EQ(options_.kivi, (std::vector<std::string>{"kivi2g32", "kivi2g32s8"}));
  EXPECT_FALSE(OptionsFor({"prefixkv0.5"}).ok());
  const ModelProfile profile = Build(1);
  EXPECT_EQ(profile.section_names(),
            (std::vector<std::string>{"entropy/archive2", "entropy/archive3",
                                      "entropy/kivi2g32+rans", "entropy/kivi2g32s8+rans", "gate",
                                      "pca", "prefixkv", "query_stats"}));
  for (const std::string& name : kChains) {
    const absl::Status parsed = codec::PrunedChain::IsPruned(name)
                                    ? codec::PrunedChain::Parse(name, &profile).status()
                                    : codec::CodecChain::Parse(name, &profile).status();
    EXPECT_TRUE(parsed.ok()) << parsed;
  }
  const auto budgets = codec::DecodePrefixKv(*profile.Section("prefixkv"));
  ASSERT_TRUE(budgets.ok()) << budgets.status();
  EXPECT_EQ(budgets->samples, 3u);
  EXPECT_EQ(budgets->curves.size(), 2u);
  const auto queries = codec::DecodeQueryStats(*profile.Section("query_stats"));
  ASSERT_TRUE(queries.ok()) << queries.status();
  EXPECT_EQ(queries->heads, 4);
  EXPECT_EQ(queries->queries, 3u * (93 - 4));
}

TEST_F(BuildProfileTest, IsAFunctionOfModelAndSamples) {
  const ModelProfile once = Build(1);
  for (const int threads : {1, 2}) {
    const ModelProfile again = Build(threads);
    EXPECT_TRUE(std::equal(once.bytes().begin(), once.bytes().end(), again.bytes().begin(),
                           again.bytes().end()))
        << threads << " threads";
  }
  tasks_[0].contexts.pop_back();
  EXPECT_NE(Build(1).id(), once.id());
}

TEST_F(BuildProfileTest, GatesPrunedChainsWithQualityAndSize) {
  std::vector<Runner> runners = Runners(1);
  std::string said;
  const auto gated = WithGate(Build(1), runners, tasks_,
                              {{"prefixkv0.5+kivi4g32", 100.0},
                               {"prefixkv0.5-keydiff+kivi4g32", -1.0},  // nothing passes this
                               {"prefixkv0.5+kvcrush0.1+kivi4g32", 1.0}},
                              [&](const std::string& what) { said += what + "\n"; });
  ASSERT_TRUE(gated.ok()) << gated.status();
  EXPECT_TRUE(gated->Admits("prefixkv0.5+kivi4g32").ok());
  const absl::Status refused = gated->Admits("prefixkv0.5-keydiff+kivi4g32");
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("prefixkv0.5-keydiff+kivi4g32"));
  for (const GateRecord& record : gated->gate()) {
    EXPECT_GT(record.bits_per_value, 2.0) << record.chain;
    EXPECT_LT(record.bits_per_value, 6.0) << record.chain;
    EXPECT_EQ(record.questions, 9u);
  }
  EXPECT_EQ(gated->gate().size(), 4u);  // two chains: the task, and the mean
  // Four heads are too few for kvcrush: it was not measured, and why is said.
  EXPECT_THAT(said, HasSubstr("left out prefixkv0.5+kvcrush0.1+kivi4g32"));
  EXPECT_FALSE(gated->Admits("prefixkv0.5+kvcrush0.1+kivi4g32").ok());
}

TEST_F(BuildProfileTest, GatesReuse) {
  std::vector<Runner> runners = Runners(1);
  std::string said;
  const std::vector<GateBar> bars = {{"kvcomm-nogate", 100.0}, {"cacheblend0.15@1", -1.0}};
  const auto note = [&](const std::string& what) { said += what + "\n"; };
  const auto gated = WithGate(Build(1), runners, tasks_, bars, note, &tasks_);
  ASSERT_TRUE(gated.ok()) << gated.status();
  EXPECT_TRUE(gated->Admits("kvcomm-nogate").ok());
  EXPECT_EQ(gated->Admits("cacheblend0.15@1").code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(gated->gate().size(), 4u);
  // Where nothing comes from elsewhere nothing can be lost, and nothing is said.
  std::vector<EvalTask> plain = tasks_;
  for (EvalTask& task : plain)
    for (quality::EvalContext& context : task.contexts)
      for (quality::EvalPiece& piece : context.pieces) piece.filling = false;
  const auto none = WithGate(Build(1), runners, plain, bars, note, &plain);
  ASSERT_TRUE(none.ok()) << none.status();
  EXPECT_TRUE(none->gate().empty());
  EXPECT_THAT(said, HasSubstr("left out kvcomm-nogate: these samples have no fillings"));
  EXPECT_FALSE(none->Admits("kvcomm-nogate").ok());
}

}  // namespace
}  // namespace kedge::profile
