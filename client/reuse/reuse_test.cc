// Decisions, with rates and evidence made up.
#include "client/reuse/reuse.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace kedge {
namespace {

using Kind = FoundSegment::Kind;

FoundSegment Text(int64_t count) { return {.kind = Kind::kText, .count = count}; }
FoundSegment Joint(int64_t count) { return {.kind = Kind::kJoint, .count = count}; }
FoundSegment Prefix(int64_t count, Fidelity fidelity = Fidelity::kLossless) {
  return {.kind = Kind::kPrefix, .count = count, .fidelity = fidelity, .bytes = count * 100};
}
FoundSegment Filling(int64_t count, OffsetRefusal offsets, bool has_base = true) {
  return {.kind = Kind::kFilling, .count = count, .has_base = has_base, .offsets = offsets};
}

// A machine on which computing takes long.
ReuseRates Rates() {
  return {.layers = 8,
          .start = 1e-3,
          .token = 1e-3,
          .token_key = 1e-7,
          .place = 1e-6,
          .correct = 1e-5,
          .load_byte = 1e-9,
          .load_start = 1e-4};
}

ReuseRules Rules() {
  ReuseRules rules;
  rules.config = {.policy = RecomputePolicy::kCacheBlend, .check_layer = 2, .ratio = 0.15};
  rules.offsets_lost = 0.5;
  rules.recompute_lost = 1.5;
  return rules;
}

std::string Said(const ReuseDecision& decision) {
  std::string said;
  for (const SegmentDecision& segment : decision.segments) {
    if (!said.empty()) said += ' ';
    said += TreatmentName(segment.treatment);
    if (segment.why != WhyNot::kNone) said += std::string(":") + WhyNotName(segment.why);
    if (segment.why == WhyNot::kOffsets)
      said += std::string("/") + OffsetRefusalName(segment.offsets);
  }
  return said;
}

std::string Decided(const std::vector<FoundSegment>& found, const ReuseRules& rules = Rules(),
                    const ReuseRates& rates = Rates()) {
  const absl::StatusOr<ReuseDecision> decision = Decide(found, rules, rates);
  if (!decision.ok()) return std::string(decision.status().message());
  EXPECT_LE(decision->seconds, decision->dense_seconds);
  EXPECT_LE(decision->seconds, decision->exact_seconds);
  return Said(*decision);
}

const std::vector<FoundSegment>& Mixed() {
  static const auto* found =
      new std::vector<FoundSegment>{Prefix(64), Filling(60, OffsetRefusal::kNone),
                                    Joint(6),   Filling(60, OffsetRefusal::kPoolError),
                                    Joint(6),   Text(10)};
  return *found;
}

TEST(ReuseTest, ExactThenOffsetsThenRecompute) {
  EXPECT_EQ(Decided(Mixed()),
            "exact corrected corrected recomputed:offsets/pool_error dense:not_found "
            "dense:not_found");
}

TEST(ReuseTest, OnlyExactWhereItIsDemanded) {
  ReuseRules rules = Rules();
  rules.exact_only = true;
  EXPECT_EQ(Decided(Mixed(), rules),
            "exact dense:exact_demanded dense:not_found dense:exact_demanded dense:not_found "
            "dense:not_found");
  EXPECT_EQ(Decided({Prefix(64, Fidelity::kQuantized), Text(9)}, rules),
            "dense:lossy dense:not_found");
  EXPECT_EQ(Decided({Prefix(64, Fidelity::kQuantized), Text(9)}), "exact dense:not_found");
}

TEST(ReuseTest, TheProfileHasItsSay) {
  ReuseRules rules = Rules();
  rules.offsets = absl::FailedPreconditionError("no");
  EXPECT_EQ(Decided({Filling(60, OffsetRefusal::kNone), Text(9)}, rules),
            "recomputed:rules dense:not_found");
  rules.recompute = absl::FailedPreconditionError("no");
  EXPECT_EQ(Decided({Filling(60, OffsetRefusal::kNone), Text(9)}, rules),
            "dense:rules dense:not_found");
  rules.offsets = absl::OkStatus();
  EXPECT_EQ(Decided({Filling(60, OffsetRefusal::kNone), Text(9)}, rules),
            "corrected dense:not_found");
  EXPECT_EQ(Decided({Filling(60, OffsetRefusal::kEntropy), Text(9)}, rules),
            "dense:offsets/entropy dense:not_found");
}

TEST(ReuseTest, NothingWithoutABaseOrTokens) {
  EXPECT_EQ(Decided({Filling(60, OffsetRefusal::kNone, false), Joint(4), Text(9)}),
            "dense:no_base dense:not_found dense:not_found");
  EXPECT_EQ(Decided({Filling(0, OffsetRefusal::kEmpty), Text(9)}),
            "dense:not_found dense:not_found");
}

TEST(ReuseTest, NothingThatIsSlowerThanDense) {
  ReuseRates rates = Rates();
  rates.load_byte = 1;  // seconds
  EXPECT_EQ(Decided({Prefix(64), Text(9)}, Rules(), rates), "dense:slower dense:not_found");
  rates = Rates();
  rates.correct = 1;
  EXPECT_EQ(Decided({Filling(60, OffsetRefusal::kNone), Text(9)}, Rules(), rates),
            "recomputed:slower dense:not_found");
  ReuseRules rules = Rules();
  rules.config.check_layer = 7;
  rules.config.ratio = 0.95;
  rates.place = 1e-3;
  EXPECT_EQ(Decided({Filling(60, OffsetRefusal::kPoolError), Text(9)}, rules, rates),
            "dense:slower dense:not_found");
}

TEST(ReuseTest, CountsWhatItSays) {
  const absl::StatusOr<ReuseDecision> decision = Decide(Mixed(), Rules(), Rates());
  ASSERT_TRUE(decision.ok());
  EXPECT_EQ(decision->tokens(), 206);
  EXPECT_EQ(decision->tokens(Treatment::kExact), 64);
  EXPECT_EQ(decision->tokens(Treatment::kCorrected), 66);
  EXPECT_EQ(decision->tokens(Treatment::kRecomputed), 60);
  EXPECT_EQ(decision->reused_tokens(), 64 + 66 + 60 - 9);
  EXPECT_EQ(decision->points_lost, 1.5);
  EXPECT_EQ(decision->bytes_moved, 6400);
  EXPECT_EQ(decision->provenance(), Provenance::kRecomputed);
  ReuseRules unmeasured = Rules();
  unmeasured.offsets_lost.reset();
  EXPECT_FALSE(Decide(Mixed(), unmeasured, Rates())->points_lost.has_value());
  EXPECT_EQ(Decide(std::vector{Prefix(64), Text(3)}, unmeasured, Rates())->points_lost, 0.0);

  ReuseCounts counts;
  counts.Add(*decision);
  EXPECT_EQ(counts.tokens[static_cast<size_t>(Treatment::kCorrected)], 66u);
  EXPECT_EQ(counts.offsets[static_cast<size_t>(OffsetRefusal::kPoolError)], 1u);
  EXPECT_EQ(counts.why[static_cast<size_t>(WhyNot::kNotFound)], 2u);
}

TEST(ReuseTest, TravelsToOtherRanks) {
  const absl::StatusOr<ReuseDecision> decision = Decide(Mixed(), Rules(), Rates());
  ASSERT_TRUE(decision.ok());
  const std::vector<uint8_t> bytes = decision->Encode();
  const absl::StatusOr<ReuseDecision> other = ReuseDecision::Parse(bytes);
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_EQ(other->segments, decision->segments);
  EXPECT_EQ(other->points_lost, decision->points_lost);
  EXPECT_EQ(other->recompute.check_layer, 2);
  EXPECT_EQ(other->Encode(), bytes);
  for (size_t size = 0; size < bytes.size(); ++size)
    EXPECT_FALSE(ReuseDecision::Parse(std::span(bytes).first(size)).ok()) << size;
  std::vector<uint8_t> longer = bytes;
  longer.push_back(0);
  EXPECT_FALSE(ReuseDecision::Parse(longer).ok());
  std::vector<uint8_t> wrong = bytes;
  wrong.back() = 200;
  EXPECT_EQ(ReuseDecision::Parse(wrong).status().message(), "decision.segments.offsets: 200");
}

TEST(ReuseTest, RefusesWhatIsNoPrompt) {
  EXPECT_EQ(Decided({}), "found: has no segment");
  EXPECT_EQ(Decided({Text(-1)}), "found[0].count: -1 is negative");
  EXPECT_EQ(Decided({Text(1), Prefix(3)}), "found[1].kind: a prefix is the first segment");
  EXPECT_EQ(Decided({Text(1), Joint(3)}), "found[1].kind: no filling stands before this joint");
}

TEST(ReuseRulesTest, ALossyPolicyNeedsAProfileThatPassesIt) {
  const RecomputeConfig config{
      .policy = RecomputePolicy::kCacheBlend, .check_layer = 3, .ratio = 0.15};
  ReuseRules rules = ReuseRules::Of(nullptr, "kvcomm", config);
  EXPECT_EQ(rules.offsets.message(), "profile: 'kvcomm' may not be used for a model without one");
  EXPECT_FALSE(rules.recompute.ok());
  rules = ReuseRules::Of(nullptr, "kvcomm", config, true);
  EXPECT_TRUE(rules.offsets.ok() && rules.recompute.ok());
  EXPECT_FALSE(rules.offsets_lost.has_value());

  const ProfiledModel model{.weights_id = "w", .layers = 8, .kv_heads = 2, .head_size = 64};
  const std::vector<GateRecord> gate = {
      {.chain = "kvcomm", .task = "role", .points_lost = 0.5, .bar = 2, .passed = true},
      {.chain = "kvcomm", .task = kGateMean, .points_lost = 0.4, .bar = 1, .passed = true},
      {.chain = "cacheblend0.15@3", .task = "role", .points_lost = 38.5, .bar = 2},
      {.chain = "cacheblend0.15@3", .task = kGateMean, .points_lost = 9, .bar = 1}};
  const absl::StatusOr<ModelProfile> profile = ModelProfile::Make(model, {}, gate);
  ASSERT_TRUE(profile.ok()) << profile.status();
  rules = ReuseRules::Of(&*profile, "kvcomm", config, true);
  EXPECT_TRUE(rules.offsets.ok());
  EXPECT_EQ(rules.offsets_lost, 0.4);
  EXPECT_FALSE(rules.recompute.ok()) << "measured, and did not pass: no word helps";
  EXPECT_NE(rules.recompute.message().find("cacheblend0.15@3"), std::string::npos);
  EXPECT_NE(rules.recompute.message().find("9.00"), std::string::npos) << rules.recompute;
}

TEST(RecomputeNameTest, IsTheProfiles) {
  EXPECT_EQ(RecomputeName({.policy = RecomputePolicy::kDhd, .check_layer = 1, .ratio = 0.05}),
            "dhd0.05@1");
  EXPECT_EQ(RecomputeName({.policy = RecomputePolicy::kEpic, .epic_tokens = 4}), "epic4");
  EXPECT_EQ(RecomputeName({.policy = RecomputePolicy::kNone}), "none");
}

}  // namespace
}  // namespace kedge
