#include "client/reuse/audit.h"

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace kedge {
namespace {

const offset::PoolName kPool{"mason", "question", offset::BaseKind::kCanonical};
const offset::PoolName kOther{"mason", "message", offset::BaseKind::kCanonical};
constexpr AuditOutcome kGood{.kl = 0.01, .same_answer = true};
constexpr AuditOutcome kBad{.kl = 2.0, .same_answer = false};

// Audits until it is suspended; `most` when it never is.
int AuditsUntilSuspended(double bad_share, uint32_t seed, int most) {
  OffsetAudit audit;
  std::mt19937 random(seed);
  std::bernoulli_distribution bad(bad_share);
  for (int i = 0; i < most; ++i) {
    audit.Note(kPool, bad(random) ? kBad : kGood);
    if (!audit.StateOf(kPool).trusted) return i + 1;
  }
  return most;
}

TEST(OffsetAudit, AuditsTheShareThatWasAskedFor) {
  for (const double rate : {0.0, 0.02, 0.05, 1.0}) {
    OffsetAudit audit({.rate = rate});
    int audits = 0;
    for (int i = 0; i < 20'000; ++i) {
      const AuditTurn turn = audit.Turn(kPool);
      EXPECT_TRUE(turn.trusted);
      audits += turn.audit;
    }
    EXPECT_NEAR(audits / 20'000.0, rate, 0.005);
    EXPECT_EQ(audit.StateOf(kPool).calls, 20'000u);
  }
}

// The choice follows from seed, pool and number: not from what other pools do in between.
TEST(OffsetAudit, ChoosesTheSameCallsAgain) {
  OffsetAudit alone({.rate = 0.3, .seed = 7}), mixed({.rate = 0.3, .seed = 7});
  OffsetAudit other_seed({.rate = 0.3, .seed = 8});
  bool differs_by_pool = false, differs_by_seed = false;
  for (int i = 0; i < 200; ++i) {
    const bool chosen = alone.Turn(kPool).audit;
    differs_by_pool = differs_by_pool || mixed.Turn(kOther).audit != chosen;
    differs_by_seed = differs_by_seed || other_seed.Turn(kPool).audit != chosen;
    EXPECT_EQ(mixed.Turn(kPool).audit, chosen);
  }
  EXPECT_TRUE(differs_by_pool);
  EXPECT_TRUE(differs_by_seed);
}

TEST(OffsetAudit, FindsWhatIsUnacceptableAndLeavesWhatIsTolerated) {
  double found = 0;
  int wrongly = 0;
  for (uint32_t seed = 0; seed < 200; ++seed) {
    const int audits = AuditsUntilSuspended(0.3, seed, 1000);
    EXPECT_LT(audits, 100) << seed;
    found += audits;
    wrongly += AuditsUntilSuspended(0.01, seed, 200) < 200;
  }
  EXPECT_LT(found / 200, 12);
  EXPECT_LT(wrongly, 200 * 0.05);
  for (uint32_t seed = 0; seed < 20; ++seed) EXPECT_EQ(AuditsUntilSuspended(0, seed, 1000), 1000);
}

// A long good past does not hide a change.
TEST(OffsetAudit, ForgetsAGoodPast) {
  OffsetAudit audit;
  for (int i = 0; i < 10'000; ++i) audit.Note(kPool, kGood);
  EXPECT_EQ(audit.StateOf(kPool).sum, 0);
  audit.Note(kPool, kBad);
  EXPECT_TRUE(audit.StateOf(kPool).trusted);
  audit.Note(kPool, kBad);
  EXPECT_FALSE(audit.StateOf(kPool).trusted);
}

TEST(OffsetAudit, SuspendsOnePoolAndTrustsItAgain) {
  OffsetAudit audit({.rate = 0.0, .probe_rate = 1.0});
  for (int i = 0; i < 50; ++i) audit.Note(kPool, kBad);
  AuditTurn turn = audit.Turn(kPool);
  EXPECT_FALSE(turn.trusted);
  EXPECT_TRUE(turn.audit);  // a probe
  EXPECT_TRUE(audit.Turn(kOther).trusted);
  int probes = 0;
  while (!audit.Turn(kPool).trusted && probes < 1000) {
    audit.Note(kPool, kGood);
    ++probes;
  }
  EXPECT_GT(probes, 10);
  EXPECT_LT(probes, 60);
  EXPECT_EQ(audit.StateOf(kPool).suspensions, 1u);
  EXPECT_EQ(audit.Total().audits, 50u + static_cast<uint64_t>(probes));
  EXPECT_EQ(audit.Total().bad, 50u);
}

TEST(OffsetAudit, ABadOutcomeIsAnotherAnswerOrAFarDistribution) {
  const auto bad = [](AuditOutcome outcome) {
    OffsetAudit audit;
    audit.Note(kPool, outcome);
    return audit.StateOf(kPool).bad == 1;
  };
  EXPECT_FALSE(bad({.kl = 0.1, .same_answer = true}));
  EXPECT_TRUE(bad({.kl = 0.11, .same_answer = true}));
  EXPECT_TRUE(bad({.kl = 0.0, .same_answer = false}));
  EXPECT_TRUE(bad({.kl = std::numeric_limits<double>::quiet_NaN(), .same_answer = true}));
}

TEST(CompareAnswers, MeasuresTheFirstToken) {
  const std::vector<float> a = {1, 2, 3}, shifted = {11, 12, 13}, other = {3, 2, 1};
  EXPECT_NEAR(CompareAnswers(a, shifted).kl, 0, 1e-6);
  EXPECT_TRUE(CompareAnswers(a, shifted).same_answer);
  EXPECT_FALSE(CompareAnswers(a, other).same_answer);
  // sum of p (log p - log q) with p = softmax(1, 2, 3): differences of logits are -2, 0, 2.
  const double z = std::exp(1.0) + std::exp(2.0) + std::exp(3.0);
  EXPECT_NEAR(CompareAnswers(a, other).kl, 2 * (std::exp(3.0) - std::exp(1.0)) / z, 1e-6);
  std::vector<float> broken = a;
  broken[1] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isinf(CompareAnswers(a, broken).kl));
  EXPECT_FALSE(CompareAnswers(a, broken).same_answer);
}

}  // namespace
}  // namespace kedge
