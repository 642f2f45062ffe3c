#include "store/block/near_index.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "store/world/random.h"

namespace kedge {
namespace {

NearDonor Donor(uint32_t number, uint32_t begin = 0, uint32_t tokens = 256) {
  NearDonor donor{.placement = number, .begin = begin, .tokens = tokens};
  Random random(number + 1);
  for (uint8_t& byte : donor.key.bytes) byte = static_cast<uint8_t>(random.Next());
  return donor;
}

std::vector<NearPosting> Postings(uint32_t number, uint32_t count) {
  Random random(1000003 + number);
  std::vector<NearPosting> postings(count);
  for (NearPosting& posting : postings) {
    posting = {random.Next(), static_cast<uint8_t>(random.Below(256))};
  }
  return postings;
}

NearIndex Small() { return NearIndex({.donors_max = 100, .postings_max = 5000}); }

TEST(NearIndex, FindsWhatWasInserted) {
  NearIndex index = Small();
  for (uint32_t i = 0; i < 50; ++i) ASSERT_TRUE(index.Insert(Donor(i), Postings(i, 10)).ok());
  for (uint32_t i = 0; i < 50; ++i) {
    std::vector<MatchId> ids;
    for (const NearPosting& posting : Postings(i, 10)) ids.push_back(posting.id);
    ids.push_back(12345);
    const NearReply reply = index.Lookup(ids);
    ASSERT_EQ(reply.donors.size(), 1u);
    EXPECT_EQ(reply.donors[0], Donor(i));
    ASSERT_EQ(reply.hits.size(), 10u);
    for (uint32_t j = 0; j < 10; ++j) {
      EXPECT_EQ(reply.hits[j].question, j);
      EXPECT_EQ(reply.hits[j].donor, 0u);
      EXPECT_EQ(reply.hits[j].hint, Postings(i, 10)[j].hint);
    }
  }
  EXPECT_TRUE(index.Lookup({}).hits.empty());
}

TEST(NearIndex, BadDonorsAreRefusedByName) {
  NearIndex index = Small();
  const auto refused = [&](NearDonor donor, const char* field) {
    const absl::Status status = index.Insert(donor, Postings(1, 1));
    return !status.ok() && std::string(status.message()).find(field) != std::string::npos;
  };
  NearDonor donor = Donor(1);
  donor.key = BlockKey{};
  EXPECT_TRUE(refused(donor, "donor.key"));
  donor = Donor(1);
  donor.keyspace = Keyspace::kOpaque;
  EXPECT_TRUE(refused(donor, "donor.keyspace"));
  EXPECT_TRUE(refused(Donor(1, 0, 0), "donor.tokens"));
  EXPECT_TRUE(refused(Donor(1, 0, UINT32_MAX), "donor.tokens"));
  EXPECT_TRUE(refused(Donor(1, UINT32_MAX, 256), "donor.tokens"));
  EXPECT_EQ(index.donors(), 0u);
  ASSERT_TRUE(index.Insert(Donor(1), {}).ok());
  EXPECT_TRUE(refused(Donor(1, 256), "donor.tokens"));
  EXPECT_TRUE(index.Lookup(std::vector<MatchId>{Postings(1, 1)[0].id}).hits.empty());
  EXPECT_TRUE(index.Insert(Donor(1), Postings(1, 1)).ok());
  EXPECT_EQ(index.Lookup(std::vector<MatchId>{Postings(1, 1)[0].id}).hits.size(), 1u);
}

TEST(NearIndex, AnErasedDonorIsNeverFoundAgainAlsoWhenItsRecordIsUsedAgain) {
  NearIndex index({.donors_max = 4, .postings_max = 5000});
  for (uint32_t life = 0; life < 60; ++life) {  // generations come round after 63
    ASSERT_TRUE(index.Insert(Donor(life), Postings(life, 3)).ok());
    for (uint32_t old = 0; old <= life; ++old) {
      const NearReply reply = index.Lookup(std::vector<MatchId>{Postings(old, 3)[0].id});
      ASSERT_EQ(reply.hits.size(), old == life ? 1u : 0u);
    }
    index.Erase(Donor(life).key);
    index.Erase(Donor(life).key);
    ASSERT_EQ(index.donors(), 0u);
  }
}

TEST(NearIndex, TwoStrikesDropADonor) {
  NearIndex index = Small();
  ASSERT_TRUE(index.Insert(Donor(1), Postings(1, 1)).ok());
  index.Strike(Donor(2).key);
  index.Strike(Donor(1).key);
  EXPECT_TRUE(index.Contains(Donor(1).key));
  index.Strike(Donor(1).key);
  EXPECT_FALSE(index.Contains(Donor(1).key));
}

TEST(NearIndex, AtItsLimitTheDonorThatWasNotHitGoes) {
  NearIndex index({.donors_max = 10, .postings_max = 5000});
  for (uint32_t i = 0; i < 10; ++i) ASSERT_TRUE(index.Insert(Donor(i), Postings(i, 2)).ok());
  std::vector<MatchId> ids;
  for (uint32_t i = 0; i < 10; ++i) {
    if (i != 6) ids.push_back(Postings(i, 2)[0].id);
  }
  ASSERT_EQ(index.Lookup(ids).hits.size(), 9u);
  ASSERT_TRUE(index.Insert(Donor(10), Postings(10, 2)).ok());
  EXPECT_FALSE(index.Contains(Donor(6).key));
  EXPECT_EQ(index.donors(), 10u);
  EXPECT_EQ(index.donors_evicted(), 1u);
}

TEST(NearIndex, AWordOfManyTextsKeepsItsPlaceFromOthers) {
  NearIndex index = Small();
  for (uint32_t i = 0; i < 50; ++i) {
    ASSERT_TRUE(index.Insert(Donor(i), std::vector<NearPosting>{{77, 0}}).ok());
  }
  const NearReply reply = index.Lookup(std::vector<MatchId>{77, 77});
  ASSERT_EQ(reply.hits.size(), 2 * NearIndex::kPostingsOfIdMax);
  std::set<uint64_t> found;
  for (const NearDonor& donor : reply.donors) found.insert(donor.placement);
  EXPECT_EQ(found, (std::set<uint64_t>{46, 47, 48, 49}));  // the newest
}

TEST(NearIndex, MemoryIsBoundedWhateverIsInserted) {
  NearIndex index({.donors_max = 1000, .postings_max = 20000});
  size_t full = 0;
  for (uint32_t i = 0; i < 5000; ++i) {
    ASSERT_TRUE(index.Insert(Donor(i), Postings(i, 40)).ok());
    if (i == 1500) full = index.memory_bytes();
  }
  EXPECT_EQ(index.memory_bytes(), full);
  EXPECT_EQ(index.donors(), 1000u);
  EXPECT_GT(index.postings_dropped(), 0u);
}

TEST(NearIndex, FilledToItsLimitFewPostingsAreLost) {
  NearIndex index({.donors_max = 2000, .postings_max = 2000 * 32});
  for (uint32_t i = 0; i < 2000; ++i) ASSERT_TRUE(index.Insert(Donor(i), Postings(i, 32)).ok());
  EXPECT_LT(index.postings_dropped(), 2000u * 32 / 25);
}

// Against a map that forgets nothing: what is found was inserted, and is alive.
TEST(NearIndex, RandomLives) {
  Random random(5);
  NearIndex index({.donors_max = 64, .postings_max = 4096});
  std::map<uint32_t, bool> alive;
  for (int step = 0; step < 20000; ++step) {
    const uint32_t number = static_cast<uint32_t>(random.Below(50));
    switch (random.Below(3)) {
      case 0:
        ASSERT_TRUE(index.Insert(Donor(number), Postings(number, 8)).ok());
        alive[number] = true;
        break;
      case 1:
        index.Erase(Donor(number).key);
        alive[number] = false;
        break;
      default: {
        std::vector<MatchId> ids;
        for (const NearPosting& posting : Postings(number, 8)) ids.push_back(posting.id);
        const NearReply reply = index.Lookup(ids);
        for (const NearDonor& donor : reply.donors) ASSERT_EQ(donor, Donor(number));
        ASSERT_EQ(!reply.hits.empty(), alive[number]);
      }
    }
  }
}

}  // namespace
}  // namespace kedge
