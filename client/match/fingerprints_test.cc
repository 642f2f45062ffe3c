#include "client/match/fingerprints.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "store/world/random.h"

namespace kedge::match {
namespace {

using Tokens = std::vector<int32_t>;

Tokens RandomTokens(size_t count, Random& random) {
  Tokens tokens(count);
  for (int32_t& token : tokens) token = static_cast<int32_t>(random.Next());
  return tokens;
}
MatchKeys Keys(std::string_view salt, uint8_t model = 1) {
  Fingerprint fingerprint;
  fingerprint.bytes.fill(model);
  return MatchKeys(*TenantSalt::FromText(salt), fingerprint);
}

TEST(RollingHashes, EqualHashesOfTheWindowAlone) {
  Random random(1);
  const uint64_t base = Keys("a").hash_base();
  const Tokens tokens = RandomTokens(300, random);
  for (uint32_t width : {1u, 4u, 64u, 300u}) {
    const auto hashes = RollingHashes(tokens, width, base);
    ASSERT_EQ(hashes.size(), tokens.size() - width + 1);
    for (size_t i = 0; i < hashes.size(); i += 7) {
      EXPECT_EQ(hashes[i], RollingHashes({tokens.data() + i, width}, width, base)[0]);
    }
  }
  EXPECT_TRUE(RollingHashes(tokens, 301, base).empty());
  EXPECT_TRUE(RollingHashes(tokens, 0, base).empty());
  EXPECT_TRUE(RollingHashes({}, 1, base).empty());
  // The order of tokens, and zeros, count.
  EXPECT_NE(RollingHashes(Tokens{1, 2}, 2, base), RollingHashes(Tokens{2, 1}, 2, base));
  EXPECT_NE(RollingHashes(Tokens{0, 1}, 2, base), RollingHashes(Tokens{0, 0, 1}, 3, base));
  EXPECT_NE(RollingHashes(Tokens{-1}, 1, base), RollingHashes(Tokens{0}, 1, base));
}

TEST(Minimizers, AreThoseOfEverySpan) {
  Random random(2);
  for (int round = 0; round < 50; ++round) {
    std::vector<uint64_t> hashes(random.Below(200));
    for (uint64_t& hash : hashes) hash = random.Below(round % 2 == 0 ? 5 : UINT64_MAX);
    const auto positions = Minimizers(hashes, 32, 9);
    EXPECT_TRUE(std::is_sorted(positions.begin(), positions.end()));
    EXPECT_EQ(std::adjacent_find(positions.begin(), positions.end()), positions.end());
    EXPECT_EQ(positions.empty(), hashes.empty());
    const std::set<uint32_t> found(positions.begin(), positions.end());
    std::set<uint32_t> want;  // each span by itself
    for (size_t i = 0; i + 32 <= hashes.size(); ++i) {
      want.insert(static_cast<uint32_t>(i) + Minimizers({hashes.data() + i, 32}, 32, 9).at(0));
    }
    if (hashes.size() >= 32) {
      EXPECT_EQ(found, want);
    }
  }
}

TEST(Minimizers, AnyRunOf47TokensIsSharedAtAnyShift) {
  Random random(3);
  const MatchKeys keys = Keys("a");
  for (int round = 0; round < 200; ++round) {
    Tokens donor = RandomTokens(256, random);
    Tokens prompt = RandomTokens(400, random);
    const uint32_t run = kMinimizerTokens + kMinimizerSpan - 1;
    std::copy_n(donor.begin() + random.Below(256 - run), run,
                prompt.begin() + random.Below(400 - run));
    std::set<MatchId> ids;
    for (const NearPosting& posting : DonorPostings(donor, 64, keys)) ids.insert(posting.id);
    const auto questions = PromptQuestions(prompt, 64, keys);
    EXPECT_TRUE(std::any_of(questions.begin(), questions.end(), [&](const Question& question) {
      return question.domain == MatchDomain::kMinimizer && ids.count(question.id) > 0;
    })) << round;
  }
}

TEST(Sketch, SharesValuesAsTextsShareShingles) {
  Random random(4);
  int equal = 0;
  const int rounds = 200;
  for (int round = 0; round < rounds; ++round) {
    std::vector<uint64_t> a(400), b;
    for (uint64_t& value : a) value = random.Next();
    b.assign(a.begin() + 100, a.end());  // Jaccard 300 / 500
    for (int i = 0; i < 100; ++i) b.push_back(random.Next());
    const Sketch left = SketchOf(a, 7), right = SketchOf(b, 7);
    for (uint32_t i = 0; i < kSketchValues; ++i) equal += left[i] == right[i];
  }
  EXPECT_NEAR(static_cast<double>(equal) / (rounds * kSketchValues), 0.6, 0.03);
}

TEST(Sketch, OfOneShingleIsFull) {
  const uint64_t one = 17;
  const Sketch sketch = SketchOf({&one, 1}, 7);
  EXPECT_EQ(std::count(sketch.begin(), sketch.end(), sketch[0]), kSketchValues);
  EXPECT_NE(sketch[0], UINT64_MAX);
}

TEST(PromptQuestions, ShortPromptsAskLittle) {
  const MatchKeys keys = Keys("a");
  EXPECT_TRUE(PromptQuestions({}, 64, keys).empty());
  EXPECT_TRUE(PromptQuestions(Tokens(3, 1), 64, keys).empty());
  for (const Question& question : PromptQuestions(Tokens{1, 2, 3, 4, 5, 6}, 64, keys)) {
    EXPECT_EQ(question.domain, MatchDomain::kBand);
    EXPECT_EQ(question.tokens, 6u);
  }
}

TEST(PromptQuestions, StayInsideThePromptAndARepeatedTokenAsksLittle) {
  const MatchKeys keys = Keys("a");
  Random random(5);
  for (uint32_t count : {64u, 255u, 256u, 257u, 1000u}) {
    for (const Question& question : PromptQuestions(RandomTokens(count, random), 64, keys)) {
      EXPECT_LE(question.position + question.tokens, count);
      EXPECT_GT(question.tokens, 0u);
    }
  }
  EXPECT_LT(PromptQuestions(Tokens(4096, 3), 64, keys).size(), 100u);
}

TEST(Isolation, NothingOfOneTenantOrModelIsDerivableByAnother) {
  Random random(6);
  const Tokens tokens = RandomTokens(512, random);
  const auto ids_of = [&](const MatchKeys& keys) {
    std::set<uint64_t> ids;
    for (const NearPosting& posting : DonorPostings(tokens, 64, keys)) ids.insert(posting.id);
    for (const Question& question : PromptQuestions(tokens, 64, keys)) ids.insert(question.id);
    return ids;
  };
  const auto own = ids_of(Keys("a"));
  EXPECT_EQ(own, ids_of(Keys("a")));
  EXPECT_GT(own.size(), 500u);
  for (const MatchKeys& other : {Keys("b"), Keys("a", 2)}) {
    for (uint64_t id : ids_of(other)) EXPECT_EQ(own.count(id), 0u);
    // Nor what stands before the ids: hashes, sketches, places of minimizers.
    const MatchKeys mine = Keys("a");
    const auto hashes = RollingHashes(tokens, 4, mine.hash_base());
    const auto others = RollingHashes(tokens, 4, other.hash_base());
    for (size_t i = 0; i < hashes.size(); ++i) EXPECT_NE(hashes[i], others[i]);
    const Sketch left = SketchOf(hashes, mine.order_seed());
    const Sketch right = SketchOf(hashes, other.order_seed());
    for (uint32_t i = 0; i < kSketchValues; ++i) EXPECT_NE(left[i], right[i]);
    EXPECT_NE(Minimizers(hashes, 32, mine.order_seed()),
              Minimizers(hashes, 32, other.order_seed()));
  }
}

}  // namespace
}  // namespace kedge::match
