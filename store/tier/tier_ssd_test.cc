#include "store/tier/tier_ssd.h"

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/wire.h"
#include "store/tier/ssd_format.h"
#include "store/tier/ssd_live.h"
#include "store/tier/ssd_testing.h"
#include "store/world/disk_simulated.h"
#include "xxhash.h"

namespace kedge {
namespace {

using ::testing::HasSubstr;

std::string Message(const absl::Status& status) { return std::string(status.message()); }

// A tier on a disk, with what it told.
class SsdTierTest : public testing::Test {
 protected:
  SsdTierTest() {
    options_.directory = "/tier";
    options_.segment_bytes = 64 * kDiskPageBytes;
    options_.capacity_bytes = 4 * options_.segment_bytes;
  }

  absl::Status Open(Disk& disk, std::unique_ptr<SsdIndex> index) {
    tier_.reset();
    recovered_.clear();
    const size_t dropped_before = dropped_.size();
    auto tier = SsdTier::Open(
        disk, std::move(index), options_,
        [this](const BlockHeader& header, SsdLocation location) { recovered_[header.key] = location; },
        [this](const BlockKey& key, const Variant&, SsdLocation) { dropped_.push_back(key); }, &report_);
    dropped_by_start_.clear();
    dropped_by_start_.insert(dropped_.begin() + static_cast<ptrdiff_t>(dropped_before), dropped_.end());
    if (tier.ok()) tier_ = *std::move(tier);
    return tier.status();
  }
  absl::Status Open() { return Open(disk_, std::make_unique<LoggedIndex>(log_)); }
  // The index is gone: everything comes from the segments.
  absl::Status OpenWithoutIndex() {
    log_.changes.clear();
    return Open();
  }

  TestBlock& Block(uint64_t id) {
    auto& block = blocks_[id];
    if (block == nullptr) block = std::make_unique<TestBlock>(id, "raw", 3 * kDiskPageBytes);
    return *block;  // 1 + 3 pages, and one of record header
  }
  absl::StatusOr<SsdLocation> Put(uint64_t id) {
    const SsdTier::Image image = Block(id).ForAppend();
    SsdLocation location;
    const absl::Status status = tier_->Append({&image, 1}, {&location, 1});
    if (!status.ok()) return status;
    return location;
  }
  absl::Status Remove(uint64_t id) {
    const BlockKey key = TestKey(id);
    return tier_->AppendTombstones({&key, 1});
  }
  // Ids that the last start told of, and did not drop again to make room. Each is read, and must be right.
  std::set<uint64_t> RecoveredIds() {
    for (const BlockKey& key : dropped_by_start_) recovered_.erase(key);
    std::set<uint64_t> ids;
    for (uint64_t id = 0; id < 100; ++id) {
      const auto found = recovered_.find(TestKey(id));
      if (found == recovered_.end()) continue;
      ids.insert(id);
      EXPECT_TRUE(ReadAndCompare(*tier_, found->second, Block(id)).ok()) << id;
    }
    EXPECT_EQ(ids.size(), recovered_.size());
    return ids;
  }
  std::string PathOf(uint32_t segment) const { return options_.directory + "/" + SegmentName(segment); }

  SimulatedDisk disk_;
  IndexLog log_;
  SsdTier::Options options_;
  std::unique_ptr<SsdTier> tier_;
  SsdTier::RecoveryReport report_;
  std::map<BlockKey, SsdLocation> recovered_;
  std::vector<BlockKey> dropped_;
  std::set<BlockKey> dropped_by_start_;
  std::map<uint64_t, std::unique_ptr<TestBlock>> blocks_;
};

TEST_F(SsdTierTest, WhatIsPutIsReadAndSurvivesARestart) {
  ASSERT_TRUE(Open().ok());
  for (uint64_t id = 0; id < 20; ++id) {
    const auto location = Put(id);
    ASSERT_TRUE(location.ok()) << location.status();
    EXPECT_EQ(location->pages, 4u);
    EXPECT_TRUE(ReadAndCompare(*tier_, *location, Block(id)).ok());
  }
  PageBuffer page(kDiskPageBytes);
  const auto location = Put(20);
  ASSERT_TRUE(tier_->Read(*location, 2, page.first(kDiskPageBytes)).ok());  // from the middle
  EXPECT_EQ(std::memcmp(page.first(1).data(), Block(20).image().data() + 2 * kDiskPageBytes, 4096), 0);
  EXPECT_EQ(tier_->used_bytes() % kDiskPageBytes, 0u);
  EXPECT_GT(tier_->used_bytes(), 21u * 5 * kDiskPageBytes);

  ASSERT_TRUE(Open().ok());
  EXPECT_EQ(report_.blocks, 21u);
  EXPECT_EQ(report_.scanned_records, 0u);  // the index had all of them
  EXPECT_EQ(report_.damaged_records, 0u);
  EXPECT_FALSE(report_.index_rebuilt);
  EXPECT_EQ(RecoveredIds().size(), 21u);

  ASSERT_TRUE(OpenWithoutIndex().ok());
  EXPECT_EQ(report_.blocks, 21u);
  EXPECT_EQ(report_.scanned_records, 21u);
  EXPECT_TRUE(report_.index_rebuilt);
  EXPECT_EQ(RecoveredIds().size(), 21u);
}

TEST_F(SsdTierTest, ManyRestartsLeaveNoEmptyFiles) {
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(Open().ok());
  EXPECT_EQ(disk_.Paths().size(), 1u);
}

TEST_F(SsdTierTest, TombstonesHoldForAllVariantsAndOnlyBackwards) {
  ASSERT_TRUE(Open().ok());
  TestBlock raw(1), packed(1, "kivi2g32"), other(2);
  const SsdTier::Image images[] = {raw.ForAppend(), packed.ForAppend(), other.ForAppend()};
  SsdLocation locations[3];
  ASSERT_TRUE(tier_->Append(images, locations).ok());
  EXPECT_EQ(MetricReader(*tier_)["kedge_ssd_live_blocks"], 3);
  ASSERT_TRUE(Remove(1).ok());
  EXPECT_EQ(MetricReader(*tier_)["kedge_ssd_live_blocks"], 1);
  for (int with_index = 1; with_index >= 0; --with_index) {
    ASSERT_TRUE((with_index ? Open() : OpenWithoutIndex()).ok());
    EXPECT_EQ(report_.blocks, 1u);
    EXPECT_EQ(recovered_.count(TestKey(1)), 0u);
  }
  ASSERT_TRUE(tier_->Append({images, 1}, {locations, 1}).ok());  // put again
  ASSERT_TRUE(OpenWithoutIndex().ok());
  EXPECT_EQ(recovered_.at(TestKey(1)), locations[0]);
  std::vector<BlockKey> many;
  for (uint64_t id = 0; id < 20'000; ++id) many.push_back(TestKey(id));
  ASSERT_TRUE(tier_->AppendTombstones(many).ok());
  ASSERT_TRUE(OpenWithoutIndex().ok());
  EXPECT_EQ(report_.blocks, 0u);
}

TEST_F(SsdTierTest, TheOldestSegmentMakesRoomAndOnlyLiveBlocksAreReported) {
  ASSERT_TRUE(Open().ok());
  const SsdLocation first = *Put(0);
  ASSERT_TRUE(Put(1).ok());
  ASSERT_TRUE(Put(2).ok());
  ASSERT_TRUE(Remove(1).ok());
  std::map<uint64_t, SsdLocation> at;
  for (uint64_t id = 3; id < 12; ++id) at[id] = *Put(id);
  at[2] = *Put(2);  // again, in a later segment
  ASSERT_NE(at[2].segment, first.segment);
  for (uint64_t id = 12; dropped_.empty(); ++id) {
    ASSERT_LT(id, 100u);
    at[id] = *Put(id);
  }
  std::set<BlockKey> expected = {TestKey(0)};
  for (const auto& [id, location] : at) {
    if (location.segment == first.segment) expected.insert(TestKey(id));
  }
  EXPECT_EQ(std::set<BlockKey>(dropped_.begin(), dropped_.end()), expected);
  EXPECT_EQ(dropped_.size(), expected.size());
  PageBuffer page(kDiskPageBytes);
  const absl::Status gone = tier_->Read(first, 0, page.first(kDiskPageBytes));
  EXPECT_EQ(gone.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(gone), HasSubstr("segment 1 was dropped"));
  EXPECT_LE(tier_->used_bytes(), options_.capacity_bytes);
  EXPECT_EQ(MetricReader(*tier_)["kedge_ssd_dropped_segments_total"], 1);
  EXPECT_EQ(MetricReader(*tier_)["kedge_ssd_dropped_blocks_total"], double(expected.size()));

  const size_t live = at.size() - (expected.size() - 1);
  ASSERT_TRUE(Open().ok());
  EXPECT_EQ(RecoveredIds().size(), live);
  ASSERT_TRUE(OpenWithoutIndex().ok());
  EXPECT_EQ(RecoveredIds().size(), live);
}

TEST_F(SsdTierTest, ASmallerCapacityDropsAtTheStart) {
  ASSERT_TRUE(Open().ok());
  for (uint64_t id = 0; id < 40; ++id) ASSERT_TRUE(Put(id).ok());
  ASSERT_TRUE(dropped_.empty());
  options_.capacity_bytes = 2 * options_.segment_bytes;
  ASSERT_TRUE(Open().ok());
  EXPECT_GT(dropped_.size(), 10u);
  EXPECT_LE(tier_->used_bytes(), options_.capacity_bytes);
  for (const BlockKey& key : dropped_) EXPECT_EQ(recovered_.count(key), 1u);
}

TEST_F(SsdTierTest, BatchesThatCannotBeAreRefusedWhole) {
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
  EXPECT_THAT(Message(tier_->Append({&unaligned, 1}, {locations.data(), 1})), HasSubstr("not page-aligned"));
  const SsdTier::Image nothing;
  EXPECT_THAT(Message(tier_->Append({&nothing, 1}, {locations.data(), 1})), HasSubstr("header is null"));
  EXPECT_EQ(MetricReader(*tier_)["kedge_ssd_live_blocks"], 12);
}

TEST_F(SsdTierTest, ReadsOutsideOfTheImageAreRefused) {
  ASSERT_TRUE(Open().ok());
  const SsdLocation at = *Put(1);
  PageBuffer memory(8 * kDiskPageBytes);
  EXPECT_EQ(tier_->Read(at, 0, memory.first(5 * kDiskPageBytes)).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(tier_->Read(at, 4, memory.first(kDiskPageBytes)).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(tier_->Read(at, ~0u, memory.first(kDiskPageBytes)).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(tier_->Read(at, 0, memory.first(100)).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(tier_->Read({77, 1, 4}, 0, memory.first(kDiskPageBytes)).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(tier_->Read({at.segment, 1000, 4}, 0, memory.first(kDiskPageBytes)).code(),
            absl::StatusCode::kOutOfRange);
}

TEST_F(SsdTierTest, OptionsAreChecked) {
  const auto open_with = [&](auto change) {
    SsdTier::Options saved = options_;
    change(options_);
    const absl::Status status = Open();
    options_ = saved;
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return Message(status);
  };
  EXPECT_THAT(open_with([](auto& o) { o.directory = ""; }), HasSubstr("directory is empty"));
  EXPECT_THAT(open_with([](auto& o) { o.segment_bytes = 100'000; }), HasSubstr("segment_bytes=100000"));
  EXPECT_THAT(open_with([](auto& o) { o.segment_bytes = 4096; }), HasSubstr("segment_bytes=4096"));
  EXPECT_THAT(open_with([](auto& o) { o.capacity_bytes = 2 * o.segment_bytes - 1; }),
              HasSubstr("capacity_bytes=524287 is less than 2 segments"));
}

// --- a bad disk ---------------------------------------------------------------------------------------------

TEST_F(SsdTierTest, AFullDiskDropsTheOldestAndFailsOnlyWhenThatDoesNotHelp) {
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

TEST_F(SsdTierTest, AReadOnlyDiskIsNamed) {
  SimulatedDisk read_only;
  read_only.SetReadOnly(true);
  const absl::Status status = Open(read_only, MakeMemoryIndex());
  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(Message(status), HasSubstr("/tier"));

  ASSERT_TRUE(Open().ok());
  const SsdLocation at = *Put(1);
  disk_.SetReadOnly(true);
  const auto refused = Put(2);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(Put(2).status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_TRUE(ReadAndCompare(*tier_, at, Block(1)).ok());
  disk_.SetReadOnly(false);
  EXPECT_TRUE(Put(3).ok());
  ASSERT_TRUE(OpenWithoutIndex().ok());
  const std::set<uint64_t> ids = RecoveredIds();
  EXPECT_EQ(ids.count(1) + ids.count(3), 2u);
}

TEST_F(SsdTierTest, AFailedSyncFailsTheAppendAndNothingBeforeIt) {
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

TEST_F(SsdTierTest, OneProcessHasTheDirectory) {
  ASSERT_TRUE(Open().ok());
  const auto second = SsdTier::Open(disk_, MakeMemoryIndex(), options_, nullptr,
                                    [](const BlockKey&, const Variant&, SsdLocation) {}, nullptr);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(second.status()), HasSubstr("/tier is in use"));
  EXPECT_TRUE(Open().ok());
}

TEST_F(SsdTierTest, ANewerFormatIsNotTouched) {
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(Put(1).ok());
  tier_.reset();
  const auto file = disk_.Open(PathOf(1), false);
  PageBuffer page(kDiskPageBytes);
  ASSERT_TRUE((*file)->Read(0, page.first(kDiskPageBytes)).ok());
  StoreLe<uint16_t>(page.page(0).data() + 8, 2);
  StoreLe<uint64_t>(page.page(0).data() + 4088, XXH3_64bits(page.page(0).data(), 4088));
  ASSERT_TRUE((*file)->Write(0, page.first(kDiskPageBytes)).ok());
  const std::vector<std::string> before = disk_.Paths();
  const absl::Status status = Open();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(Message(status), HasSubstr("/tier/seg-00000001.kseg: segment header.version: 2"));
  EXPECT_EQ(disk_.Paths(), before);
}

// Ten blocks in one segment, one page of it damaged; the index is gone.
TEST_F(SsdTierTest, DamageCostsTheDamagedRecordOnly) {
  struct Case {
    uint64_t page;
    std::set<uint64_t> lost;
  };
  // Page 0 is the segment's header; block n has its record header at 1 + 5n, its header behind, then 3 pages of payload.
  for (const Case& damage : {Case{0, {}}, Case{1, {0}}, Case{2, {0}}, Case{3, {0}}, Case{21, {4}}, Case{22, {4}},
                             Case{25, {4}}, Case{46, {9}}, Case{50, {9}}}) {
    SimulatedDisk disk;
    ASSERT_TRUE(Open(disk, MakeMemoryIndex()).ok());
    for (uint64_t id = 0; id < 10; ++id) ASSERT_TRUE(Put(id).ok());
    tier_.reset();
    disk.Damage(PathOf(1), damage.page * kDiskPageBytes + 17);
    ASSERT_TRUE(Open(disk, MakeMemoryIndex()).ok());
    std::set<uint64_t> expected;
    for (uint64_t id = 0; id < 10; ++id) {
      if (damage.lost.count(id) == 0) expected.insert(id);
    }
    EXPECT_EQ(RecoveredIds(), expected) << damage.page;
    EXPECT_EQ(report_.damaged_records, damage.lost.size()) << damage.page;
    ASSERT_TRUE(Put(20).ok());
    ASSERT_TRUE(Open(disk, MakeMemoryIndex()).ok());
    expected.insert(20);
    EXPECT_EQ(RecoveredIds(), expected) << damage.page;
    tier_.reset();
  }
}

TEST_F(SsdTierTest, AFileThatWasCutKeepsItsBeginning) {
  ASSERT_TRUE(Open().ok());
  for (uint64_t id = 0; id < 20; ++id) ASSERT_TRUE(Put(id).ok());  // 12 in the first segment
  tier_.reset();
  disk_.Truncate(PathOf(1), 43 * kDiskPageBytes + 100);  // in the middle of block 8
  for (int with_index = 1; with_index >= 0; --with_index) {
    ASSERT_TRUE((with_index ? Open() : OpenWithoutIndex()).ok());
    const std::set<uint64_t> ids = RecoveredIds();
    EXPECT_EQ(ids.size(), 16u);
    EXPECT_EQ(ids.count(7), 1u);
    EXPECT_EQ(ids.count(8), 0u);
    EXPECT_EQ(ids.count(12), 1u);
  }
}

// The disk's way to memory fails now and then: a start finds less, but never something wrong, and removes nothing.
TEST_F(SsdTierTest, FlippedBitsOnReadAreFoundAndDoNoLastingHarm) {
  ASSERT_TRUE(Open().ok());
  for (uint64_t id = 0; id < 30; ++id) ASSERT_TRUE(Put(id).ok());
  uint64_t damaged = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    disk_.FlipBitsOnRead(0.2, seed);
    ASSERT_TRUE(OpenWithoutIndex().ok());
    damaged += report_.damaged_records;
    disk_.FlipBitsOnRead(0, 0);
    RecoveredIds();  // what was recovered is right
  }
  EXPECT_GT(damaged, 20u);
  ASSERT_TRUE(Open().ok());
  EXPECT_EQ(RecoveredIds().size(), 30u);
}

// An append fails half way and its place is used again: what is left of it must not come back after a removal.
TEST_F(SsdTierTest, LeftoversOfAFailedAppendDoNotComeBack) {
  options_.capacity_bytes = 2 * options_.segment_bytes;
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(Put(0).ok());
  const std::vector<SsdTier::Image> images = {Block(1).ForAppend(), Block(2).ForAppend(), Block(3).ForAppend()};
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

// --- the index ----------------------------------------------------------------------------------------------

TEST_F(SsdTierTest, AnIndexThatLagsIsMadeUpFromTheSegments) {
  ASSERT_TRUE(Open().ok());
  for (uint64_t id = 0; id < 30; ++id) ASSERT_TRUE(Put(id).ok());
  ASSERT_TRUE(Remove(3).ok());
  const auto all = log_.changes;
  for (size_t kept = 0; kept <= all.size(); ++kept) {
    log_.changes.assign(all.begin(), all.begin() + static_cast<ptrdiff_t>(kept));
    ASSERT_TRUE(Open().ok());
    EXPECT_EQ(report_.scanned_records, all.size() - kept);
    EXPECT_EQ(RecoveredIds().size(), 29u);
    ASSERT_TRUE(Open().ok());
    EXPECT_EQ(report_.scanned_records, 0u) << "the first start made it up";
  }
}

TEST_F(SsdTierTest, AnIndexThatLiesIsRebuilt) {
  ASSERT_TRUE(Open().ok());
  for (uint64_t id = 0; id < 20; ++id) ASSERT_TRUE(Put(id).ok());
  tier_.reset();
  const std::vector<uint8_t> junk(300, 7);
  const auto lie = [&](SsdIndexRecord record, SsdIndexMark mark) {
    log_.changes.push_back([record, mark](SsdIndex& index) { return index.Add({&record, 1}, mark); });
    const int resets = log_.resets;
    ASSERT_TRUE(Open().ok());
    EXPECT_EQ(RecoveredIds().size(), 20u);
    EXPECT_EQ(report_.index_rebuilt, log_.resets > resets);
    tier_.reset();
  };
  // A header that is none; behind it, a mark of the same file (its nonce from the index itself).
  const auto marks = [&] {
    LoggedIndex index(log_);
    EXPECT_TRUE(index.Open().ok());
    return *index.Marks();
  }();
  const SsdIndexRecord bad_header{marks[0].segment, 11, RecordKind::kBlock, 5, junk};
  lie(bad_header, marks[0]);
  EXPECT_EQ(log_.resets, 1);
  lie({marks[0].segment, 11, RecordKind::kTombstone, 5, junk}, marks[0]);  // 300 bytes of keys
  EXPECT_EQ(log_.resets, 2);
  // Of another file of that name, and farther than the file goes: not believed.
  lie({marks[0].segment, 11, RecordKind::kBlock, 5, junk}, {marks[0].segment, marks[0].pages, marks[0].nonce + 1});
  lie({marks[0].segment, 11, RecordKind::kBlock, 5, junk}, {marks[0].segment, 5000, marks[0].nonce});
  lie({99, 11, RecordKind::kBlock, 5, junk}, {99, 50, 1});  // no such file
}

class SsdTierRocksdbTest : public SsdTierTest {
 protected:
  SsdTierRocksdbTest() {
    const char* parent = getenv("TEST_TMPDIR");
    std::string path = std::string(parent != nullptr ? parent : "/tmp") + "/kedge-ssd-XXXXXX";
    EXPECT_NE(mkdtemp(path.data()), nullptr);
    options_.directory = path;
  }
  ~SsdTierRocksdbTest() override {
    tier_.reset();
    std::filesystem::remove_all(options_.directory);
  }
  absl::Status OpenReal() {
    tier_.reset();
    return Open(*real_, MakeRocksdbIndex(IndexPath()));
  }
  std::string IndexPath() const { return options_.directory + "/index"; }

  const std::unique_ptr<Disk> real_ = MakeRealDisk();
};

TEST_F(SsdTierRocksdbTest, SurvivesRestartsAndDrops) {
  ASSERT_TRUE(OpenReal().ok());
  for (uint64_t id = 0; id < 60; ++id) ASSERT_TRUE(Put(id).ok());
  ASSERT_TRUE(Remove(59).ok());
  EXPECT_FALSE(dropped_.empty());
  const size_t live = 59 - dropped_.size();
  ASSERT_TRUE(OpenReal().ok());
  EXPECT_EQ(report_.scanned_records, 0u);
  EXPECT_FALSE(report_.index_rebuilt);
  EXPECT_EQ(recovered_.size(), live);
  EXPECT_GT(RecoveredIds().size(), live / 2);
}

TEST_F(SsdTierRocksdbTest, IsRebuiltWhenItIsMissing) {
  ASSERT_TRUE(OpenReal().ok());
  for (uint64_t id = 0; id < 20; ++id) ASSERT_TRUE(Put(id).ok());
  tier_.reset();
  std::filesystem::remove_all(IndexPath());
  ASSERT_TRUE(OpenReal().ok());
  EXPECT_EQ(report_.scanned_records, 20u);
  EXPECT_TRUE(report_.index_rebuilt);
  EXPECT_EQ(RecoveredIds().size(), 20u);
  ASSERT_TRUE(OpenReal().ok());
  EXPECT_EQ(report_.scanned_records, 0u);
}

// Every file of the database, one at a time: emptied, cut in half, overwritten, removed.
TEST_F(SsdTierRocksdbTest, IsRebuiltWhenAnyOfItsFilesIsDamaged) {
  ASSERT_TRUE(OpenReal().ok());
  for (uint64_t id = 0; id < 20; ++id) ASSERT_TRUE(Put(id).ok());
  ASSERT_TRUE(OpenReal().ok());  // writes a table
  for (uint64_t id = 20; id < 25; ++id) ASSERT_TRUE(Put(id).ok());
  tier_.reset();
  const std::string good = options_.directory + "/good";
  std::filesystem::copy(IndexPath(), good);
  int rebuilt = 0;
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(good)) names.push_back(entry.path().filename());
  for (const std::string& name : names) {
    for (int damage = 0; damage < 4; ++damage) {
      std::filesystem::remove_all(IndexPath());
      std::filesystem::copy(good, IndexPath());
      const std::filesystem::path path = IndexPath() + "/" + name;
      const auto bytes = std::filesystem::file_size(path);
      if (damage == 0) std::filesystem::resize_file(path, 0);
      if (damage == 1) std::filesystem::resize_file(path, bytes / 2);
      if (damage == 2) {
        std::ofstream file(path, std::ios::binary | std::ios::in);
        for (uintmax_t i = 0; i < bytes; ++i) file.put(static_cast<char>(i * 37));
      }
      if (damage == 3) std::filesystem::remove(path);
      ASSERT_TRUE(OpenReal().ok()) << name << " " << damage;
      EXPECT_EQ(RecoveredIds().size(), 25u) << name << " " << damage;
      rebuilt += report_.index_rebuilt;
      tier_.reset();
    }
  }
  EXPECT_GT(rebuilt, 5);
}

// --- many callers -------------------------------------------------------------------------------------------

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
  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override { return disk_.List(path); }
  absl::Status Remove(const std::string& path) override { return disk_.Remove(path); }
  absl::StatusOr<uint64_t> FreeBytes(const std::string& path) override { return disk_.FreeBytes(path); }
  absl::StatusOr<std::unique_ptr<File>> Lock(const std::string& path) override { return disk_.Lock(path); }
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
    absl::Status WriteGather(uint64_t offset, std::span<const std::span<const uint8_t>> pieces) override {
      return file_->WriteGather(offset, pieces);
    }
    absl::Status Read(uint64_t offset, std::span<uint8_t> bytes) override { return file_->Read(offset, bytes); }
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

TEST_F(SsdTierTest, AppendsThatWaitShareOneSync) {
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

TEST_F(SsdTierTest, ReadersAndWritersRunBesideEachOther) {
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

// --- the map of what counts -----------------------------------------------------------------------------------

TEST(SsdLiveMap, AgreesWithANaiveModel) {
  Random random(3);
  SsdLiveMap live(99);
  std::map<std::pair<uint64_t, int>, SsdLocation> model;
  const Variant variants[] = {*Variant::Parse("a"), *Variant::Parse("b"), *Variant::Parse("c")};
  for (int step = 0; step < 20'000; ++step) {
    const uint64_t id = random.Below(30);
    const int variant = static_cast<int>(random.Below(3));
    const uint64_t what = random.Below(100);
    const SsdLocation location{static_cast<uint32_t>(random.Below(6)), static_cast<uint32_t>(step + 1), 1};
    if (what < 60) {
      live.Put(TestKey(id), variants[variant], location);
      model[{id, variant}] = location;
    } else if (what < 75) {
      live.RemoveKey(TestKey(id));
      for (int v = 0; v < 3; ++v) model.erase({id, v});
    } else if (what < 98) {
      const auto found = model.find({id, variant});
      ASSERT_FALSE(live.RemoveAt(TestKey(id), variants[variant], location));
      ASSERT_EQ(found != model.end(),
                live.RemoveAt(TestKey(id), variants[variant],
                              found != model.end() ? found->second : location));
      if (found != model.end()) model.erase(found);
    } else {
      live.RemoveSegment(location.segment);
      for (auto it = model.begin(); it != model.end();) {
        it = it->second.segment == location.segment ? model.erase(it) : std::next(it);
      }
    }
    ASSERT_EQ(live.blocks(), model.size());
    for (const auto& [name, at] : model) {
      ASSERT_TRUE(live.IsLive(TestKey(name.first), variants[name.second], at));
    }
  }
}

}  // namespace
}  // namespace kedge
