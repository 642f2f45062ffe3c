#include "client/reuse/offset_gate.h"

#include <cmath>
#include <limits>
#include <set>
#include <string>

#include "gtest/gtest.h"

namespace kedge {
namespace {

// What the gate accepts, at its limits.
OffsetEvidence Good() {
  OffsetEvidence evidence{.runs = 8, .longest = 40, .eligible = 6, .nearest = 0.5};
  evidence.error = {.predicted = 8, .filling = 0.1, .filling_worst = 0.1};
  return evidence;
}

OffsetRefusal Verdict(const OffsetEvidence& evidence, OffsetGateOptions options = {}) {
  return Judge(evidence, 30, options);
}

TEST(OffsetGate, EachReasonHasItsOwnName) {
  EXPECT_EQ(Verdict(Good()), OffsetRefusal::kNone);
  EXPECT_EQ(Judge(Good(), 0, {}), OffsetRefusal::kEmpty);
  OffsetEvidence evidence = Good();
  evidence.runs = 0;
  EXPECT_EQ(Verdict(evidence), OffsetRefusal::kNoPool);
  evidence = Good();
  evidence.runs = 2;
  EXPECT_EQ(Verdict(evidence), OffsetRefusal::kFewRuns);
  evidence = Good();
  evidence.longest = 29;
  EXPECT_EQ(Verdict(evidence), OffsetRefusal::kTooLong);
  evidence = Good();
  evidence.eligible = 1;
  EXPECT_EQ(Verdict(evidence), OffsetRefusal::kEntropy);
  evidence = Good();
  evidence.nearest = 1e9;
  EXPECT_EQ(Verdict(evidence), OffsetRefusal::kTooFar);
  evidence = Good();
  evidence.error.filling = 0.9;
  EXPECT_EQ(Verdict(evidence), OffsetRefusal::kPoolError);
}

TEST(OffsetGate, NamesAreApart) {
  std::set<std::string> names;
  for (int i = 0; i < kOffsetRefusals; ++i)
    names.insert(OffsetRefusalName(static_cast<OffsetRefusal>(i)));
  EXPECT_EQ(names.size(), kOffsetRefusals);
  EXPECT_FALSE(names.contains("unknown"));
}

TEST(OffsetGate, EntropyIsMeasuredAgainstAllAlike) {
  OffsetEvidence evidence = Good();
  const OffsetGateOptions options{.gamma = 0.3};
  evidence.entropy = 0.29 * std::log(6.0);
  EXPECT_EQ(Verdict(evidence, options), OffsetRefusal::kNone);
  evidence.entropy = 0.31 * std::log(6.0);
  EXPECT_EQ(Verdict(evidence, options), OffsetRefusal::kEntropy);
}

// A mean over many tokens hides the few that matter.
TEST(OffsetGate, FewBadTokensAreEnough) {
  OffsetEvidence evidence = Good();
  evidence.error.filling = 0.1;
  evidence.error.filling_worst = 50;
  EXPECT_EQ(Verdict(evidence), OffsetRefusal::kPoolError);
}

// A comparison with NaN is false: it must not accept.
TEST(OffsetGate, WhatIsNotANumberIsRefused) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  OffsetEvidence evidence = Good();
  evidence.entropy = nan;
  EXPECT_NE(Verdict(evidence), OffsetRefusal::kNone);
  evidence = Good();
  evidence.nearest = nan;
  EXPECT_NE(Verdict(evidence), OffsetRefusal::kNone);
  evidence = Good();
  evidence.error.filling = nan;
  EXPECT_NE(Verdict(evidence), OffsetRefusal::kNone);
}

TEST(OffsetGate, TheVerySameNeedsNoEvidence) {
  EXPECT_EQ(Verdict({.runs = 1, .same = true}), OffsetRefusal::kNone);
}

TEST(OffsetGate, OffAcceptsWhatCanBeCalculated) {
  OffsetEvidence evidence = Good();
  evidence.error.filling = 0.9;
  EXPECT_EQ(Verdict(evidence, {.off = true}), OffsetRefusal::kNone);
  evidence.longest = 3;
  EXPECT_EQ(Verdict(evidence, {.off = true}), OffsetRefusal::kTooLong);
}

}  // namespace
}  // namespace kedge
