// Appends: groups, failures, and many callers.
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "store/tier/ssd_testing.h"
#include "store/tier/tier_ssd.h"

namespace kedge {
namespace {

using ::testing::HasSubstr;

std::string Message(const absl::Status& status) { return std::string(status.message()); }

using SsdAppendTest = SsdTierTest;

TEST_F(SsdAppendTest, BatchesThatCannotBeAreRefusedWhole) {
  ASSERT_TRUE(Open().ok());
  std::vector<SsdTier::Image> images;
  for (uint64_t id = 0; id < 13; ++id) images.push_back(Block(id).ForAppend());
  std::vector<SsdLocation> locations(13);
  const absl::Status large = tier_->Append(images, locations);  // 65 pages
  EXPECT_EQ(large.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(large), HasSubstr("13 images of 266240 bytes"));
  images.resize(12);
  locations.resize(12);
  EXPECT_TRUE(tier_->Append(images, locations).ok());

  SsdTier::Image cut = Block(50).ForAppend();
  cut.bytes = cut.bytes.first(cut.bytes.size() - kDiskPageBytes);
  const absl::Status short_image = tier_->Append({&cut, 1}, {locations.data(), 1});
  EXPECT_THAT(Message(short_image), HasSubstr("image 0: bytes=12288, its header says 16384"));
  PageBuffer odd(5 * kDiskPageBytes);
  std::memcpy(odd.first(1).data() + 64, Block(50).image().data(), 4 * kDiskPageBytes);
  const SsdTier::Image unaligned{&Block(50).header, {odd.first(1).data() + 64, 4 * kDiskPageBytes}};
  EXPECT_THAT(Message(tier_->Append({&unaligned, 1}, {locations.data(), 1})),
              HasSubstr("not page-aligned"));
  const SsdTier::Image nothing;
  EXPECT_THAT(Message(tier_->Append({&nothing, 1}, {locations.data(), 1})),
              HasSubstr("header is null"));
  EXPECT_EQ(MetricReader(*tier_)["kedge_ssd_live_blocks"], 12);
}

TEST_F(SsdAppendTest, AFullDiskDropsTheOldestAndFailsOnlyWhenThatDoesNotHelp) {
  ASSERT_TRUE(Open().ok());
  disk_.SetCapacityBytes(2 * options_.segment_bytes);  // less than the tier's own capacity
  for (uint64_t id = 0; id < 40; ++id) ASSERT_TRUE(Put(id).ok()) << id;
  EXPECT_FALSE(dropped_.empty());
  ASSERT_TRUE(Open().ok());  // also when it starts
  RecoveredIds();

  disk_.SetCapacityBytes(0);
  absl::Status full;
  for (uint64_t id = 40; full.ok() && id < 60; ++id) full = Put(id).status();
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(Message(full), HasSubstr("/tier/seg-"));
  EXPECT_THAT(Message(full), HasSubstr("no space left"));
  disk_.SetCapacityBytes(1 << 30);
  EXPECT_TRUE(Put(61).ok());
  ASSERT_TRUE(OpenWithoutIndex().ok());
  EXPECT_EQ(RecoveredIds().count(61), 1u);
  tier_.reset();
  disk_.SetCapacityBytes(0);
  SimulatedDisk empty;
  empty.SetCapacityBytes(100);
  const absl::Status no_start = Open(empty, MakeMemoryIndex());
  EXPECT_EQ(no_start.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(Message(no_start), HasSubstr("/tier/seg-00000001.kseg"));
}

TEST_F(SsdAppendTest, AFailedSyncFailsTheAppendAndNothingBeforeIt) {
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(Put(1).ok());
  disk_.FailSyncs(1);
  const auto failed = Put(2);
  EXPECT_EQ(failed.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(Message(failed.status()), HasSubstr("fdatasync /tier/seg-"));
  ASSERT_TRUE(Put(3).ok());
  Random random(5);
  tier_.reset();
  disk_.CutPower(random);
  ASSERT_TRUE(OpenWithoutIndex().ok());
  const std::set<uint64_t> ids = RecoveredIds();
  EXPECT_EQ(ids.count(1) + ids.count(3), 2u);
}

// An append fails half way and its place is used again: what is left of it must not come back after
// a removal.
TEST_F(SsdAppendTest, LeftoversOfAFailedAppendDoNotComeBack) {
  options_.capacity_bytes = 2 * options_.segment_bytes;
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(Put(0).ok());
  const std::vector<SsdTier::Image> images = {Block(1).ForAppend(), Block(2).ForAppend(),
                                              Block(3).ForAppend()};
  std::vector<SsdLocation> locations(3);
  disk_.SetCapacityBytes((1 + 5 + 5 + 5 + 3) * kDiskPageBytes);  // blocks 1 and 2 fit, 3 does not
  ASSERT_EQ(tier_->Append(images, locations).code(), absl::StatusCode::kResourceExhausted);
  disk_.SetCapacityBytes(1 << 30);
  ASSERT_TRUE(Remove(2).ok());  // lies where block 1 lay
  for (uint64_t id = 10; id < 12; ++id) ASSERT_TRUE(Remove(id).ok());
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(Remove(50).ok());  // up to where block 2 begins
  ASSERT_TRUE(OpenWithoutIndex().ok());
  EXPECT_EQ(RecoveredIds(), std::set<uint64_t>{0});
}

// A disk whose next sync waits until the test lets it go.
class GatedDisk final : public Disk {
 public:
  explicit GatedDisk(Disk& disk) : disk_(disk) {}
  void Close() {
    std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
  }
  void OpenGate() {
    std::lock_guard<std::mutex> lock(mutex_);
    closed_ = false;
    changed_.notify_all();
  }
  void WaitUntilSomebodyWaits() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return waiting_ > 0; });
  }
  absl::Status MakeDirectory(const std::string& path) override { return disk_.MakeDirectory(path); }
  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override {
    return disk_.List(path);
  }
  absl::Status Remove(const std::string& path) override { return disk_.Remove(path); }
  absl::StatusOr<uint64_t> FreeBytes(const std::string& path) override {
    return disk_.FreeBytes(path);
  }
  absl::StatusOr<std::unique_ptr<File>> Lock(const std::string& path) override {
    return disk_.Lock(path);
  }
  absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path, bool create) override {
    auto file = disk_.Open(path, create);
    if (!file.ok()) return file.status();
    return std::make_unique<GatedFile>(*this, *std::move(file));
  }

 private:
  class GatedFile final : public File {
   public:
    GatedFile(GatedDisk& disk, std::unique_ptr<File> file) : disk_(disk), file_(std::move(file)) {}
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
      {
        std::unique_lock<std::mutex> lock(disk_.mutex_);
        ++disk_.waiting_;
        disk_.changed_.notify_all();
        disk_.changed_.wait(lock, [&] { return !disk_.closed_; });
        --disk_.waiting_;
      }
      return file_->Sync();
    }
    absl::StatusOr<uint64_t> Size() override { return file_->Size(); }

   private:
    GatedDisk& disk_;
    const std::unique_ptr<File> file_;
  };

  Disk& disk_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool closed_ = false;
  int waiting_ = 0;
};

TEST_F(SsdAppendTest, AppendsThatWaitShareOneSync) {
  GatedDisk gated(disk_);
  ASSERT_TRUE(Open(gated, MakeMemoryIndex()).ok());
  for (uint64_t id = 0; id < 9; ++id) Block(id);
  gated.Close();
  std::vector<std::thread> threads;
  std::atomic<int> succeeded{0};
  const auto put = [&](uint64_t id) {
    const SsdTier::Image image = blocks_.at(id)->ForAppend();
    SsdLocation location;
    succeeded += tier_->Append({&image, 1}, {&location, 1}).ok() &&
                 ReadAndCompare(*tier_, location, *blocks_.at(id)).ok();
  };
  threads.emplace_back(put, 0);
  gated.WaitUntilSomebodyWaits();  // the first is under way
  for (uint64_t id = 1; id < 9; ++id) threads.emplace_back(put, id);
  while (MetricReader(*tier_)["kedge_ssd_appends_waiting"] < 9) std::this_thread::yield();
  EXPECT_EQ(succeeded.load(), 0);
  gated.OpenGate();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(succeeded.load(), 9);
  EXPECT_EQ(MetricReader(*tier_)["kedge_ssd_append_requests_total"], 9);
  EXPECT_EQ(MetricReader(*tier_)["kedge_ssd_append_groups_total"], 2);
  tier_.reset();
  ASSERT_TRUE(OpenWithoutIndex().ok());
  EXPECT_EQ(RecoveredIds().size(), 9u);
}

TEST_F(SsdAppendTest, ReadersAndWritersRunBesideEachOther) {
  ASSERT_TRUE(Open().ok());
  for (uint64_t id = 0; id < 40; ++id) Block(id);
  std::mutex mutex;
  std::vector<std::pair<uint64_t, SsdLocation>> put;
  std::atomic<int> reads{0}, wrong{0};
  std::vector<std::thread> threads;
  for (int worker = 0; worker < 4; ++worker) {
    threads.emplace_back([&, worker] {
      for (uint64_t i = 0; i < 60; ++i) {
        const uint64_t id = uint64_t(worker) * 10 + i % 10;
        const SsdTier::Image image = blocks_.at(id)->ForAppend();
        SsdLocation location;
        if (!tier_->Append({&image, 1}, {&location, 1}).ok()) ++wrong;
        if (i % 7 == 0 && !tier_->AppendTombstones({&image.header->key, 1}).ok()) ++wrong;
        std::lock_guard<std::mutex> lock(mutex);
        put.emplace_back(id, location);
      }
    });
  }
  for (int reader = 0; reader < 2; ++reader) {
    threads.emplace_back([&, reader] {
      Random random(reader);
      while (reads.load() < 300) {
        std::pair<uint64_t, SsdLocation> pick;
        {
          std::lock_guard<std::mutex> lock(mutex);
          if (put.empty()) continue;
          pick = put[random.Below(put.size())];
        }
        const absl::Status status = ReadAndCompare(*tier_, pick.second, *blocks_.at(pick.first));
        ++reads;
        if (!status.ok() && !absl::IsNotFound(status)) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong.load(), 0);
  ASSERT_TRUE(OpenWithoutIndex().ok());
  RecoveredIds();
}

}  // namespace
}  // namespace kedge
