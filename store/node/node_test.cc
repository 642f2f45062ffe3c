#include "store/node/node.h"

#include <gtest/gtest.h>

#include "store/node/node_testing.h"

namespace kedge {
namespace {

// --- Put, match, get ----------------------------------------------------------------------------

TEST_F(NodeTest, PutThenMatchThenGet) {
  Start();
  TestClient client(world_);
  const TestBlock block = MakeLayeredTestBlock(1);
  EXPECT_EQ(client.Get(block), ResultCode::kAbsent);
  EXPECT_EQ(client.Put(block), ResultCode::kOk);
  const MatchReplyBody reply = client.Match({&block});
  ASSERT_EQ(reply.items.size(), 1u);
  EXPECT_EQ(reply.items[0].code, ResultCode::kOk);
  EXPECT_EQ(reply.items[0].tier, TierId::kHost);
  EXPECT_EQ(reply.items[0].payload_bytes, block.payload.size());
  EXPECT_EQ(reply.lease, 0u);
  EXPECT_EQ(client.Get(block), ResultCode::kOk);
  EXPECT_EQ(client.Put(block), ResultCode::kExists);
}

TEST_F(NodeTest, LargeBlocksTravelInManyMessages) {
  Start();
  TestClient client(world_);
  const TestBlock block = MakeTestBlock(1, (9 << 20) + 13);
  const PutReadyItem ready = client.Begin({&block}).at(0);
  const std::span<const uint8_t> bytes = block.payload;
  for (size_t at = 0; at < bytes.size(); at += 1 << 20) {
    client.Chunk(ready.slot, at, bytes.subspan(at, std::min<size_t>(1 << 20, bytes.size() - at)));
  }
  EXPECT_EQ(client.Commit(ready.slot, block).code, ResultCode::kOk);
  EXPECT_EQ(client.Get(block), ResultCode::kOk);
}

TEST_F(NodeTest, ManyGetsAtOnceEachGetTheirOwnBytes) {
  world_.host_bytes = 3 * kHostExtentBytes;  // two sizes side by side
  Start();
  TestClient client(world_);
  std::vector<TestBlock> blocks;
  for (uint64_t i = 0; i < 40; ++i) blocks.push_back(MakeTestBlock(i, i % 2 ? 500'000 : 3'000));
  std::vector<const TestBlock*> all;
  for (const TestBlock& block : blocks) {
    ASSERT_EQ(client.Put(block), ResultCode::kOk);
    all.push_back(&block);
  }
  std::vector<uint64_t> requests;
  for (int i = 0; i < 10; ++i) requests.push_back(client.SendGet(all));
  for (const uint64_t request : requests) {
    const auto results = client.WaitGet(request, all.size());
    for (size_t i = 0; i < all.size(); ++i) {
      EXPECT_EQ(results[i].code, ResultCode::kOk);
      EXPECT_EQ(results[i].payload, blocks[i].payload);
      EXPECT_TRUE(VerifyPayload(results[i].header, results[i].payload).ok());
    }
  }
  EXPECT_EQ(PinsLeft(client), 0u);
}

TEST_F(NodeTest, PartsInAnyOrderAreVerifiedAllTheSame) {
  Start();
  TestClient client(world_);
  uint64_t number = 10;
  for (const bool say_part_bytes : {true, false}) {
    const TestBlock block = MakeLayeredTestBlock(++number);
    const PutReadyItem ready = client.Begin({&block}, say_part_bytes).at(0);
    ASSERT_EQ(ready.code, ResultCode::kOk);
    const std::span<const uint8_t> bytes = block.payload;
    for (const auto& [offset, length] : std::vector<std::pair<size_t, size_t>>{
             {5000, 3192}, {0, 1000}, {3000, 2000}, {1000, 2000}}) {
      client.Chunk(ready.slot, offset, bytes.subspan(offset, length));
    }
    EXPECT_EQ(client.Commit(ready.slot, block).code, ResultCode::kOk);
    EXPECT_EQ(client.Get(block), ResultCode::kOk);
  }
}

TEST_F(NodeTest, ACommitThatOvertakesItsBytesWaitsForThem) {
  Start();
  TestClient client(world_);
  const TestBlock block = MakeTestBlock(1);
  const PutReadyItem ready = client.Begin({&block}).at(0);
  const uint64_t commit = client.SendCommit(ready.slot, block);
  client.Ping();
  EXPECT_EQ(client.Get(block), ResultCode::kAbsent);
  client.Chunk(ready.slot, 0, block.payload);
  EXPECT_EQ(client.WaitDone(commit).code, ResultCode::kOk);
}

TEST_F(NodeTest, ARangeOfPartsIsSentAlone) {
  Start();
  TestClient client(world_);
  const TestBlock block = MakeLayeredTestBlock(1);
  client.Put(block);
  const auto result = client.WaitGet(client.SendGet({&block}, 1, 2), 1, 4096).at(0);
  EXPECT_EQ(result.code, ResultCode::kOk);
  EXPECT_EQ(result.received, 4096u);
  EXPECT_TRUE(std::equal(block.payload.begin() + 2048, block.payload.begin() + 6144,
                         result.payload.begin() + 2048));
  const auto outside = client.WaitGet(client.SendGet({&block}, 3, 2), 1).at(0);
  EXPECT_EQ(outside.code, ResultCode::kInvalid);
  EXPECT_NE(outside.text.find("part_count"), std::string::npos) << outside.text;
}

TEST_F(NodeTest, ALandingPlaceThatIsTooSmallIsToldSo) {
  Start();
  TestClient client(world_);
  const TestBlock block = MakeTestBlock(1, 10'000);
  client.Put(block);
  const auto result = client.WaitGet(client.SendGet({&block}, 0, 0, 9'999), 1).at(0);
  EXPECT_EQ(result.code, ResultCode::kTooSmall);
  EXPECT_NE(result.text.find("9999"), std::string::npos) << result.text;
}

TEST_F(NodeTest, ARunStopsAtItsFirstHole) {
  Start();
  TestClient client(world_);
  const TestBlock a = MakeTestBlock(1), b = MakeTestBlock(2), c = MakeTestBlock(3);
  client.Put(a);
  client.Put(c);
  const auto run = client.Match({&a, &b, &c}, kMatchFlagRun).items;
  EXPECT_EQ(run[0].code, ResultCode::kOk);
  EXPECT_EQ(run[1].code, ResultCode::kAbsent);
  EXPECT_EQ(run[2].code, ResultCode::kAbsent);
  EXPECT_EQ(client.Match({&a, &b, &c}).items[2].code, ResultCode::kOk);
}

TEST_F(NodeTest, RemovedMeansRemoved) {
  Start();
  TestClient client(world_);
  const TestBlock block = MakeTestBlock(1);
  client.Put(block);
  EXPECT_EQ(client.Remove(block), ResultCode::kOk);
  EXPECT_EQ(client.Get(block), ResultCode::kRemoved);
  EXPECT_EQ(client.Remove(block), ResultCode::kAbsent);
  EXPECT_EQ(client.Put(block), ResultCode::kOk);
  EXPECT_EQ(client.Get(block), ResultCode::kOk);
}

// --- Wrong bytes --------------------------------------------------------------------------------

TEST_F(NodeTest, BytesThatDoNotMatchTheirDigestAreRefused) {
  Start();
  TestClient client(world_);
  uint64_t number = 0;
  for (const bool say_part_bytes : {true, false}) {
    const TestBlock block = MakeLayeredTestBlock(++number);
    std::vector<uint8_t> damaged = block.payload;
    damaged[5000] ^= 1;
    const PutReadyItem ready = client.Begin({&block}, say_part_bytes).at(0);
    client.Chunk(ready.slot, 0, damaged);
    const PutDoneBody done = client.Commit(ready.slot, block);
    EXPECT_EQ(done.code, ResultCode::kMismatch);
    EXPECT_NE(done.text.find("part 2"), std::string::npos) << done.text;
    EXPECT_EQ(client.Get(block), ResultCode::kAbsent);
  }
  EXPECT_EQ(HostUsed(), 0u);
}

TEST_F(NodeTest, RightBytesUnderAWrongKeyAreRefused) {
  Start();
  TestClient client(world_);
  const TestBlock right = MakeTestBlock(1);
  TestBlock wrong = MakeTestBlock(2, right.payload.size());
  wrong.payload = right.payload;
  wrong.header.parts[0].digest = right.header.parts[0].digest;  // computed under the other name
  wrong.encoded = *EncodeBlockHeader(wrong.header);
  EXPECT_EQ(client.Put(wrong), ResultCode::kMismatch);

  // And the header of one block at the commit of another.
  const TestBlock other = MakeTestBlock(3);
  const PutReadyItem ready = client.Begin({&other}).at(0);
  client.Chunk(ready.slot, 0, right.payload);
  const PutDoneBody done = client.Commit(ready.slot, right);
  EXPECT_EQ(done.code, ResultCode::kInvalid);
  EXPECT_NE(done.text.find("key"), std::string::npos) << done.text;
}

TEST_F(NodeTest, BytesOutsideOfTheSlotOrTwiceSpoilThePut) {
  Start();
  TestClient client(world_);
  uint64_t number = 0;
  for (const auto& [offset, length] : std::vector<std::pair<uint64_t, size_t>>{
           {9'999, 2}, {UINT64_MAX - 1, 2}, {20'000, 1}, {100, 10}}) {
    const TestBlock block = MakeTestBlock(++number, 10'000);
    const PutReadyItem ready = client.Begin({&block}).at(0);
    client.Chunk(ready.slot, 0, std::span(block.payload).first(5'000));
    client.Chunk(ready.slot, offset, std::span(block.payload).first(length));
    const PutDoneBody done = client.Commit(ready.slot, block);
    EXPECT_EQ(done.code, ResultCode::kInvalid);
    EXPECT_NE(done.text.find(std::to_string(offset)), std::string::npos) << done.text;
  }
  EXPECT_EQ(HostUsed(), 0u);
}

TEST_F(NodeTest, TwoWritersOfOneKey) {
  Start();
  TestClient first(world_), second(world_), liar(world_);
  const TestBlock block = MakeTestBlock(1);
  const TestBlock other_bytes = MakeTestBlock(1, block.payload.size(), /*content=*/99);
  const PutReadyItem a = first.Begin({&block}).at(0);
  const PutReadyItem b = second.Begin({&block}).at(0);
  const PutReadyItem c = liar.Begin({&other_bytes}).at(0);
  ASSERT_EQ(b.code, ResultCode::kOk) << "nothing is held before a commit";
  first.Chunk(a.slot, 0, block.payload);
  second.Chunk(b.slot, 0, block.payload);
  liar.Chunk(c.slot, 0, other_bytes.payload);
  EXPECT_EQ(first.Commit(a.slot, block).code, ResultCode::kOk);
  EXPECT_EQ(second.Commit(b.slot, block).code, ResultCode::kExists);
  const PutDoneBody done = liar.Commit(c.slot, other_bytes);
  EXPECT_EQ(done.code, ResultCode::kMismatch);
  EXPECT_EQ(second.Get(block), ResultCode::kOk);
}

// --- Bad frames ---------------------------------------------------------------------------------

TEST_F(NodeTest, DamagedFramesEndTheConnectionAndNoOther) {
  Start();
  TestClient bystander(world_);
  for (int which = 0; which < 3; ++which) {
    TestClient client(world_);
    FrameHeader header;
    header.type = FrameType::kPing;
    std::vector<uint8_t> head(FrameHeadBytes(0, 0));
    EncodeFrame(header, {}, {}, head);
    if (which == 0) head[40] ^= 1;          // CRC
    if (which == 1) head.resize(20);        // length
    if (which == 2) head.assign(200, 'x');  // magic
    client.SendRaw(head);
    const TestClient::Message error = client.Wait(0);
    EXPECT_EQ(error.header.type, FrameType::kError) << which;
    Pass(bystander, 1000);
    client.WaitClosed();
  }
  bystander.Ping();
  EXPECT_EQ(bystander.Get(MakeTestBlock(1)), ResultCode::kAbsent);
}

TEST_F(NodeTest, ABodyThatDoesNotParseIsAnErrorOfThatRequest) {
  Start();
  TestClient client(world_);
  const TestClient::Message reply = client.Ask(FrameType::kGet, {1, 2, 3});
  EXPECT_EQ(reply.header.type, FrameType::kError);
  client.Ping();
}

// --- SSD ----------------------------------------------------------------------------------------

TEST_F(NodeTest, WhatLeftHostMemoryComesBackFromTheSsd) {
  StartWithSsd();
  TestClient client(world_);
  std::vector<TestBlock> blocks;
  std::vector<const TestBlock*> all;
  for (uint64_t i = 0; i < 20; ++i) blocks.push_back(MakeTestBlock(i, 200'000));
  for (const TestBlock& block : blocks) {
    ASSERT_EQ(client.Put(block, kDurabilitySsd), ResultCode::kOk);
    all.push_back(&block);
  }
  EvictAll();
  EXPECT_EQ(client.Match({all[0]}).items[0].tier, TierId::kSsd);
  // The same blocks by two requests at once.
  const uint64_t first = client.SendGet(all);
  const uint64_t second = client.SendGet(all);
  for (const uint64_t request : {first, second}) {
    const auto results = client.WaitGet(request, all.size());
    for (size_t i = 0; i < all.size(); ++i) {
      EXPECT_EQ(results[i].code, ResultCode::kOk) << results[i].text;
      EXPECT_EQ(results[i].payload, blocks[i].payload);
    }
  }
  TierId tier = TierId::kNone;
  EXPECT_EQ(client.Get(blocks[0], &tier), ResultCode::kOk);
  EXPECT_EQ(tier, TierId::kHost) << "promoted";
}

TEST_F(NodeTest, ARestartServesWhatWasAcknowledgedAsDurable) {
  StartWithSsd(kDurabilitySsd);
  const TestBlock kept = MakeLayeredTestBlock(1);
  const TestBlock removed = MakeTestBlock(2);
  const TestBlock again = MakeTestBlock(3);
  {
    TestClient client(world_);
    EXPECT_EQ(client.Put(kept), ResultCode::kOk);
    EXPECT_EQ(client.Put(removed), ResultCode::kOk);
    EXPECT_EQ(client.Put(again), ResultCode::kOk);
    EXPECT_EQ(client.Remove(removed), ResultCode::kOk);
    EXPECT_EQ(client.Remove(again), ResultCode::kOk);
    EXPECT_EQ(client.Put(again), ResultCode::kOk);
  }
  Random random(5);
  world_.Stop();
  world_.disk.CutPower(random);
  Start();
  TestClient client(world_);
  TierId tier = TierId::kNone;
  EXPECT_EQ(client.Get(kept, &tier), ResultCode::kOk);
  EXPECT_EQ(tier, TierId::kSsd);
  EXPECT_EQ(client.Get(again), ResultCode::kOk);
  EXPECT_EQ(client.Get(removed), ResultCode::kAbsent);
}

TEST_F(NodeTest, ExistsMeansAsDurableAsAsked) {
  StartWithSsd(kDurabilityHost);
  const TestBlock block = MakeTestBlock(1);
  {
    TestClient client(world_);
    EXPECT_EQ(client.Put(block), ResultCode::kOk);
    EXPECT_EQ(client.Put(block, kDurabilitySsd), ResultCode::kExists);
  }
  Random random(5);
  world_.Stop();
  world_.disk.CutPower(random);
  Start();
  TestClient client(world_);
  EXPECT_EQ(client.Get(block), ResultCode::kOk);
}

TEST_F(NodeTest, DamageOnTheSsdIsFoundCountedAndDropped) {
  StartWithSsd();
  TestClient client(world_);
  const TestBlock block = MakeTestBlock(1, 100'000);
  const TestBlock fine = MakeTestBlock(2, 100'000);
  client.Put(block, kDurabilitySsd);
  client.Put(fine, kDurabilitySsd);
  const auto inspected = world_.node->Inspect(block.header.key);
  ASSERT_TRUE(inspected.ok());
  const BlockInfo info = inspected->at(0).info;
  const std::string path = world_.options.ssd.directory + "/" + SegmentName(info.ssd.segment);
  world_.disk.Damage(path, (uint64_t{info.ssd.page} + 3) * kDiskPageBytes + 17, 0x10);
  EvictAll();
  EXPECT_EQ(client.Get(block), ResultCode::kCorrupt);
  EXPECT_EQ(client.Get(block), ResultCode::kCorrupt) << "the reason is remembered";
  EXPECT_EQ(client.Get(fine), ResultCode::kOk);
  EXPECT_EQ(client.Put(block), ResultCode::kOk);
  EXPECT_EQ(client.Get(block), ResultCode::kOk);
}

TEST_F(NodeTest, VerifyFindsDamageOnBothTiers) {
  StartWithSsd();
  TestClient client(world_);
  const TestBlock block = MakeTestBlock(1, 100'000);
  client.Put(block, kDurabilitySsd);
  VerifyResult clean = world_.node->Verify({});
  EXPECT_EQ(clean.blocks, 1u);
  EXPECT_TRUE(clean.damaged.empty());
  const BlockInfo info = world_.node->Inspect(block.header.key)->at(0).info;
  world_.disk.Damage(world_.options.ssd.directory + "/" + SegmentName(info.ssd.segment),
                     (uint64_t{info.ssd.page} + 2) * kDiskPageBytes, 1);
  const VerifyResult result = world_.node->Verify({&block.header.key, 1});
  ASSERT_EQ(result.damaged.size(), 1u);
  EXPECT_NE(result.damaged[0].find("ssd"), std::string::npos) << result.damaged[0];
  EXPECT_EQ(client.Get(block), ResultCode::kOk) << "the copy in host memory is right";
}

TEST_F(NodeTest, AFullDiskRefusesDurablePutsAndServesOn) {
  StartWithSsd();
  TestClient client(world_);
  const TestBlock before = MakeTestBlock(1, 100'000);
  EXPECT_EQ(client.Put(before, kDurabilitySsd), ResultCode::kOk);
  world_.disk.SetReadOnly(true);
  EXPECT_FALSE(IsSuccess(client.Put(MakeTestBlock(2, 100'000), kDurabilitySsd)));
  EXPECT_EQ(client.Put(MakeTestBlock(3, 100'000), kDurabilityHost), ResultCode::kOk);
  EXPECT_EQ(client.Get(MakeTestBlock(3, 100'000)), ResultCode::kOk);
  EXPECT_EQ(client.Get(before), ResultCode::kOk);
  EXPECT_FALSE(world_.node->Status().reasons.empty());
}

TEST_F(NodeTest, AStaleEpochIsAnsweredWithTheMembersAndNothingIsDone) {
  world_.options.epoch = 7;
  world_.options.node_id = "seven";
  Start();
  TestClient client(world_);
  const TestBlock block = MakeTestBlock(1);
  for (const uint64_t epoch : {6, 8}) {
    client.set_epoch(epoch);
    PutBeginBody begin;
    begin.variant = block.header.variant;
    begin.items.push_back({block.header.key, block.header.placement, block.payload.size(), 1, 0});
    std::vector<uint8_t> body;
    EncodePutBegin(begin, body);
    const TestClient::Message reply = client.Ask(FrameType::kPutBegin, body);
    ASSERT_EQ(reply.header.type, FrameType::kError);
    ErrorBody error;
    ASSERT_TRUE(DecodeError(reply.body, error).ok());
    EXPECT_EQ(error.code, ResultCode::kStaleEpoch);
    EXPECT_EQ(error.epoch, 7u);
    ASSERT_EQ(error.members.size(), 1u);
    EXPECT_EQ(error.members[0].node_id, "seven");
    EXPECT_EQ(error.members[0].data_address, "memory://node");
    EXPECT_NE(error.text.find(std::to_string(epoch)), std::string::npos) << error.text;
  }
  EXPECT_EQ(world_.node->Status().puts_open, 0u);
  client.set_epoch(7);
  EXPECT_EQ(client.Put(block), ResultCode::kOk);
}

TEST_F(NodeTest, ADurablePutWithoutAnSsdIsInvalid) {
  Start();
  TestClient client(world_);
  EXPECT_EQ(client.Put(MakeTestBlock(1), kDurabilitySsd), ResultCode::kInvalid);
}

}  // namespace
}  // namespace kedge
