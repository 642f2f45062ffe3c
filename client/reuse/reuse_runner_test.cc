// Identities: what is exact is dense to the bit, what meets its own anchor is dense to tolerance,
// and whatever goes wrong is dense.
#include "client/reuse/reuse_runner.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "client/reuse/local_pools.h"
#include "gpu/model/testing_model.h"

namespace kedge {
namespace {

constexpr int64_t kRole = 70, kFilling = 40, kJoint = 6;

// Any treatment is worth its while.
ReuseRates Rates() {
  return {.layers = 3, .token = 1.0, .token_key = 1e-6, .place = 1e-6, .correct = 1e-5};
}

ReuseOptions Options(double ratio = 0.2) {
  ReuseOptions options;
  options.rates = Rates();
  options.rules.config = {.policy = RecomputePolicy::kCacheBlend, .check_layer = 1, .ratio = ratio};
  options.offsets.gate.off = true;
  return options;
}

class ReuseRunnerTest : public testing::Test {
 protected:
  void SetUp() override {
    model_ = MakeTestingModel(Architecture::kLlama, device_, {.kv_dtype = DType::kF32});
    tokens_ = TestingPrompt(kRole + 2 * (kFilling + kJoint));
    prompt_ = {.consumer = "mason", .tokens = tokens_, .lead = 1};
    int64_t at = 0;
    const auto add = [&](const char* placeholder, int64_t count) {
      prompt_.segments.push_back({.filling = placeholder != nullptr,
                                  .placeholder = placeholder != nullptr ? placeholder : "",
                                  .first = at,
                                  .count = count});
      at += count;
    };
    add(nullptr, kRole);
    add("question", kFilling);
    add(nullptr, kJoint);
    add("message", kFilling);
    add(nullptr, kJoint);
    dense_ = std::make_unique<KvCache>(Empty());
    dense_logits_ = *model_->Prefill(tokens_, *dense_);
  }

  KvCache Empty() { return *model_->NewCache(static_cast<int64_t>(tokens_.size()) + 8); }
  // With the first `tokens` rows of a dense cache.
  KvCache WithPrefix(int64_t tokens) {
    return *model_->Fork(*dense_, tokens, static_cast<int64_t>(tokens_.size()) + 8);
  }
  double FromDense(const KvCache& cache, int64_t tokens) const {
    double largest = 0;
    for (int64_t layer = 0; layer < 3; ++layer) {
      for (const Component component : {Component::kK, Component::kV}) {
        const auto* a =
            reinterpret_cast<const float*>(dense_->PartSpan(layer, component, 0, tokens).data());
        const auto* b =
            reinterpret_cast<const float*>(cache.PartSpan(layer, component, 0, tokens).data());
        for (int64_t i = 0; i < tokens * 32; ++i)
          largest = std::max(largest, double{std::fabs(a[i] - b[i])});
      }
    }
    return largest;
  }
  void ExpectDense(const ReuseAnswer& answer) {
    EXPECT_EQ(FromDense(answer.kv.cache(), static_cast<int64_t>(tokens_.size())), 0);
    EXPECT_EQ(answer.logits.values, dense_logits_.values);
    EXPECT_LE(answer.kv.provenance().worst(), Provenance::kDense);
  }
  void Learn(ReuseRunner& reuse) {
    const absl::StatusOr<DenseContext> dense = DenseContext::Compute(*model_, tokens_);
    ASSERT_TRUE(dense.ok());
    const absl::Status s = reuse.Learn(*model_, prompt_, *dense);
    ASSERT_TRUE(s.ok()) << s;
  }
  static std::vector<Treatment> Treatments(const ReuseDecision& decision) {
    std::vector<Treatment> all;
    for (const SegmentDecision& segment : decision.segments) all.push_back(segment.treatment);
    return all;
  }

  CpuDevice device_{1};
  std::unique_ptr<Model> model_;
  std::vector<int32_t> tokens_;
  OffsetPrompt prompt_;
  std::unique_ptr<KvCache> dense_;
  Logits dense_logits_;
  LocalPools pools_;
};

constexpr auto kE = Treatment::kExact, kC = Treatment::kCorrected, kR = Treatment::kRecomputed,
               kD = Treatment::kDense;

TEST_F(ReuseRunnerTest, ExactDemandedIsDenseToTheBit) {
  ReuseOptions options = Options();
  options.rules.exact_only = true;
  ReuseRunner reuse({}, {}, options, pools_);
  Learn(reuse);
  for (const int64_t exact : {0, 64, 128}) {
    auto answer = reuse.Run(*model_, {.prompt = prompt_, .exact_tokens = exact}, WithPrefix(exact));
    ASSERT_TRUE(answer.ok()) << answer.status();
    ExpectDense(*answer);
    EXPECT_EQ(answer->decision.tokens(kE), exact);
    EXPECT_EQ(answer->kv.provenance().publishable_tokens(), 162);
    EXPECT_EQ(answer->bases_computed, 0) << "nothing is computed that may not be used";
  }
}

TEST_F(ReuseRunnerTest, AllExactStillGivesLogits) {
  ReuseRunner reuse({}, {}, Options(), pools_);
  const auto total = static_cast<int64_t>(tokens_.size());
  auto answer = reuse.Run(*model_, {.prompt = prompt_, .exact_tokens = total}, WithPrefix(total));
  ASSERT_TRUE(answer.ok()) << answer.status();
  ExpectDense(*answer);
}

TEST_F(ReuseRunnerTest, ItsOwnSingleAnchorGivesDenseKv) {
  ReuseRunner reuse({}, {}, Options(), pools_);
  Learn(reuse);
  // Behind nothing, behind a prefix, and behind one that ends inside the first filling.
  for (const int64_t exact : {0, 64, 80}) {
    auto answer = reuse.Run(*model_, {.prompt = prompt_, .exact_tokens = exact}, WithPrefix(exact));
    ASSERT_TRUE(answer.ok()) << answer.status();
    EXPECT_LT(FromDense(answer->kv.cache(), static_cast<int64_t>(tokens_.size())), 2e-5);
    EXPECT_EQ(answer->decision.tokens(kC),
              2 * (kFilling + kJoint) - std::max<int64_t>(0, exact - kRole));
    EXPECT_EQ(answer->decision.provenance(), Provenance::kCorrected);
    EXPECT_EQ(answer->kv.provenance().worst(), Provenance::kCorrected);
    EXPECT_LT(answer->operations, 0.6 * DenseOperations(model_->config(), 162));
    EXPECT_FALSE(answer->kv.ForStore(128).ok());
    EXPECT_TRUE(answer->kv.ForStore(64).ok());
  }
}

TEST_F(ReuseRunnerTest, RatioOneIsDenseToTheBit) {
  ReuseOptions options = Options(1.0);
  options.rules.offsets = absl::FailedPreconditionError("recompute only");
  options.rates.projection_share = 0;  // or it would be refused as slower
  options.rates.place = -1;
  ReuseRunner reuse({}, {}, options, pools_);
  auto answer = reuse.Run(*model_, {.prompt = prompt_}, Empty());
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(Treatments(answer->decision), (std::vector{kD, kR, kD, kR, kD}));
  EXPECT_EQ(FromDense(answer->kv.cache(), static_cast<int64_t>(tokens_.size())), 0);
  EXPECT_EQ(answer->logits.values, dense_logits_.values);
  EXPECT_FALSE(answer->kv.ForStore(128).ok()) << "the type does not know that it is dense";
}

TEST_F(ReuseRunnerTest, RatioZeroIsNone) {
  ReuseOptions options = Options(0.0);
  options.rules.offsets = absl::FailedPreconditionError("recompute only");
  ReuseRunner reuse({}, {}, options, pools_);
  auto answer = reuse.Run(*model_, {.prompt = prompt_}, Empty());
  ASSERT_TRUE(answer.ok()) << answer.status();
  KvCache none = Empty();
  for (const PromptSegment& segment : prompt_.segments) {
    const int64_t end = segment.first + segment.count;
    if (segment.filling) {
      const KvSpan span = *ComputeAlone(*model_, std::span(tokens_).first(1),
                                        std::span(tokens_).subspan(segment.first, segment.count));
      ASSERT_TRUE(PlaceSpan(*model_, span, segment.first, none).ok());
      none.set_length(end);
    } else {
      ASSERT_TRUE(model_->Prefill(std::span(tokens_).first(end), none).ok());
    }
  }
  for (int64_t layer = 0; layer < 3; ++layer) {
    for (const Component component : {Component::kK, Component::kV}) {
      const auto a = none.PartSpan(layer, component, 0, 162);
      const auto b = answer->kv.cache().PartSpan(layer, component, 0, 162);
      EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size()), 0) << layer;
    }
  }
}

// One segment corrected, the other recomputed, behind a prefix.
TEST_F(ReuseRunnerTest, SegmentsAreTreatedOneByOne) {
  ReuseOptions options = Options();
  ReuseRunner reuse({}, {}, options, pools_);
  OffsetPrompt other = prompt_;
  other.segments[3].placeholder = "another";
  const absl::StatusOr<DenseContext> dense = DenseContext::Compute(*model_, tokens_);
  ASSERT_TRUE(reuse.Learn(*model_, other, *dense).ok());
  auto answer = reuse.Run(*model_, {.prompt = prompt_, .exact_tokens = 64}, WithPrefix(64));
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(Treatments(answer->decision), (std::vector{kE, kD, kC, kC, kR, kD}));
  EXPECT_EQ(answer->decision.segments[4].why, WhyNot::kOffsets);
  EXPECT_EQ(answer->decision.segments[4].offsets, OffsetRefusal::kNoPool);
  EXPECT_LT(FromDense(answer->kv.cache(), kRole + kFilling + kJoint), 2e-5);
  EXPECT_EQ(answer->kv.provenance().At(kRole), Provenance::kCorrected);
  EXPECT_EQ(answer->kv.provenance().worst(), Provenance::kRecomputed);
  const ReuseCounts counts = reuse.counts();
  EXPECT_EQ(counts.segments[static_cast<size_t>(kC)], 2u);
  EXPECT_EQ(counts.offsets[static_cast<size_t>(OffsetRefusal::kNoPool)], 1u);
}

TEST_F(ReuseRunnerTest, WhatIsLostOnTheWayIsComputed) {
  ReuseRunner reuse({}, {}, Options(), pools_);
  Learn(reuse);
  // The bases were matched and are gone.
  ReuseInput input{.prompt = prompt_};
  input.base = [](const PromptSegment&) -> absl::StatusOr<std::shared_ptr<const KvSpan>> {
    return absl::UnavailableError("evicted");
  };
  auto answer = reuse.Run(*model_, input, Empty());
  ASSERT_TRUE(answer.ok()) << answer.status();
  ExpectDense(*answer);
  EXPECT_EQ(answer->decision.segments[1].why, WhyNot::kLost);
  // The prefix does not arrive: in the middle of what is approximate, and alone.
  for (const bool exact_only : {false, true}) {
    ReuseOptions options = Options();
    options.rules.exact_only = exact_only;
    ReuseRunner other({}, {}, options, pools_);
    ReuseInput late{.prompt = prompt_, .exact_tokens = 64};
    late.wait_for_layer = [](int64_t layer) {
      return layer == 2 ? absl::UnavailableError("gone") : absl::OkStatus();
    };
    auto lost = other.Run(*model_, late, WithPrefix(64));
    ASSERT_TRUE(lost.ok()) << lost.status();
    ExpectDense(*lost);
    EXPECT_EQ(lost->decision.segments[0].why, WhyNot::kLost);
    EXPECT_EQ(other.counts().why[static_cast<size_t>(WhyNot::kLost)], exact_only ? 1u : 5u);
  }
}

TEST_F(ReuseRunnerTest, RanksFollowOneDecision) {
  ReuseRunner first({}, {}, Options(), pools_);
  Learn(first);
  auto planned = first.Plan(*model_, {.prompt = prompt_});
  ASSERT_TRUE(planned.ok());
  const ReuseDecision decision = *ReuseDecision::Parse(planned->Encode());
  EXPECT_EQ(decision.tokens(kC), 2 * (kFilling + kJoint));
  // This one would have decided otherwise by itself.
  ReuseOptions options = Options();
  options.rates.correct = 1e9;
  ReuseRunner second({}, {}, options, pools_);
  auto alone = second.Run(*model_, {.prompt = prompt_}, Empty());
  EXPECT_EQ(alone->decision.tokens(kC), 0);
  auto answer = second.Run(*model_, {.prompt = prompt_}, Empty(), &decision);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->decision.segments, decision.segments);
  auto same = first.Run(*model_, {.prompt = prompt_}, Empty());
  EXPECT_EQ(answer->logits.values, same->logits.values);
  // And one that cannot follow says so.
  LocalPools nothing;
  ReuseRunner third({}, {}, options, nothing);
  EXPECT_EQ(third.Run(*model_, {.prompt = prompt_}, Empty(), &decision).status().message(),
            "decided: segment 1 cannot be corrected here");
}

TEST_F(ReuseRunnerTest, ReuseNowExactLater) {
  ReuseRunner reuse({}, {}, Options(), pools_);
  auto now = reuse.Run(*model_, {.prompt = prompt_}, Empty());
  ASSERT_TRUE(now.ok());
  EXPECT_FALSE(now->kv.ForStore(64 + 64).ok());
  auto later = reuse.ComputeExact(*model_, prompt_);
  ASSERT_TRUE(later.ok()) << later.status();
  EXPECT_TRUE(later->ForStore(162).ok());
  EXPECT_EQ(FromDense(later->cache(), 162), 0);
  auto again = reuse.Run(*model_, {.prompt = prompt_}, Empty());
  EXPECT_EQ(again->decision.tokens(kC), 2 * (kFilling + kJoint)) << "anchors were learnt as well";
}

TEST_F(ReuseRunnerTest, BasesMayBeComputedLater) {
  ReuseOptions options = Options();
  options.compute_bases = false;
  ReuseRunner reuse({}, {}, options, pools_);
  auto first = reuse.Run(*model_, {.prompt = prompt_}, Empty());
  ASSERT_TRUE(first.ok()) << first.status();
  ExpectDense(*first);
  EXPECT_EQ(first->bases_computed, 0);
  EXPECT_EQ(first->decision.segments[1].why, WhyNot::kNoBase);
  EXPECT_EQ(*reuse.ComputeBases(*model_, prompt_), 2 * kFilling);
  EXPECT_EQ(*reuse.ComputeBases(*model_, prompt_), 0);
  auto second = reuse.Run(*model_, {.prompt = prompt_}, Empty());
  EXPECT_EQ(second->decision.tokens(kR), 2 * kFilling);
}

TEST_F(ReuseRunnerTest, AuditsSuspendAndTrustAgain) {
  OffsetAudit audit({.rate = 1.0, .probe_rate = 1.0});
  ReuseOptions options = Options();
  options.rules.recompute = absl::FailedPreconditionError("offsets only");
  options.offsets.audit = &audit;
  ReuseRunner reuse({}, {}, options, pools_);
  Learn(reuse);
  // Answers that are those of dense KV.
  const ReuseInput input{.prompt = prompt_, .exact_tokens = 64};
  auto answer = reuse.Run(*model_, input, WithPrefix(64));
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->audits.size(), 2u);
  ASSERT_TRUE(reuse.Audit(*model_, input, *answer).ok());
  EXPECT_EQ(audit.Total().audits, 2u);
  EXPECT_EQ(audit.Total().bad, 0u);
  // Answers that are not.
  while (audit.Total().trusted) {
    ASSERT_LT(audit.Total().bad, 100u);
    audit.Note(answer->audits[0].pool, {.kl = 9});
  }
  auto suspended = reuse.Run(*model_, input, WithPrefix(64));
  ASSERT_TRUE(suspended.ok());
  EXPECT_EQ(suspended->decision.segments[2].why, WhyNot::kOffsets);
  EXPECT_EQ(suspended->decision.segments[2].offsets, OffsetRefusal::kSuspended);
  EXPECT_EQ(suspended->decision.segments[4].treatment, kC) << "the other one is trusted";
  EXPECT_TRUE(suspended->audits[0].probe);
  // Probes find that it answers as dense does.
  for (int i = 0; i < 200 && !audit.Total().trusted; ++i)
    ASSERT_TRUE(reuse.Audit(*model_, input, *suspended).ok());
  EXPECT_TRUE(audit.Total().trusted);
  EXPECT_EQ(reuse.Run(*model_, input, WithPrefix(64))->decision.segments[2].treatment, kC);
}

TEST_F(ReuseRunnerTest, RefusesWhatIsNoPrompt) {
  ReuseRunner reuse({}, {}, Options(), pools_);
  OffsetPrompt bad = prompt_;
  bad.segments.pop_back();
  EXPECT_EQ(reuse.Run(*model_, {.prompt = bad}, Empty()).status().message(),
            "prompt.segments: end at 156 of 162 tokens");
  EXPECT_EQ(
      reuse.Run(*model_, {.prompt = prompt_, .exact_tokens = 163}, Empty()).status().message(),
      "exact_tokens: 163 of 162");
  EXPECT_EQ(reuse.Run(*model_, {.prompt = prompt_}, *model_->NewCache(100)).status().message(),
            "cache: room for 100 of 162");
}

TEST_F(ReuseRunnerTest, MeasuredRatesArePositive) {
  const absl::StatusOr<ReuseRates> rates = MeasureReuseRates(*model_);
  ASSERT_TRUE(rates.ok()) << rates.status();
  EXPECT_GT(rates->token, 0);
  EXPECT_GT(rates->token_key, 0);
  EXPECT_GT(rates->place, 0);
  EXPECT_GT(rates->correct, rates->place);
  EXPECT_EQ(rates->layers, 3);
}

TEST(BaseCacheTest, KeepsWhatWasUsedLast) {
  CpuDevice device(1);
  const auto model = MakeTestingModel(Architecture::kLlama, device, {.kv_dtype = DType::kF32});
  const std::vector<int32_t> tokens = TestingPrompt(30);
  const auto part = [&](int64_t first) { return std::span(tokens).subspan(first, 10); };
  const std::span<const int32_t> lead = std::span(tokens).first(1);
  BaseCache bases(2 * 10 * 2 * 3 * 32 * 4);  // two of them
  const auto first = *bases.Get(*model, lead, part(0));
  ASSERT_TRUE(bases.Get(*model, lead, part(10)).ok());
  EXPECT_EQ(*bases.Get(*model, lead, part(0)), first);
  ASSERT_TRUE(bases.Get(*model, lead, part(20)).ok());
  EXPECT_EQ(bases.Find(lead, part(10)), nullptr);
  EXPECT_EQ(bases.Find(lead, part(0)), first);
  EXPECT_EQ(bases.Find({}, part(0)), nullptr) << "another lead is another base";
  EXPECT_EQ(bases.bytes(), 2 * 10 * 2 * 3 * 32 * 4);
  bases.Forget(lead, part(0));
  bases.Forget(lead, part(0));
  EXPECT_EQ(bases.Find(lead, part(0)), nullptr);
  EXPECT_EQ(bases.bytes(), 10 * 2 * 3 * 32 * 4);
}

}  // namespace
}  // namespace kedge
