// Identities of offsets, on a small random model in fp32.
#include "client/reuse/kvcomm.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "client/reuse/local_pools.h"
#include "gmock/gmock.h"
#include "gpu/kernels/cast.h"
#include "gpu/model/testing_model.h"
#include "gtest/gtest.h"

namespace kedge {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kRole = 12, kJoint = 6;

// A prompt of two placeholders; owns its tokens.
struct TestPrompt {
  std::vector<int32_t> tokens;
  OffsetPrompt prompt;
};

class KvcommTest : public ::testing::TestWithParam<OffsetMethod> {
 protected:
  KvcommTest()
      : model_(MakeTestingModel(Architecture::kLlama, device_, {.kv_dtype = DType::kF32})) {}

  // Role and joints are the same each time, fillings differ by `seed`.
  static std::unique_ptr<TestPrompt> MakePrompt(int64_t first, int64_t second, int32_t seed) {
    auto made = std::make_unique<TestPrompt>();
    const std::vector<int32_t> text = TestingPrompt(kRole + 2 * kJoint);
    std::vector<PromptSegment>& segments = made->prompt.segments;
    int64_t taken = 0;
    const auto fixed = [&](int64_t count) {
      segments.push_back({.first = static_cast<int64_t>(made->tokens.size()), .count = count});
      made->tokens.insert(made->tokens.end(), text.begin() + taken, text.begin() + taken + count);
      taken += count;
    };
    const auto filling = [&](const std::string& name, int64_t count, int32_t salt) {
      segments.push_back({.filling = true,
                          .placeholder = name,
                          .first = static_cast<int64_t>(made->tokens.size()),
                          .count = count});
      for (int64_t i = 0; i < count; ++i)
        made->tokens.push_back(static_cast<int32_t>((seed * 31 + salt + i * (7 + seed)) % 250));
    };
    fixed(kRole);
    filling("question", first, 5);
    fixed(kJoint);
    filling("message", second, 90);
    fixed(kJoint);
    made->prompt.consumer = "mason";
    made->prompt.tokens = made->tokens;
    made->prompt.lead = 1;
    return made;
  }
  // With pools of its own.
  struct Made {
    explicit Made(OffsetMethod method, const KvcommOptions& options)
        : pools({.method = method}), kvcomm(TenantSalt{}, Fingerprint{}, options, pools) {}
    LocalPools pools;
    Kvcomm kvcomm;
  };
  Kvcomm& Make(const KvcommOptions& options = {}) {
    made_.push_back(std::make_unique<Made>(GetParam(), options));
    return made_.back()->kvcomm;
  }
  void Learn(Kvcomm& kvcomm, const TestPrompt& prompt) {
    const absl::StatusOr<DenseContext> dense = DenseContext::Compute(*model_, prompt.tokens);
    ASSERT_TRUE(dense.ok()) << dense.status();
    const absl::Status s = kvcomm.Learn(*model_, prompt.prompt, *dense);
    ASSERT_TRUE(s.ok()) << s;
  }
  std::vector<OffsetRefusal> Apply(Kvcomm& kvcomm, const TestPrompt& prompt, KvCache& cache) {
    const auto decisions = kvcomm.Apply(*model_, prompt.prompt, cache);
    EXPECT_TRUE(decisions.ok()) << decisions.status();
    std::vector<OffsetRefusal> refusals;
    for (const PlaceholderDecision& decision : *decisions) refusals.push_back(decision.refusal);
    EXPECT_EQ(cache.length(), static_cast<int64_t>(prompt.tokens.size()) - 1);
    return refusals;
  }
  KvCache Empty(const TestPrompt& prompt) {
    return *model_->NewCache(static_cast<int64_t>(prompt.tokens.size()));
  }
  // The largest difference from dense KV, of all but the last token.
  double FromDense(const TestPrompt& prompt, const KvCache& cache) {
    const DenseContext dense = *DenseContext::Compute(*model_, prompt.tokens);
    const auto tokens = static_cast<int64_t>(prompt.tokens.size()) - 1;
    double largest = 0;
    for (int64_t layer = 0; layer < 3; ++layer) {
      for (Component component : {Component::kK, Component::kV}) {
        const auto* a = reinterpret_cast<const float*>(
            dense.cache().PartSpan(layer, component, 0, tokens).data());
        const auto* b =
            reinterpret_cast<const float*>(cache.PartSpan(layer, component, 0, tokens).data());
        for (int64_t i = 0; i < tokens * 32; ++i)
          largest = std::max(largest, double{std::fabs(a[i] - b[i])});
      }
    }
    return largest;
  }

  std::vector<std::unique_ptr<Made>> made_;
  CpuDevice device_{1};
  std::unique_ptr<Model> model_;
};

TEST_P(KvcommTest, NothingLearntIsDense) {
  Kvcomm& kvcomm = Make();
  const auto prompt = MakePrompt(20, 15, 1);
  KvCache cache = Empty(*prompt);
  EXPECT_THAT(Apply(kvcomm, *prompt, cache),
              ::testing::ElementsAre(OffsetRefusal::kNoPool, OffsetRefusal::kNoPool));
  EXPECT_EQ(FromDense(*prompt, cache), 0);
}

TEST_P(KvcommTest, AFillingWithoutTokensIsDense) {
  Kvcomm& kvcomm = Make();
  Learn(kvcomm, *MakePrompt(20, 15, 1));
  const auto prompt = MakePrompt(0, 15, 1);
  Learn(kvcomm, *prompt);
  KvCache cache = Empty(*prompt);
  EXPECT_EQ(Apply(kvcomm, *prompt, cache)[0], OffsetRefusal::kEmpty);
}

TEST_P(KvcommTest, AChangedTemplateIsDense) {
  Kvcomm& kvcomm = Make();
  Learn(kvcomm, *MakePrompt(20, 15, 1));
  auto prompt = MakePrompt(20, 15, 1);
  prompt->tokens[kRole + 20] += 1;
  KvCache cache = Empty(*prompt);
  EXPECT_EQ(Apply(kvcomm, *prompt, cache)[0], OffsetRefusal::kTemplate);
  const absl::StatusOr<DenseContext> dense = DenseContext::Compute(*model_, prompt->tokens);
  EXPECT_FALSE(kvcomm.Learn(*model_, prompt->prompt, *dense).ok());
}

TEST_P(KvcommTest, BaseKindsDoNotMix) {
  Kvcomm& kvcomm = Make();
  const auto prompt = MakePrompt(20, 15, 1);
  Learn(kvcomm, *prompt);
  const KvSpan span = *ComputeAlone(*model_, {}, std::span(prompt->tokens).subspan(kRole, 20));
  prompt->prompt.segments[1].produced = &span;
  KvCache cache = Empty(*prompt);
  EXPECT_EQ(Apply(kvcomm, *prompt, cache)[0], OffsetRefusal::kNoPool);
}

TEST_P(KvcommTest, BadPromptsAreNamed) {
  Kvcomm& kvcomm = Make();
  const auto prompt = MakePrompt(20, 15, 1);
  KvCache cache = Empty(*prompt), full = Empty(*prompt);
  full.set_length(3);
  EXPECT_FALSE(kvcomm.Apply(*model_, prompt->prompt, full).ok());
  KvCache small = *model_->NewCache(10);
  EXPECT_THAT(std::string(kvcomm.Apply(*model_, prompt->prompt, small).status().message()),
              HasSubstr("room for 10"));
  OffsetPrompt bad = prompt->prompt;
  bad.segments[1].count = -3;  // a text that ends before it begins
  EXPECT_THAT(std::string(kvcomm.Apply(*model_, bad, cache).status().message()),
              HasSubstr("prompt.segments"));
  bad = prompt->prompt;
  bad.segments.pop_back();
  EXPECT_THAT(std::string(kvcomm.Apply(*model_, bad, cache).status().message()),
              HasSubstr("end at"));
  const DenseContext other = *DenseContext::Compute(*model_, TestingPrompt(9));
  EXPECT_THAT(std::string(kvcomm.Learn(*model_, prompt->prompt, other).message()),
              HasSubstr("dense"));
}

// Pools that do not answer: dense, with the reason, and counted.
class SilentPools final : public OffsetPools {
 public:
  OffsetMethod method() const override { return OffsetMethod::kAnchors; }
  absl::Status Learn(OffsetLesson) override { return absl::UnavailableError("away"); }
  std::unique_ptr<OffsetCall> Ask(OffsetQuestion) override {
    class Call final : public OffsetCall {
      absl::StatusOr<OffsetAnswer> Wait() override { return absl::UnavailableError("away"); }
      void Cancel() override {}
    };
    return std::make_unique<Call>();
  }
  void Activate(const offset::PoolName&, const OffsetAnswer&) override {}
};

TEST_P(KvcommTest, PoolsThatDoNotAnswerAreDense) {
  SilentPools pools;
  Kvcomm kvcomm(TenantSalt{}, Fingerprint{}, {}, pools);
  const auto prompt = MakePrompt(20, 15, 1);
  KvCache cache = Empty(*prompt);
  EXPECT_THAT(Apply(kvcomm, *prompt, cache),
              ::testing::ElementsAre(OffsetRefusal::kUnavailable, OffsetRefusal::kUnavailable));
  EXPECT_EQ(FromDense(*prompt, cache), 0);
  EXPECT_EQ(kvcomm.decisions()[static_cast<size_t>(OffsetRefusal::kUnavailable)], 2);
}

// What an audit found is a reason of its own, and the other placeholders go on.
TEST_P(KvcommTest, SuspendedPoolsAreDense) {
  OffsetAudit audit({.rate = 1.0, .probe_rate = 1.0});
  KvcommOptions options;
  options.gate.off = true;
  options.audit = &audit;
  Kvcomm& kvcomm = Make(options);
  Learn(kvcomm, *MakePrompt(20, 15, 1));
  const auto prompt = MakePrompt(20, 15, 2);
  KvCache cache = Empty(*prompt);
  auto decisions = kvcomm.Apply(*model_, prompt->prompt, cache);
  ASSERT_TRUE(decisions.ok());
  EXPECT_EQ((*decisions)[0].refusal, OffsetRefusal::kNone);
  EXPECT_TRUE((*decisions)[0].audit);
  for (int i = 0; i < 5; ++i) audit.Note((*decisions)[0].pool, {.kl = 3.0, .same_answer = false});
  KvCache again = Empty(*prompt);
  decisions = kvcomm.Apply(*model_, prompt->prompt, again);
  ASSERT_TRUE(decisions.ok());
  EXPECT_EQ((*decisions)[0].refusal, OffsetRefusal::kSuspended);
  EXPECT_TRUE((*decisions)[0].audit);  // a probe
  EXPECT_EQ((*decisions)[1].refusal, OffsetRefusal::kNone);
}

// One refused placeholder does not send the others to dense prefill.
TEST_P(KvcommTest, PlaceholdersAreDecidedOneByOne) {
  KvcommOptions options;
  options.gate.off = true;
  Kvcomm& kvcomm = Make(options);
  auto known = MakePrompt(20, 15, 1);
  known->prompt.segments[1].placeholder = "another";
  Learn(kvcomm, *known);
  const auto prompt = MakePrompt(20, 15, 2);
  KvCache cache = Empty(*prompt);
  EXPECT_THAT(Apply(kvcomm, *prompt, cache),
              ::testing::ElementsAre(OffsetRefusal::kNoPool, OffsetRefusal::kNone));
}

TEST_P(KvcommTest, ConcurrentLearningLosesNothing) {
  Kvcomm& kvcomm = Make();
  std::vector<std::unique_ptr<CpuDevice>> devices;
  std::vector<std::unique_ptr<Model>> models;
  for (int t = 0; t < 3; ++t) {
    devices.push_back(std::make_unique<CpuDevice>(1));
    models.push_back(
        MakeTestingModel(Architecture::kLlama, *devices[t], {.kv_dtype = DType::kF32}));
  }
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      Model& model = *models[t];
      for (int i = 0; i < 3; ++i) {
        const auto prompt = MakePrompt(10, 8, 10 * t + i);
        const DenseContext dense = *DenseContext::Compute(model, prompt->tokens);
        EXPECT_TRUE(kvcomm.Learn(model, prompt->prompt, dense).ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const char* placeholder : {"question", "message"}) {
    const offset::PoolName name{"mason", placeholder, offset::BaseKind::kCanonical};
    if (GetParam() == OffsetMethod::kAnchors) {
      EXPECT_EQ(made_.back()->pools.FindAnchors(name)->size(), 9);
    } else {
      EXPECT_EQ(made_.back()->pools.FindLinear(name)->runs(), 9);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Methods, KvcommTest,
                         ::testing::Values(OffsetMethod::kAnchors, OffsetMethod::kLinear),
                         [](const ::testing::TestParamInfo<OffsetMethod>& info) {
                           return info.param == OffsetMethod::kAnchors ? "anchors" : "linear";
                         });

class AnchorsTest : public KvcommTest {};
INSTANTIATE_TEST_SUITE_P(Methods, AnchorsTest, ::testing::Values(OffsetMethod::kAnchors));

TEST_P(AnchorsTest, ARequestThatMeetsItsOwnSingleAnchorGetsDenseKv) {
  Kvcomm& kvcomm = Make();
  const auto prompt = MakePrompt(20, 15, 1);
  Learn(kvcomm, *prompt);
  KvCache cache = Empty(*prompt);
  EXPECT_THAT(Apply(kvcomm, *prompt, cache),
              ::testing::ElementsAre(OffsetRefusal::kNone, OffsetRefusal::kNone));
  EXPECT_LT(FromDense(*prompt, cache), 1e-4);
  // Moved alone it is far from that.
  KvcommOptions moved_only;
  moved_only.filling_offset = moved_only.prefix_offset = false;
  Kvcomm& none = Make(moved_only);
  Learn(none, *prompt);
  KvCache moved = Empty(*prompt);
  Apply(none, *prompt, moved);
  EXPECT_GT(FromDense(*prompt, moved), 0.1);
}

// An anchor was measured at other positions: its offsets are turned there and back. The second
// filling's context is the same text, moved by a first filling of another length.
TEST_P(AnchorsTest, OffsetsMoveWithThePosition) {
  KvcommOptions options;
  options.gate.off = true;
  Kvcomm& kvcomm = Make(options);
  const auto longer = MakePrompt(30, 15, 1), shorter = MakePrompt(21, 15, 1);
  Learn(kvcomm, *longer);
  // To the left of where it was measured, by 9: a negative shift.
  KvCache cache = Empty(*shorter);
  EXPECT_THAT(Apply(kvcomm, *shorter, cache),
              ::testing::ElementsAre(OffsetRefusal::kNone, OffsetRefusal::kNone));
  // The first filling begins a known one, and what stands before it is the same: what it became
  // then it becomes now, for attention looks back only.
  const DenseContext dense = *DenseContext::Compute(*model_, shorter->tokens);
  const int64_t tokens = kRole + 21;
  for (int64_t layer = 0; layer < 3; ++layer) {
    const auto* a = reinterpret_cast<const float*>(
        dense.cache().PartSpan(layer, Component::kK, 0, tokens).data());
    const auto* b =
        reinterpret_cast<const float*>(cache.PartSpan(layer, Component::kK, 0, tokens).data());
    for (int64_t i = 0; i < tokens * 32; ++i) ASSERT_NEAR(a[i], b[i], 1e-4);
  }
}

TEST_P(AnchorsTest, AFillingLongerThanEveryAnchorIsDense) {
  KvcommOptions options;
  options.gate.off = true;
  Kvcomm& kvcomm = Make(options);
  Learn(kvcomm, *MakePrompt(20, 15, 1));
  const auto prompt = MakePrompt(21, 16, 2);
  KvCache cache = Empty(*prompt);
  EXPECT_THAT(Apply(kvcomm, *prompt, cache),
              ::testing::ElementsAre(OffsetRefusal::kTooLong, OffsetRefusal::kTooLong));
  EXPECT_EQ(FromDense(*prompt, cache), 0);
}

TEST_P(AnchorsTest, TheSameFillingBehindAnotherTextIsJudgedLikeAnyOther) {
  Kvcomm& kvcomm = Make();
  const auto prompt = MakePrompt(20, 15, 1);
  Learn(kvcomm, *prompt);
  const auto other = MakePrompt(20, 15, 1);
  other->tokens[kRole + 3] += 1;  // in the question: the message is the same
  KvCache cache = Empty(*other);
  EXPECT_THAT(Apply(kvcomm, *other, cache),
              ::testing::ElementsAre(OffsetRefusal::kFewRuns, OffsetRefusal::kFewRuns));
}

}  // namespace
}  // namespace kedge
