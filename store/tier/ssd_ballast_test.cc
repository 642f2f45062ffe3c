// A start on a disk that others have filled up.
#include "store/tier/ssd_ballast.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "store/tier/ssd_testing.h"

namespace kedge {
namespace {

constexpr uint64_t kBallastBytes = 16 * kDiskPageBytes;

// An index that has to write before it can be read, and does not survive a write that fails.
class HungryIndex final : public SsdIndex {
 public:
  HungryIndex(Disk& disk, IndexLog& log) : disk_(disk), index_(log) {}
  absl::Status Open() override {
    if (*disk_.FreeBytes("/tier") >= kBallastBytes) return index_.Open();
    EXPECT_FALSE(fragile) << "the process would have ended";
    return absl::ResourceExhaustedError("index /tier/index: open: no space left");
  }
  absl::Status Reset() override { return index_.Reset(); }
  absl::StatusOr<std::vector<SsdIndexMark>> Marks() override { return index_.Marks(); }
  absl::Status Add(std::span<const SsdIndexRecord> records, const SsdIndexMark& mark) override {
    EXPECT_TRUE(!fragile || *disk_.FreeBytes("/tier") > 0) << "the process would have ended";
    return index_.Add(records, mark);
  }
  absl::Status Visit(uint32_t segment,
                     absl::FunctionRef<absl::Status(const SsdIndexRecord&)> visit) override {
    return index_.Visit(segment, visit);
  }
  absl::Status Drop(uint32_t segment) override {
    EXPECT_TRUE(!fragile || *disk_.FreeBytes("/tier") > 0) << "the process would have ended";
    return index_.Drop(segment);
  }

  static inline bool fragile = false;

 private:
  Disk& disk_;
  LoggedIndex index_;
};

class SsdBallastTest : public SsdTierTest {
 protected:
  SsdBallastTest() { disk_.SetCapacityBytes(kPlenty); }

  absl::Status OpenHungry() { return Open(disk_, std::make_unique<HungryIndex>(disk_, log_)); }
  bool Held() const {
    const std::vector<std::string> paths = disk_.Paths();
    return std::count(paths.begin(), paths.end(), "/tier/ballast") != 0;
  }
  void FillDisk() { disk_.SetCapacityBytes(kPlenty - *disk_.FreeBytes("/tier")); }
  // As much as was there before, and nothing is free any more.
  void StartOnAFullDisk() {
    ASSERT_TRUE(OpenHungry().ok());
    for (uint64_t id = 0; id < 10; ++id) ASSERT_TRUE(Put(id).ok());
    tier_.reset();
    FillDisk();
    const absl::Status status = OpenHungry();
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(RecoveredIds().size(), 10u);
    EXPECT_TRUE(dropped_.empty());
  }

  static constexpr uint64_t kPlenty = 1 << 30;
};

TEST_F(SsdBallastTest, IsGivenUpForTheIndexAndLaidDownAgain) {
  options_.ballast_bytes = kBallastBytes;
  StartOnAFullDisk();
  EXPECT_TRUE(report_.index_error.empty()) << report_.index_error;
  EXPECT_EQ(report_.scanned_records, 0u);
  EXPECT_FALSE(Held());
  EXPECT_EQ(MetricReader(*tier_)["kedge_ssd_ballast_bytes"], 0);

  disk_.SetCapacityBytes(kPlenty);
  for (uint64_t id = 10; !Held() && id < 50; ++id) ASSERT_TRUE(Put(id).ok());  // the next segment
  EXPECT_TRUE(Held());
  EXPECT_EQ(MetricReader(*tier_)["kedge_ssd_ballast_bytes"], kBallastBytes);
}

TEST_F(SsdBallastTest, WithoutItTheIndexIsRebuiltInMemory) {
  // One page for the new segment's header, too little for the index.
  ASSERT_TRUE(OpenHungry().ok());
  for (uint64_t id = 0; id < 10; ++id) ASSERT_TRUE(Put(id).ok());
  tier_.reset();
  disk_.SetCapacityBytes(kPlenty - *disk_.FreeBytes("/tier") + kDiskPageBytes);
  const absl::Status status = OpenHungry();
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_NE(report_.index_error.find("no space left"), std::string::npos) << report_.index_error;
  EXPECT_EQ(report_.scanned_records, 10u);
  EXPECT_EQ(RecoveredIds().size(), 10u);
  EXPECT_EQ(MetricReader(*tier_)["kedge_ssd_index_in_memory"], 1);

  disk_.SetCapacityBytes(kPlenty);
  for (uint64_t id = 10; id < 14; ++id) ASSERT_TRUE(Put(id).ok());
  ASSERT_TRUE(OpenHungry().ok());  // the durable one lags; it is made up
  EXPECT_TRUE(report_.index_error.empty()) << report_.index_error;
  EXPECT_EQ(report_.scanned_records, 4u);
  EXPECT_EQ(RecoveredIds().size(), 14u);
}

// Others fill the disk while the tier works: the ballast first, then the index is left alone.
TEST_F(SsdBallastTest, ADiskThatFillsUpNeverMeetsTheIndex) {
  options_.ballast_bytes = kBallastBytes;
  ASSERT_TRUE(OpenHungry().ok());
  HungryIndex::fragile = true;
  for (uint64_t id = 0; id < 30; ++id) ASSERT_TRUE(Put(id).ok());
  FillDisk();
  EXPECT_TRUE(Put(30).ok()) << "the ballast is given up";
  EXPECT_FALSE(Held());
  EXPECT_EQ(MetricReader(*tier_)["kedge_ssd_index_in_memory"], 0);
  disk_.SetCapacityBytes(kPlenty);
  const uint64_t used = kPlenty - *disk_.FreeBytes("/tier");
  disk_.SetCapacityBytes(used);
  for (uint64_t id = 31; id < 40; ++id) {
    ASSERT_TRUE(Put(id).ok()) << "the oldest segment makes room";
  }
  EXPECT_FALSE(dropped_.empty());
  EXPECT_EQ(MetricReader(*tier_)["kedge_ssd_index_in_memory"], 1);
  const size_t live = 40 - dropped_.size();
  HungryIndex::fragile = false;
  disk_.SetCapacityBytes(kPlenty);
  ASSERT_TRUE(OpenHungry().ok());
  EXPECT_TRUE(report_.index_error.empty()) << report_.index_error;
  EXPECT_EQ(RecoveredIds().size(), live);
}

TEST_F(SsdBallastTest, AStartWithoutRoomLeavesTheIndexAlone) {
  options_.ballast_bytes = kBallastBytes;
  disk_.SetCapacityBytes(kBallastBytes + options_.segment_bytes);  // too little to lay it down
  ASSERT_TRUE(OpenHungry().ok());
  for (uint64_t id = 0; id < 10; ++id) ASSERT_TRUE(Put(id).ok());
  ASSERT_FALSE(Held());
  tier_.reset();
  disk_.SetCapacityBytes(kPlenty);
  disk_.SetCapacityBytes(kPlenty - *disk_.FreeBytes("/tier") + kDiskPageBytes);
  HungryIndex::fragile = true;
  const absl::Status status = OpenHungry();
  HungryIndex::fragile = false;
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_NE(report_.index_error.find("the disk is full"), std::string::npos) << report_.index_error;
  EXPECT_EQ(RecoveredIds().size(), 10u);
}

TEST_F(SsdBallastTest, OneThatWasNotFinishedIsMadeAnew) {
  options_.ballast_bytes = kBallastBytes;
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(Held());
  tier_.reset();
  disk_.Truncate("/tier/ballast", kDiskPageBytes);
  ASSERT_TRUE(Open().ok());
  EXPECT_EQ(*(*disk_.Open("/tier/ballast", false))->Size(), kBallastBytes);
  options_.ballast_bytes = 0;
  ASSERT_TRUE(Open().ok());
  EXPECT_FALSE(Held());
}

TEST_F(SsdBallastTest, IsNotLaidDownWhereRoomIsScarce) {
  options_.ballast_bytes = kBallastBytes;
  disk_.SetCapacityBytes(2 * kBallastBytes + options_.segment_bytes);
  ASSERT_TRUE(Open().ok());
  EXPECT_FALSE(Held());
}

}  // namespace
}  // namespace kedge
