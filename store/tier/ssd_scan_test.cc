#include "store/tier/ssd_scan.h"

#include <set>

#include "gtest/gtest.h"
#include "store/tier/ssd_testing.h"
#include "store/tier/tier_ssd.h"

namespace kedge {
namespace {

using SsdScanTest = SsdTierTest;

// Ten blocks in one segment, one page of it damaged; the index is gone.
TEST_F(SsdScanTest, DamageCostsTheDamagedRecordOnly) {
  struct Case {
    uint64_t page;
    std::set<uint64_t> lost;
  };
  // Page 0 is the segment's header; block n has its record header at 1 + 5n, its header behind,
  // then 3 pages of payload.
  for (const Case& damage : {Case{0, {}}, Case{1, {0}}, Case{2, {0}}, Case{3, {0}}, Case{21, {4}},
                             Case{22, {4}}, Case{25, {4}}, Case{46, {9}}, Case{50, {9}}}) {
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

TEST_F(SsdScanTest, AFileThatWasCutKeepsItsBeginning) {
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

// The disk's way to memory fails now and then: a start finds less, but never something wrong, and
// removes nothing.
TEST_F(SsdScanTest, FlippedBitsOnReadAreFoundAndDoNoLastingHarm) {
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

}  // namespace
}  // namespace kedge
