// Puts that outrun the SSD wait for it; nothing that it is still to take is lost. The SSD is a disk
// whose syncs wait for the test.
#include <gtest/gtest.h>

#include <utility>

#include "store/node/node.h"
#include "store/node/node_testing.h"

namespace kedge {
namespace {

// A simulated disk; while the gate is closed a sync does not come back.
class GatedDisk final : public Disk {
 public:
  explicit GatedDisk(Disk& disk) : disk_(disk) {}

  void Close() { Set(false); }
  void Open() { Set(true); }
  void Pass() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return open_; });
  }

  absl::Status MakeDirectory(const std::string& path) override { return disk_.MakeDirectory(path); }
  absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path, bool create) override {
    auto file = disk_.Open(path, create);
    if (!file.ok()) return file;
    return std::make_unique<GatedFile>(*this, *std::move(file));
  }
  absl::StatusOr<std::vector<std::string>> List(const std::string& directory) override {
    return disk_.List(directory);
  }
  absl::Status Remove(const std::string& path) override { return disk_.Remove(path); }
  absl::StatusOr<uint64_t> FreeBytes(const std::string& path) override {
    return disk_.FreeBytes(path);
  }
  absl::StatusOr<std::unique_ptr<File>> Lock(const std::string& directory) override {
    return disk_.Lock(directory);
  }

 private:
  class GatedFile final : public File {
   public:
    GatedFile(GatedDisk& gate, std::unique_ptr<File> file) : gate_(gate), file_(std::move(file)) {}
    absl::Status Write(uint64_t offset, std::span<const uint8_t> bytes) override {
      return file_->Write(offset, bytes);
    }
    absl::Status WriteGather(uint64_t offset,
                             std::span<const std::span<const uint8_t>> pieces) override {
      return file_->WriteGather(offset, pieces);
    }
    absl::Status Read(uint64_t offset, std::span<uint8_t> bytes) override {
      return file_->Read(offset, bytes);
    }
    absl::Status Sync() override {
      gate_.Pass();
      return file_->Sync();
    }
    absl::StatusOr<uint64_t> Size() override { return file_->Size(); }

   private:
    GatedDisk& gate_;
    const std::unique_ptr<File> file_;
  };

  void Set(bool open) {
    const std::lock_guard<std::mutex> lock(mutex_);
    open_ = open;
    changed_.notify_all();
  }

  Disk& disk_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = true;
};

class NodePutWaitTest : public NodeTest {
 protected:
  static constexpr size_t kBytes = 1 << 20;

  void SetUp() override {
    world_.ssd = &disk_;
    StartWithSsd();
  }
  void TearDown() override {
    disk_.Open();
    world_.Stop();  // before disk_ goes, whose syncs the writer waits for
  }

  // Fills host memory with blocks that the SSD does not have; the number of them.
  uint64_t Fill(TestClient& client) {
    disk_.Close();
    const uint64_t fit = world_.node->Status().host_capacity_bytes / (kBytes + kDiskPageBytes);
    for (uint64_t i = 0; i < fit; ++i) {
      EXPECT_EQ(client.Put(MakeTestBlock(i, kBytes)), ResultCode::kOk) << i;
    }
    return fit;
  }
  // Sends kPutBegin and does not wait.
  uint64_t SendBegin(TestClient& client, const TestBlock& block, uint32_t deadline_ms = 0) {
    PutBeginBody begin;
    begin.variant = block.header.variant;
    begin.items.push_back(
        {block.header.key, block.header.placement, block.payload.size(), 1, kBytes});
    std::vector<uint8_t> body;
    EncodePutBegin(begin, body);
    return client.Send(FrameType::kPutBegin, body, {}, deadline_ms);
  }
  PutReadyItem WaitReady(TestClient& client, uint64_t request) {
    PutReadyBody ready;
    EXPECT_TRUE(DecodePutReady(client.Wait(request).body, ready).ok());
    return ready.items.at(0);
  }
  uint64_t Waiting(TestClient& client) {
    Pass(client, 100);
    return world_.node->metrics().puts_waiting.load();
  }

  GatedDisk disk_{world_.disk};
};

TEST_F(NodePutWaitTest, PutsThatOutrunTheSsdWaitAndLoseNothing) {
  TestClient client(world_);
  const uint64_t fit = Fill(client);
  std::vector<uint64_t> begins;
  for (uint64_t i = 0; i < 5; ++i) {
    begins.push_back(SendBegin(client, MakeTestBlock(fit + i, kBytes)));
  }
  EXPECT_EQ(Waiting(client), 5u);
  EXPECT_EQ(world_.node->map().stats().evicted_host_blocks, 0u);
  disk_.Open();
  for (uint64_t i = 0; i < 5; ++i) {
    const PutReadyItem ready = WaitReady(client, begins[i]);
    ASSERT_EQ(ready.code, ResultCode::kOk) << i;
    const TestBlock block = MakeTestBlock(fit + i, kBytes);
    client.Chunk(ready.slot, 0, block.payload);
    EXPECT_EQ(client.Commit(ready.slot, block).code, ResultCode::kOk);
  }
  for (uint64_t i = 0; i < 3 * fit; ++i) {  // and many more, at the SSD's speed
    ASSERT_EQ(client.Put(MakeTestBlock(1000 + i, kBytes)), ResultCode::kOk) << i;
  }
  EXPECT_EQ(world_.node->map().stats().evicted_host_blocks, 0u);
  for (uint64_t i = 0; i < fit + 5; ++i) {
    EXPECT_EQ(client.Get(MakeTestBlock(i, kBytes)), ResultCode::kOk) << i;
  }
}

TEST_F(NodePutWaitTest, TheWaitIsBoundedAndLeavesNothingBehind) {
  TestClient client(world_);
  const uint64_t fit = Fill(client);
  const uint64_t used = HostUsed();
  const uint64_t patient = SendBegin(client, MakeTestBlock(fit, kBytes));
  const uint64_t hasty = SendBegin(client, MakeTestBlock(fit + 1, kBytes), /*deadline_ms=*/500);
  EXPECT_EQ(Waiting(client), 2u);
  Pass(client, 500);
  EXPECT_EQ(WaitReady(client, hasty).code, ResultCode::kExhausted);
  EXPECT_EQ(Waiting(client), 1u);
  Pass(client, kPutRoomWaitMs);
  EXPECT_EQ(WaitReady(client, patient).code, ResultCode::kExhausted);
  EXPECT_EQ(Waiting(client), 0u);
  EXPECT_EQ(world_.node->Status().puts_open, 0u);
  EXPECT_EQ(HostUsed(), used);
  EXPECT_EQ(world_.node->metrics().put_room_refused.load(), 2u);
  disk_.Open();
  for (uint64_t i = 0; i < fit; ++i) {
    EXPECT_EQ(client.Get(MakeTestBlock(i, kBytes)), ResultCode::kOk) << i;
  }
  EXPECT_EQ(client.Put(MakeTestBlock(fit, kBytes)), ResultCode::kOk);
}

TEST_F(NodePutWaitTest, AClientThatLeavesWaitsNoMore) {
  TestClient watcher(world_);
  const uint64_t fit = Fill(watcher);
  const uint64_t used = HostUsed();
  {
    TestClient client(world_);
    SendBegin(client, MakeTestBlock(fit, kBytes));
    EXPECT_EQ(Waiting(client), 1u);
  }
  while (world_.node->Status().sessions > 1) watcher.Ping();
  EXPECT_EQ(Waiting(watcher), 0u);
  EXPECT_EQ(HostUsed(), used);
}

TEST_F(NodePutWaitTest, AnSsdThatRefusesDoesNotHoldPutsUp) {
  TestClient client(world_);
  const uint64_t fit = Fill(client);
  const uint64_t request = SendBegin(client, MakeTestBlock(fit, kBytes));
  EXPECT_EQ(Waiting(client), 1u);
  world_.disk.SetReadOnly(true);
  world_.disk.FailSyncs(1000);
  disk_.Open();
  EXPECT_EQ(WaitReady(client, request).code, ResultCode::kOk);
  EXPECT_GT(world_.node->map().stats().evicted_host_blocks, 0u);
  for (uint64_t i = 0; i < fit; ++i) {
    ASSERT_EQ(client.Put(MakeTestBlock(1000 + i, kBytes)), ResultCode::kOk) << i;
  }
}

}  // namespace
}  // namespace kedge
