// Donors are registered, found, struck and erased over frames.

#include <gtest/gtest.h>

#include "proto/near_messages.h"
#include "store/node/node_testing.h"

namespace kedge {
namespace {

NearDonor Donor(uint8_t fill) {
  NearDonor donor{.placement = 7, .begin = 256, .tokens = 256, .keyspace = Keyspace::kChunk};
  donor.key.bytes.fill(fill);
  return donor;
}

class NodeNearTest : public NodeTest {
 protected:
  static std::vector<ResultCode> Insert(TestClient& client, std::vector<NearInsertItem> items) {
    std::vector<uint8_t> body;
    EncodeNearInsert({std::move(items)}, body);
    NearInsertedBody inserted;
    const TestClient::Message reply = client.Ask(FrameType::kNearInsert, body);
    EXPECT_EQ(reply.header.type, FrameType::kNearInserted);
    EXPECT_TRUE(DecodeNearInserted(reply.body, inserted).ok());
    return inserted.codes;
  }
  static NearFoundBody Lookup(TestClient& client, std::vector<MatchId> ids) {
    std::vector<uint8_t> body;
    EncodeNearLookup({std::move(ids)}, body);
    NearFoundBody found;
    const TestClient::Message reply = client.Ask(FrameType::kNearLookup, body);
    EXPECT_EQ(reply.header.type, FrameType::kNearFound);
    EXPECT_TRUE(DecodeNearFound(reply.body, found).ok());
    return found;
  }
  static void Strike(TestClient& client, const NearDonor& donor) {
    std::vector<uint8_t> body;
    EncodeNearStrike({{donor.key}}, body);
    client.Send(FrameType::kNearStrike, body);
    client.Ping();
  }
};

TEST_F(NodeNearTest, WhatIsRegisteredIsFound) {
  Start();
  TestClient client(world_);
  EXPECT_TRUE(Lookup(client, {5, 6}).reply.hits.empty()) << "nothing was registered yet";
  EXPECT_EQ(Insert(client, {{Donor(1), {{5, 3}, {6, 0}}}, {Donor(2), {{6, 0}}}}),
            (std::vector<ResultCode>{ResultCode::kOk, ResultCode::kOk}));
  const NearFoundBody found = Lookup(client, {9, 5, 6});
  ASSERT_EQ(found.reply.donors.size(), 2u);
  EXPECT_EQ(found.reply.donors[0], Donor(1));
  ASSERT_EQ(found.reply.hits.size(), 3u);
  EXPECT_EQ(found.reply.hits[0], (NearHit{1, 0, 3}));
  EXPECT_EQ(found.left_out, 0u);
  EXPECT_EQ(world_.node->metrics().near_ids.load(), 5u);
  EXPECT_EQ(world_.node->metrics().near_hits.load(), 3u);
  EXPECT_EQ(world_.node->metrics().near_donors.load(), 2u);
  EXPECT_GT(world_.node->metrics().near_bytes.load(), 0u);
}

TEST_F(NodeNearTest, OneWrongDonorDoesNotTakeTheOthersWithIt) {
  Start();
  TestClient client(world_);
  NearDonor wide = Donor(2);
  wide.begin = UINT32_MAX;
  EXPECT_EQ(Insert(client, {{Donor(1), {{5, 0}}}, {wide, {{5, 0}}}}),
            (std::vector<ResultCode>{ResultCode::kOk, ResultCode::kInvalid}));
  EXPECT_EQ(Lookup(client, {5}).reply.donors.size(), 1u);
}

TEST_F(NodeNearTest, TwoStrikesOrARemovalTakeADonorOut) {
  Start();
  TestClient client(world_);
  const TestBlock block = MakeTestBlock(1);
  NearDonor held = Donor(1);
  held.key = block.header.key;
  ASSERT_EQ(client.Put(block), ResultCode::kOk);
  Insert(client, {{held, {{5, 0}}}, {Donor(2), {{6, 0}}}});
  Strike(client, Donor(2));
  EXPECT_EQ(Lookup(client, {6}).reply.hits.size(), 1u) << "once may be bad luck";
  Strike(client, Donor(2));
  EXPECT_TRUE(Lookup(client, {6}).reply.hits.empty());
  ASSERT_EQ(client.Remove(block), ResultCode::kOk);
  EXPECT_TRUE(Lookup(client, {5}).reply.hits.empty());
  EXPECT_EQ(world_.node->metrics().near_donors.load(), 0u);
}

TEST_F(NodeNearTest, AnAdministratorsRemovalTakesADonorOut) {
  Start();
  TestClient client(world_);
  const TestBlock block = MakeTestBlock(1);
  NearDonor held = Donor(1);
  held.key = block.header.key;
  ASSERT_EQ(client.Put(block), ResultCode::kOk);
  Insert(client, {{held, {{5, 0}}}});
  world_.node->Remove(block.header.key, /*force=*/true,
                      [](const absl::StatusOr<uint32_t>& removed) { EXPECT_EQ(*removed, 1u); });
  for (int i = 0; i < 1000 && world_.node->metrics().near_donors.load() > 0; ++i) client.Ping();
  EXPECT_TRUE(Lookup(client, {5}).reply.hits.empty());
}

TEST_F(NodeNearTest, AnAnswerThatIsTooLongSaysWhatItLeftOut) {
  Start();
  TestClient client(world_);
  std::vector<MatchId> ids;
  for (uint32_t i = 0; i < 3 * 500; ++i) ids.push_back(1000 + i);
  for (uint32_t batch = 0; batch < 6; ++batch) {
    std::vector<NearInsertItem> items(kNearItemsMax);
    for (uint32_t i = 0; i < kNearItemsMax; ++i) {
      const uint32_t number = batch * kNearItemsMax + i;
      items[i] = {Donor(1), {{ids[number % ids.size()], 0}}};
      items[i].donor.key.bytes[0] = static_cast<uint8_t>(number);
      items[i].donor.key.bytes[1] = static_cast<uint8_t>(number >> 8);
    }
    Insert(client, std::move(items));
  }
  const NearFoundBody found = Lookup(client, ids);
  EXPECT_EQ(found.reply.donors.size(), kNearDonorsMax);
  EXPECT_GT(found.left_out, 0u);
  for (const NearHit& hit : found.reply.hits) EXPECT_LT(hit.donor, kNearDonorsMax);
}

TEST_F(NodeNearTest, ANodeWithoutAnIndexSaysSo) {
  world_.options.near_donors_max = 0;
  Start();
  TestClient client(world_);
  EXPECT_EQ(Insert(client, {{Donor(1), {{5, 0}}}}), std::vector<ResultCode>{ResultCode::kDenied});
  EXPECT_TRUE(Lookup(client, {5}).reply.hits.empty());
}

TEST_F(NodeNearTest, GarbageIsRefusedByName) {
  Start();
  TestClient client(world_);
  const TestClient::Message reply = client.Ask(FrameType::kNearLookup, {1, 0, 0, 0});
  EXPECT_EQ(reply.header.type, FrameType::kError);
  ErrorBody error;
  ASSERT_TRUE(DecodeError(reply.body, error).ok());
  EXPECT_NE(error.text.find("near_lookup.ids"), std::string::npos) << error.text;
  client.Send(FrameType::kNearStrike, {9});
  client.Ping();
}

}  // namespace
}  // namespace kedge
