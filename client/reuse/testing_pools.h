// Lessons and questions that can be made again, and the comparison of two kinds of pools: for
// tests.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "client/reuse/offset_pools.h"
#include "gpu/offset/testing_rows.h"

namespace kedge {

inline TenantSalt TestingSalt() { return *TenantSalt::FromText("pools"); }

// Rows are of three layers of width 8, prefixes of two tokens.
inline offset::Anchor TestingAnchor(const offset::PoolName& pool, int64_t tokens, uint32_t seed) {
  offset::Anchor anchor = offset::RandomAnchor(tokens, 2, seed);
  const std::vector<int32_t> filling = {static_cast<int32_t>(seed)};
  anchor.key = offset::AnchorKey(TestingSalt(), Fingerprint{}, pool, filling);
  anchor.context_digest = seed + 70;
  return anchor;
}

inline OffsetLesson TestingLesson(const offset::PoolName& pool, int64_t tokens, uint32_t seed) {
  return {.pool = pool, .anchor = TestingAnchor(pool, tokens, seed)};
}

inline OffsetQuestion TestingQuestion(const offset::PoolName& pool, int64_t tokens, uint32_t seed) {
  const offset::Anchor filling = TestingAnchor(pool, tokens, seed);
  return {.pool = pool,
          .shape = AnchorShape::Of(filling),
          .key = filling.key,
          .context_digest = filling.context_digest,
          .sketch = filling.sketch,
          .mix = {.sharpness = 5.0}};
}

// To the bit.
inline void ExpectSameAnswer(OffsetPools& one, OffsetPools& other, const OffsetQuestion& question) {
  const absl::StatusOr<OffsetAnswer> a = one.Mix(question), b = other.Mix(question);
  ASSERT_TRUE(a.ok()) << a.status();
  ASSERT_TRUE(b.ok()) << b.status();
  EXPECT_EQ(a->refusal, b->refusal);
  EXPECT_EQ(a->evidence.runs, b->evidence.runs);
  EXPECT_EQ(a->evidence.longest, b->evidence.longest);
  EXPECT_EQ(a->evidence.eligible, b->evidence.eligible);
  EXPECT_EQ(a->evidence.same, b->evidence.same);
  EXPECT_EQ(a->evidence.linear, b->evidence.linear);
  EXPECT_EQ(a->evidence.entropy, b->evidence.entropy);
  EXPECT_EQ(a->evidence.nearest, b->evidence.nearest);
  EXPECT_EQ(a->evidence.error.predicted, b->evidence.error.predicted);
  EXPECT_EQ(a->evidence.error.filling, b->evidence.error.filling);
  EXPECT_EQ(a->evidence.error.filling_worst, b->evidence.error.filling_worst);
  EXPECT_EQ(a->evidence.error.prefix, b->evidence.error.prefix);
  EXPECT_EQ(a->evidence.error.prefix_worst, b->evidence.error.prefix_worst);
  EXPECT_EQ(a->has_rows, b->has_rows);
  EXPECT_EQ(a->active, b->active);
  EXPECT_EQ(a->filling.keys, b->filling.keys);
  EXPECT_EQ(a->filling.values, b->filling.values);
  EXPECT_EQ(a->prefix.keys, b->prefix.keys);
  EXPECT_EQ(a->prefix.values, b->prefix.values);
}

// Questions of all kinds: of known fillings, of new ones, of too long ones, by each weighting.
inline void ExpectSamePools(OffsetPools& one, OffsetPools& other, const offset::PoolName& pool) {
  for (const uint32_t seed : {0u, 1u, 7u, 900u, 901u}) {
    for (const int64_t tokens : {4, 5, 60}) {
      OffsetQuestion question = TestingQuestion(pool, tokens, seed);
      ExpectSameAnswer(one, other, question);
      question.mix.weighting = offset::Weighting::kToken;
      ExpectSameAnswer(one, other, question);
      question.max_error = 1e-6;
      ExpectSameAnswer(one, other, question);
    }
  }
}

// The same requests to both: learning, asking, using.
inline void Serve(OffsetPools& one, OffsetPools& other, const offset::PoolName& pool,
                  uint32_t first, uint32_t count) {
  for (uint32_t seed = first; seed < first + count; ++seed) {
    const OffsetQuestion question = TestingQuestion(pool, 4, seed + 5000);
    for (OffsetPools* pools : {&one, &other}) {
      const absl::StatusOr<OffsetAnswer> answer = pools->Mix(question);
      ASSERT_TRUE(answer.ok()) << answer.status();
      if (answer->has_rows) pools->Activate(pool, *answer);
      const absl::Status s = pools->Learn(TestingLesson(pool, 4 + seed % 3, seed));
      ASSERT_TRUE(s.ok()) << s;
    }
  }
}

}  // namespace kedge
