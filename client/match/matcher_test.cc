#include "client/match/matcher.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "client/match/memory_nodes.h"
#include "store/world/random.h"

namespace kedge::match {
namespace {

using Tokens = std::vector<int32_t>;
constexpr uint32_t kBlock = 64;

Tokens RandomTokens(size_t count, Random& random) {
  Tokens tokens(count);
  for (int32_t& token : tokens) token = static_cast<int32_t>(random.Below(30000));
  return tokens;
}
Tokens Joined(std::initializer_list<Tokens> parts) {
  Tokens all;
  for (const Tokens& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}
// Each token replaced with probability 0.1, one inserted, one deleted.
Tokens Changed(Tokens tokens, Random& random) {
  for (int32_t& token : tokens) {
    if (random.Chance(0.1)) token = static_cast<int32_t>(random.Below(30000));
  }
  tokens.insert(tokens.begin() + random.Below(tokens.size()), 29999);
  tokens.erase(tokens.begin() + random.Below(tokens.size()));
  return tokens;
}

class MatcherTest : public testing::Test {
 protected:
  TenantSalt Salt(std::string_view text) const { return *TenantSalt::FromText(text); }
  void AddChunk(const Tokens& tokens, std::string_view salt = "a", Tokens leading = {}) {
    for (const Registration& made :
         Registrations(tokens, kBlock, ChunkChain(Salt(salt), model_, {leading}), Keyspace::kChunk,
                       MatchKeys(Salt(salt), model_))) {
      nodes_.Add(made);
    }
  }
  std::vector<Registration> AddPrompt(const Tokens& tokens, std::string_view salt = "a") {
    auto all = Registrations(tokens, kBlock, KeyChain(Salt(salt), model_), Keyspace::kPrefix,
                             MatchKeys(Salt(salt), model_));
    for (const Registration& made : all) nodes_.Add(made);
    return all;
  }
  HybridPlan Match(const Tokens& prompt, uint32_t prefix = 0, std::string_view salt = "a",
                   std::optional<TenantSalt> group = std::nullopt) {
    const Matcher matcher(Salt(salt), model_, {}, {.block_tokens = kBlock}, group);
    const HybridPlan plan = matcher.Match(prompt, prefix, nodes_);
    EXPECT_EQ(plan.rows.size(), prompt.size());
    return plan;
  }

  Fingerprint model_;
  Random random_{21};
  MemoryNodes nodes_{3, {.donors_max = 1000, .postings_max = 100000}};
};

TEST_F(MatcherTest, EmptyAndShortPromptsHavePlansWithoutDonors) {
  AddChunk(RandomTokens(256, random_));
  for (size_t count : {0, 1, 3, 4, 15, 16, 63, 64}) {
    EXPECT_EQ(Match(RandomTokens(count, random_)).reused(), 0u);
  }
  EXPECT_EQ(Match({}).requests, 0u);
}

TEST_F(MatcherTest, AChunkIsFoundExactlyAtAnyOffsetWithoutItsText) {
  const Tokens chunk = RandomTokens(320, random_);
  AddChunk(chunk);
  nodes_.texts.clear();
  for (size_t offset : {0, 1, 31, 64, 77}) {
    const Tokens prompt = Joined({RandomTokens(offset, random_), chunk, RandomTokens(50, random_)});
    const HybridPlan plan = Match(prompt);
    ASSERT_EQ(plan.Segments().size(), 1u) << offset;
    const Segment segment = plan.Segments()[0];
    EXPECT_TRUE(segment.exact);
    EXPECT_EQ(segment.prompt, offset);
    EXPECT_EQ(segment.row, 0u);
    EXPECT_EQ(segment.tokens, 320u);
    const PlanDonor& donor = plan.donors[0];
    ASSERT_EQ(donor.links.size(), 5u);
    const auto links = ChunkChain(Salt("a"), model_, {}).Links(chunk, kBlock);
    for (int i = 0; i < 5; ++i) EXPECT_EQ(donor.links[i].key, links[i].key);
  }
}

TEST_F(MatcherTest, ChunksMayMoveAndOneRequestGoesToEachNode) {
  const Tokens a = RandomTokens(256, random_), b = RandomTokens(128, random_);
  AddChunk(a);
  AddChunk(b);
  const HybridPlan plan =
      Match(Joined({b, RandomTokens(9, random_), a, RandomTokens(40, random_), b, {1, 2, 3}}));
  const auto segments = plan.Segments();
  ASSERT_EQ(segments.size(), 3u);
  for (const Segment& segment : segments) EXPECT_TRUE(segment.exact);
  EXPECT_EQ(plan.reused(), 512u);
  EXPECT_EQ(nodes_.lookups, 1u);
  EXPECT_EQ(nodes_.text_reads, 0u);
  EXPECT_LE(plan.requests, 3u);
}

TEST_F(MatcherTest, AChunkOfAnotherRecipeIsNotExactNorUsed) {
  const Tokens chunk = RandomTokens(256, random_);
  AddChunk(chunk, "a", {1, 2});
  const HybridPlan plan = Match(Joined({chunk, {1, 2, 3}}));
  EXPECT_EQ(plan.reused(), 0u);
  EXPECT_GT(plan.exact_refused, 0u);
  EXPECT_GT(plan.texts_refused, 0u);
}

TEST_F(MatcherTest, TheMiddleOfADonorIsFoundByShiftedRuns) {
  const Tokens prompt = RandomTokens(600, random_);
  const auto registered = AddPrompt(prompt);
  const Tokens part(prompt.begin() + 290, prompt.begin() + 345);  // holds no whole block
  const HybridPlan plan = Match(Joined({RandomTokens(70, random_), part, {1, 2, 3}}));
  ASSERT_EQ(plan.Segments().size(), 1u);
  const Segment segment = plan.Segments()[0];
  EXPECT_FALSE(segment.exact);
  EXPECT_EQ(segment.prompt, 70u);
  EXPECT_EQ(segment.tokens, 55u);
  const PlanDonor& donor = plan.donors[segment.donor];
  EXPECT_EQ(donor.donor.keyspace, Keyspace::kPrefix);
  EXPECT_EQ(donor.first_token + segment.row, 290u);
  EXPECT_EQ(donor.donor, registered[1].donor);
}

TEST_F(MatcherTest, ChangedWordsAreFoundByBands) {
  int found = 0;
  const int rounds = 100;
  for (int round = 0; round < rounds; ++round) {
    const Tokens donor = RandomTokens(256, random_);
    AddPrompt(donor);
    const HybridPlan plan = Match(Joined({RandomTokens(500 + random_.Below(64), random_),
                                          Changed(donor, random_), RandomTokens(300, random_)}));
    found += plan.reused() > 100;
  }
  EXPECT_GE(found, 95);
}

TEST_F(MatcherTest, ThePrefixIsLeftAlone) {
  const Tokens chunk = RandomTokens(256, random_);
  AddChunk(chunk);
  const HybridPlan plan = Match(Joined({chunk, RandomTokens(40, random_)}), 128);
  for (uint32_t i = 0; i < plan.rows.size(); ++i) {
    EXPECT_EQ(plan.rows[i].donor != kNoDonor, i >= 128 && i < 256) << i;
  }
  EXPECT_EQ(Match(chunk, 256).questions, 0u);
  EXPECT_EQ(Match(chunk, 100000).questions, 0u);
}

TEST_F(MatcherTest, TenantsDoNotMeetExceptInTheirGroupAndThereWithChunksOnly) {
  const Tokens chunk = RandomTokens(256, random_), text = RandomTokens(256, random_);
  const Tokens prompt = Joined({text, chunk, {1, 2, 3}});
  AddChunk(chunk, "b");
  AddPrompt(text, "b");
  EXPECT_EQ(Match(prompt, 0, "a").hits, 0u);
  EXPECT_EQ(Match(prompt, 0, "b").reused(), 512u);
  // A member of the group that registers a prompt under its salt is not listened to.
  AddChunk(chunk, "group");
  AddPrompt(text, "group");
  const HybridPlan plan = Match(prompt, 0, "a", Salt("group"));
  EXPECT_EQ(plan.reused(), 256u);
  EXPECT_TRUE(plan.donors.at(0).group);
  EXPECT_EQ(plan.donors[0].donor.keyspace, Keyspace::kChunk);
  EXPECT_GT(plan.hits_malformed, 0u);
}

TEST_F(MatcherTest, TheSameQuestionsOfTwoTenantsHaveNoIdInCommon) {
  const Tokens prompt = RandomTokens(1000, random_);
  Match(prompt, 0, "a");
  const std::set<MatchId> first = std::move(nodes_.asked);
  nodes_.asked.clear();
  Match(prompt, 0, "b");
  for (MatchId id : nodes_.asked) EXPECT_EQ(first.count(id), 0u);
}

TEST_F(MatcherTest, AFailedNodeAndEvictedDonorsAreMisses) {
  const Tokens donor = RandomTokens(256, random_);
  const auto registered = AddPrompt(donor);
  const Tokens prompt = Joined({RandomTokens(3, random_), donor, {1, 2, 3}});
  EXPECT_EQ(Match(prompt).reused(), 256u);
  nodes_.failed_node = 1;
  EXPECT_EQ(Match(prompt).nodes_failed, 1u);
  nodes_.failed_node = UINT32_MAX;
  nodes_.texts.clear();
  const HybridPlan plan = Match(prompt);
  EXPECT_EQ(plan.reused(), 0u);
  EXPECT_EQ(plan.texts_missing, 1u);
  ASSERT_EQ(plan.stale.size(), 1u);
  EXPECT_EQ(plan.stale[0], registered[0].donor);
}

TEST_F(MatcherTest, ADonorThatClaimsOtherTokensIsRefused) {
  const Tokens donor = RandomTokens(256, random_);
  const auto registered = AddPrompt(donor);
  const MatchKeys keys(Salt("a"), model_);
  DonorText lie{.tokens = donor};
  lie.tokens[100] += 1;
  auto bytes = EncodeDonorText(lie);
  keys.CipherText(registered[0].donor.key, bytes);
  nodes_.texts[registered[0].text_name] = bytes;
  const Tokens prompt = Joined({RandomTokens(3, random_), donor, {1, 2, 3}});
  HybridPlan plan = Match(prompt);
  EXPECT_EQ(plan.reused(), 0u);
  EXPECT_EQ(plan.texts_refused, 1u);
  nodes_.texts[registered[0].text_name] = {1, 2, 3};
  EXPECT_EQ(Match(prompt).texts_refused, 1u);
}

// Windows of a text lead to the donor of another one, with any extents.
TEST_F(MatcherTest, PoisonedPostingsAreHarmless) {
  const Tokens other = RandomTokens(256, random_), wanted = RandomTokens(256, random_);
  const MatchKeys keys(Salt("a"), model_);
  auto made =
      Registrations(other, kBlock, ChunkChain(Salt("a"), model_, {}), Keyspace::kChunk, keys)[0];
  made.postings = DonorPostings(wanted, kBlock, keys);
  for (uint32_t tokens : {64u, 256u, 100u, 1u << 20}) {
    for (uint32_t begin : {0u, 64u, 1u << 29}) {
      made.donor.key.bytes[0] += 1;
      made.donor.tokens = tokens;
      made.donor.begin = begin;
      nodes_.Add(made);
    }
  }
  AddChunk(wanted);
  const Tokens prompt = Joined({RandomTokens(300, random_), wanted, {1, 2, 3}});
  const HybridPlan plan = Match(prompt);
  EXPECT_EQ(plan.reused(), 256u);
  ASSERT_EQ(plan.Segments().size(), 1u);
  EXPECT_TRUE(plan.Segments()[0].exact);
}

// A node that answers what it likes.
class HostileNodes final : public MatchNodes {
 public:
  uint32_t NodeOf(uint64_t placement) const override { return placement % 2; }
  void Lookup(std::span<LookupRequest> requests) override {
    for (LookupRequest& request : requests) {
      for (int i = 0; i < 20; ++i) {
        NearDonor donor{.placement = random.Next(),
                        .begin = static_cast<uint32_t>(random.Next() >> random.Below(64)),
                        .tokens = static_cast<uint32_t>(random.Next() >> random.Below(64)),
                        .keyspace = static_cast<Keyspace>(random.Below(5))};
        if (random.Chance(0.5)) donor.tokens = kBlock, donor.begin = kBlock * random.Below(4);
        donor.key.bytes[3] = static_cast<uint8_t>(random.Next());
        request.reply.donors.push_back(donor);
      }
      for (size_t i = 0; i < 8 * request.ids.size(); ++i) {
        request.reply.hits.push_back({static_cast<uint32_t>(random.Below(request.ids.size() + 9)),
                                      static_cast<uint32_t>(random.Below(22)),
                                      static_cast<uint8_t>(random.Next())});
      }
    }
  }
  void ReadTexts(std::span<TextRequest> requests) override {
    for (TextRequest& request : requests) {
      request.texts.resize(random.Below(2 * request.names.size()));
      for (auto& text : request.texts) text.resize(random.Below(400), 7);
    }
  }
  Random random{99};
};

TEST_F(MatcherTest, AHostileNodeGivesNoRows) {
  HostileNodes hostile;
  const Matcher matcher(Salt("a"), model_, {}, {.block_tokens = kBlock});
  for (int round = 0; round < 20; ++round) {
    const HybridPlan plan = matcher.Match(RandomTokens(500, random_), 0, hostile);
    EXPECT_EQ(plan.reused(), 0u);
    EXPECT_GT(plan.hits_malformed, 0u);
  }
}

}  // namespace
}  // namespace kedge::match
