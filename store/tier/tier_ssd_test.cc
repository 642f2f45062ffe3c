#include "store/tier/tier_ssd.h"

#include <xxhash.h>

#include <map>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/wire.h"
#include "store/tier/ssd_format.h"
#include "store/tier/ssd_testing.h"

namespace kedge {
namespace {

using ::testing::HasSubstr;

std::string Message(const absl::Status& status) { return std::string(status.message()); }

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
  EXPECT_EQ(std::memcmp(page.first(1).data(), Block(20).image().data() + 2 * kDiskPageBytes, 4096),
            0);
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

TEST_F(SsdTierTest, ATombstoneOfOneVariantLeavesTheOthers) {
  ASSERT_TRUE(Open().ok());
  TestBlock raw(1), packed(1, "kivi2g32"), third(1, "kivi4g32");
  const SsdTier::Image images[] = {raw.ForAppend(), packed.ForAppend(), third.ForAppend()};
  SsdLocation locations[3];
  ASSERT_TRUE(tier_->Append(images, locations).ok());
  const BlockName names[] = {{TestKey(1), Variant::Raw()},
                             {TestKey(1), *Variant::Parse("kivi4g32")},
                             {TestKey(2), Variant::Raw()}};  // never put
  ASSERT_TRUE(tier_->AppendTombstones(std::span<const BlockName>(names)).ok());
  EXPECT_EQ(MetricReader(*tier_)["kedge_ssd_live_blocks"], 1);
  for (int with_index = 1; with_index >= 0; --with_index) {
    ASSERT_TRUE((with_index ? Open() : OpenWithoutIndex()).ok());
    EXPECT_EQ(report_.blocks, 1u);
    EXPECT_EQ(recovered_.at(TestKey(1)), locations[1]);
  }
  ASSERT_TRUE(tier_->Append({images, 1}, {locations, 1}).ok());  // put again
  ASSERT_TRUE(OpenWithoutIndex().ok());
  EXPECT_EQ(report_.blocks, 2u);
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

TEST_F(SsdTierTest, ReadsOutsideOfTheImageAreRefused) {
  ASSERT_TRUE(Open().ok());
  const SsdLocation at = *Put(1);
  PageBuffer memory(8 * kDiskPageBytes);
  EXPECT_EQ(tier_->Read(at, 0, memory.first(5 * kDiskPageBytes)).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(tier_->Read(at, 4, memory.first(kDiskPageBytes)).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(tier_->Read(at, ~0u, memory.first(kDiskPageBytes)).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(tier_->Read(at, 0, memory.first(100)).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(tier_->Read({77, 1, 4}, 0, memory.first(kDiskPageBytes)).code(),
            absl::StatusCode::kNotFound);
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
  EXPECT_THAT(open_with([](auto& o) { o.segment_bytes = 100'000; }),
              HasSubstr("segment_bytes=100000"));
  EXPECT_THAT(open_with([](auto& o) { o.segment_bytes = 4096; }), HasSubstr("segment_bytes=4096"));
  EXPECT_THAT(open_with([](auto& o) { o.capacity_bytes = 2 * o.segment_bytes - 1; }),
              HasSubstr("capacity_bytes=524287 is less than 2 segments"));
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

TEST_F(SsdTierTest, OneProcessHasTheDirectory) {
  ASSERT_TRUE(Open().ok());
  const auto second = SsdTier::Open(
      disk_, MakeMemoryIndex(), options_, nullptr,
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
  StoreLe<uint16_t>(page.page(0).data() + 8, 3);
  StoreLe<uint64_t>(page.page(0).data() + 4088, XXH3_64bits(page.page(0).data(), 4088));
  ASSERT_TRUE((*file)->Write(0, page.first(kDiskPageBytes)).ok());
  const std::vector<std::string> before = disk_.Paths();
  const absl::Status status = Open();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(Message(status), HasSubstr("/tier/seg-00000001.kseg: segment header.version: 3"));
  EXPECT_EQ(disk_.Paths(), before);
}

}  // namespace
}  // namespace kedge
