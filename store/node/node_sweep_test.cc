// Sessions, leases and slots end; a drain goes on.
#include <gtest/gtest.h>

#include "store/node/node.h"
#include "store/node/node_testing.h"

namespace kedge {
namespace {

class NodeSweepTest : public NodeTest {};

// --- Sessions, leases, time ---------------------------------------------------------------------

TEST_F(NodeSweepTest, NothingIsServedBeforeHello) {
  Start();
  TestClient client(world_, /*hello=*/false);
  std::vector<uint8_t> body;
  EncodeRemove({}, body);
  const TestClient::Message reply = client.Ask(FrameType::kRemove, body);
  ASSERT_EQ(reply.header.type, FrameType::kError);
  ErrorBody error;
  ASSERT_TRUE(DecodeError(reply.body, error).ok());
  EXPECT_EQ(error.code, ResultCode::kDenied);
}

TEST_F(NodeSweepTest, AnotherSessionsSlotsAndLeasesAreOutOfReach) {
  Start();
  TestClient owner(world_), thief(world_);
  const TestBlock block = MakeTestBlock(1);
  const PutReadyItem ready = owner.Begin({&block}).at(0);
  thief.Chunk(ready.slot, 0, MakeTestBlock(2).payload);
  EXPECT_EQ(thief.Commit(ready.slot, block).code, ResultCode::kAbsent);
  owner.Chunk(ready.slot, 0, block.payload);
  EXPECT_EQ(owner.Commit(ready.slot, block).code, ResultCode::kOk);
  const uint64_t lease = owner.Match({&block}, kMatchFlagLease, 1000).lease;
  thief.Release(lease);
  EXPECT_EQ(world_.node->map().stats().pinned_blocks, 1u);
  // A frame that claims the owner's session on another connection.
  thief.set_session(owner.session());
  EXPECT_EQ(thief.Ask(FrameType::kPutAbort, {0, 0, 0, 0}).header.type, FrameType::kError);
}

TEST_F(NodeSweepTest, SessionsAreBounded) {
  world_.options.sessions_max = 2;
  Start();
  TestClient a(world_), b(world_);
  TestClient c(world_);
  EXPECT_NE(b.session(), 0u);
  EXPECT_EQ(c.session(), 0u);
}

TEST_F(NodeSweepTest, LeasedBlocksSurviveEvictionPressure) {
  Start();
  TestClient client(world_);
  std::vector<TestBlock> leased;
  std::vector<const TestBlock*> all;
  for (uint64_t i = 0; i < 8; ++i) leased.push_back(MakeTestBlock(i, 1 << 20));
  for (const TestBlock& block : leased) {
    ASSERT_EQ(client.Put(block), ResultCode::kOk);
    all.push_back(&block);
  }
  const MatchReplyBody lease = client.Match(all, kMatchFlagLease, 5000);
  ASSERT_NE(lease.lease, 0u);
  EXPECT_EQ(lease.lease_ms, 5000u);
  // Twice what the host tier holds.
  for (uint64_t i = 100; i < 230; ++i) {
    ASSERT_EQ(client.Put(MakeTestBlock(i, 1 << 20)), ResultCode::kOk) << i;
  }
  for (const TestBlock& block : leased) EXPECT_EQ(client.Get(block), ResultCode::kOk);
  EXPECT_EQ(client.Get(MakeTestBlock(100, 1 << 20)), ResultCode::kEvicted);
  EXPECT_EQ(client.Get(MakeTestBlock(229, 1 << 20)), ResultCode::kOk);
  Pass(client, 5100);
  EXPECT_EQ(world_.node->Status().leases, 0u);
  for (uint64_t i = 300; i < 430; ++i) client.Put(MakeTestBlock(i, 1 << 20));
  EXPECT_EQ(client.Get(leased[0]), ResultCode::kEvicted);
}

TEST_F(NodeSweepTest, AFullTierOfLeasedBlocksAnswersExhausted) {
  Start();
  TestClient client(world_);
  std::vector<TestBlock> blocks;
  std::vector<const TestBlock*> all;
  for (uint64_t i = 0; i < 64; ++i) blocks.push_back(MakeTestBlock(i, 1 << 20));
  for (const TestBlock& block : blocks) {
    ASSERT_EQ(client.Put(block), ResultCode::kOk);
    all.push_back(&block);
  }
  const uint64_t lease = client.Match(all, kMatchFlagLease).lease;
  EXPECT_EQ(client.Put(MakeTestBlock(100, 1 << 20)), ResultCode::kExhausted);
  client.Release(lease);
  EXPECT_EQ(client.Put(MakeTestBlock(100, 1 << 20)), ResultCode::kOk);
}

TEST_F(NodeSweepTest, MemoryFollowsTheSizesInUse) {
  Start();
  TestClient client(world_);
  for (uint64_t i = 0; i < 64; ++i)
    ASSERT_EQ(client.Put(MakeTestBlock(i, 1 << 20)), ResultCode::kOk);
  const TestBlock small = MakeTestBlock(100, 3'000);
  EXPECT_EQ(client.Put(small), ResultCode::kOk);
  EXPECT_EQ(client.Get(small), ResultCode::kOk);
}

// More block sizes than extents of 64 MiB would fit, in rotation, with an SSD behind: puts and gets
// (promotions) of every size find room.
TEST_F(NodeSweepTest, ASmallTierHoldsManyBlockSizes) {
  world_.host_bytes = 128 << 20;
  world_.options.ssd.segment_bytes = 64 << 20;
  world_.options.ssd.capacity_bytes = 2048ull << 20;
  StartWithSsd();
  TestClient client(world_);
  constexpr size_t kSizes[] = {4'000, 70'000, 300'000, 1 << 20, 5 << 20, 20 << 20};
  constexpr uint64_t kRounds = 12;
  const auto block_of = [&](uint64_t i) { return MakeTestBlock(i, kSizes[i % 6]); };
  for (uint64_t i = 0; i < kRounds * 6; ++i) {
    ASSERT_EQ(client.Put(block_of(i)), ResultCode::kOk) << i << ", " << kSizes[i % 6];
    const uint64_t earlier = i * 7 % (i + 1);
    ASSERT_EQ(client.Get(block_of(earlier)), ResultCode::kOk) << i << " gets " << earlier;
  }
  EXPECT_EQ(world_.node->map().stats().evicted_host_blocks, 0u);
  EXPECT_GT(world_.node->map().stats().demoted_blocks, 0u);
}

TEST_F(NodeSweepTest, AnAbandonedPutTimesOut) {
  Start();
  TestClient client(world_);
  const TestBlock block = MakeTestBlock(1);
  const PutReadyItem ready = client.Begin({&block}).at(0);
  client.Chunk(ready.slot, 0, std::span(block.payload).first(100));
  Pass(client, kPutIdleMs - 200);
  EXPECT_EQ(world_.node->Status().puts_open, 1u);
  client.Chunk(ready.slot, 100, std::span(block.payload).subspan(100, 100));
  const uint64_t commit = client.SendCommit(ready.slot, block);
  Pass(client, kPutIdleMs - 200);
  EXPECT_EQ(world_.node->Status().puts_open, 1u) << "traffic keeps it alive";
  Pass(client, 400);
  EXPECT_EQ(world_.node->Status().puts_open, 0u);
  EXPECT_EQ(HostUsed(), 0u);
  const PutDoneBody done = client.WaitDone(commit);
  EXPECT_EQ(done.code, ResultCode::kDeadline);
  EXPECT_NE(done.text.find("200 of 10000"), std::string::npos) << done.text;
}

TEST_F(NodeSweepTest, TheEndOfASessionFreesWhatItHeld) {
  Start();
  TestClient watcher(world_);
  const TestBlock held = MakeTestBlock(1);
  watcher.Put(held);
  const uint64_t used = HostUsed();
  {
    TestClient client(world_);
    client.Begin({&held});
    const TestBlock open = MakeTestBlock(2);
    client.Begin({&open});
    client.Match({&held}, kMatchFlagLease);
    EXPECT_GT(HostUsed(), used);
    EXPECT_EQ(world_.node->map().stats().pinned_blocks, 1u);
  }
  while (world_.node->Status().sessions > 1) watcher.Ping();
  EXPECT_EQ(HostUsed(), used);
  EXPECT_EQ(world_.node->map().stats().pinned_blocks, 0u);
  EXPECT_EQ(world_.node->Status().puts_open, 0u);
}

TEST_F(NodeSweepTest, AnAbortFreesTheSlot) {
  Start();
  TestClient client(world_);
  const TestBlock block = MakeTestBlock(1);
  const PutReadyItem ready = client.Begin({&block}).at(0);
  std::vector<uint8_t> body;
  EncodePutAbort({{ready.slot}}, body);
  client.Send(FrameType::kPutAbort, body);
  client.Ping();
  EXPECT_EQ(HostUsed(), 0u);
}

// --- Drain, cancel, deadline --------------------------------------------------------------------

TEST_F(NodeSweepTest, ADrainAdmitsNoPutAndWritesWhatIsUnsaved) {
  StartWithSsd();
  const TestBlock block = MakeTestBlock(1);
  {
    TestClient client(world_);
    EXPECT_EQ(client.Put(block), ResultCode::kOk);
    world_.Flush();
    EXPECT_EQ(client.Put(MakeTestBlock(2)), ResultCode::kUnavailable);
    EXPECT_EQ(client.Get(block), ResultCode::kOk) << "reads go on";
  }
  Restart();
  TestClient client(world_);
  EXPECT_EQ(client.Get(block), ResultCode::kOk);
}

TEST_F(NodeSweepTest, ACancelledGetSendsNoMore) {
  Start();
  TestClient client(world_);
  const TestBlock block = MakeTestBlock(1);
  client.Put(block);
  // The cancel overtakes its get.
  const uint64_t request = 77;
  client.SendAs(request, FrameType::kCancel, {});
  GetBody get;
  get.items.push_back({block.header.key, block.header.placement, kBlockBytesMax});
  std::vector<uint8_t> body;
  EncodeGet(get, body);
  client.SendAs(request, FrameType::kGet, body);
  client.Ping();
  EXPECT_EQ(client.Get(block), ResultCode::kOk);
  EXPECT_EQ(PinsLeft(client), 0u);
}

// A client that stops reading in the middle of a get, and what the node lets go of.
class NodeMidStreamTest : public NodeTest {
 protected:
  static constexpr uint64_t kBlocks = 24;
  static constexpr size_t kBytes = 1 << 20;
  // What the transport has when the client reads no more: the window of one connection, and the
  // message that went over it.
  static constexpr uint64_t kUnderWayMax = GetSender::kWindowBytes / kBytes + 1;

  void SetUp() override {
    Start();
    watcher_ = std::make_unique<TestClient>(world_);
    client_ = std::make_unique<TestClient>(world_);
    for (uint64_t i = 0; i < kBlocks; ++i) blocks_.push_back(MakeTestBlock(i, kBytes));
    for (const TestBlock& block : blocks_) {
      ASSERT_EQ(watcher_->Put(block), ResultCode::kOk);
      all_.push_back(&block);
    }
  }
  void TearDown() override { Read(); }

  // From the first item of a get on, the client reads nothing until Read.
  void StopReading(std::function<void(const FrameHeader&)> first) {
    client_->set_hook([this, first = std::move(first)](const FrameHeader& header) {
      if (header.type != FrameType::kGetItem) return;
      std::unique_lock<std::mutex> lock(mutex_);
      if (!std::exchange(stopped_, true) && first) first(header);
      changed_.notify_all();
      changed_.wait(lock, [&] { return reading_; });
    });
  }
  void WaitUntilStopped() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return stopped_; });
  }
  void Read() {
    const std::lock_guard<std::mutex> lock(mutex_);
    reading_ = true;
    changed_.notify_all();
  }
  uint64_t Pinned() { return world_.node->map().stats().pinned_blocks; }
  void ExpectNothingLeft() {
    EXPECT_EQ(PinsLeft(*watcher_), 0u);
    Pass(*watcher_, 100);
    EXPECT_EQ(world_.node->metrics().gets_running.load(), 0u);
    client_->set_hook(nullptr);
    EXPECT_EQ(client_->Get(blocks_[kBlocks - 1]), ResultCode::kOk) << "the connection lives";
  }

  std::vector<TestBlock> blocks_;
  std::vector<const TestBlock*> all_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopped_ = false;
  bool reading_ = false;
  std::unique_ptr<TestClient> watcher_, client_;
};

TEST_F(NodeMidStreamTest, ADeadlineLetsGoOfWhatWasNotSent) {
  StopReading(nullptr);
  const uint64_t request = client_->SendGet(all_, 0, 0, kBlockBytesMax, /*deadline_ms=*/300);
  WaitUntilStopped();
  EXPECT_EQ(Pinned(), kBlocks);
  Pass(*watcher_, 400);
  EXPECT_LE(Pinned(), kUnderWayMax);
  EXPECT_EQ(world_.node->metrics().gets_running.load(), 1u) << "the transport has some of it";
  Read();
  uint64_t ok = 0, late = 0;
  for (const TestClient::GetResult& result : client_->WaitGet(request, kBlocks)) {
    if (result.code == ResultCode::kOk) {
      EXPECT_EQ(result.payload, blocks_[ok++].payload);
    } else {
      EXPECT_EQ(result.code, ResultCode::kDeadline);
      ++late;
    }
  }
  EXPECT_GT(ok, 0u);
  EXPECT_GT(late, 0u);
  ExpectNothingLeft();
}

TEST_F(NodeMidStreamTest, ACancelLetsGoOfWhatWasNotSent) {
  StopReading([this](const FrameHeader& header) {
    client_->SendFromHook(header.request, FrameType::kCancel);
  });
  client_->SendGet(all_);
  WaitUntilStopped();
  while (Pinned() > kUnderWayMax) watcher_->Ping();  // until the cancel is there
  Read();
  ExpectNothingLeft();
  EXPECT_LE(world_.node->metrics().get_bytes.load(), (kUnderWayMax + 1) * kBytes);
}

TEST_F(NodeMidStreamTest, AConnectionThatEndsLetsGoOfAll) {
  StopReading(nullptr);
  client_->SendGet(all_);
  WaitUntilStopped();
  EXPECT_EQ(Pinned(), kBlocks);
  Read();
  client_.reset();
  while (world_.node->Status().sessions > 1) watcher_->Ping();
  EXPECT_EQ(PinsLeft(*watcher_), 0u);
  Pass(*watcher_, 100);
  EXPECT_EQ(world_.node->metrics().gets_running.load(), 0u);
}

TEST_F(NodeSweepTest, FaultsOfTheWireNeverGiveWrongBytes) {
  MemoryFaults faults;
  faults.reorder_share = 0.5;
  TestWorld world(faults);
  ASSERT_TRUE(world.Start().ok());
  TestClient client(world);
  for (uint64_t i = 0; i < 30; ++i) {
    const TestBlock block = MakeTestBlock(i, 50'000);
    const PutReadyItem ready = client.Begin({&block}).at(0);
    for (size_t at = 0; at < 50'000; at += 10'000) {
      client.Chunk(ready.slot, at, std::span(block.payload).subspan(at, 10'000));
    }
    EXPECT_EQ(client.Commit(ready.slot, block).code, ResultCode::kOk);
    EXPECT_EQ(client.Get(block), ResultCode::kOk);
  }
}

}  // namespace
}  // namespace kedge
