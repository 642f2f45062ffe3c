#include "store/tier/tier_host.h"

#include <cstring>
#include <map>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "store/tier/size_class.h"
#include "store/world/random.h"

namespace kedge {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kKiB = 1024, kMiB = 1024 * kKiB;

std::unique_ptr<HostTier> Make(uint64_t extents) {
  auto tier = HostTier::Create({.capacity_bytes = extents * kHostExtentBytes});
  EXPECT_TRUE(tier.ok()) << tier.status();
  return *std::move(tier);
}

TEST(SizeClasses, EverySizeHasAClassThatHoldsIt) {
  for (uint64_t bytes = kHostExtentBytes; bytes >= kHostExtentBytesMin; bytes /= 2) {
    const auto extent_pages = static_cast<uint32_t>(bytes / kDiskPageBytes);
    const SizeClasses classes(extent_pages);
    EXPECT_LT(classes.count(), 100);
    EXPECT_EQ(classes.pages(classes.count() - 1), extent_pages);
    for (uint32_t pages = 1; pages <= extent_pages; ++pages) {
      const int found = classes.ClassOf(pages);
      ASSERT_GE(classes.pages(found), pages);
      ASSERT_TRUE(found == 0 || classes.pages(found - 1) < pages);
      const double waste_max = pages <= extent_pages / 5 ? 1.25 : 2;
      ASSERT_LE(classes.pages(found), pages * waste_max) << pages << " of " << extent_pages;
      // What is left of an extent behind its last slot.
      const uint32_t left = extent_pages - classes.slots_per_extent(found) * classes.pages(found);
      ASSERT_LT(left, extent_pages / 40) << pages << " of " << extent_pages;
    }
  }
}

TEST(SizeClasses, ImagesOfPowersOfTwoWasteLittle) {
  const SizeClasses classes(kHostExtentBytes / kDiskPageBytes);
  for (uint64_t payload = 4 * kKiB; payload <= 64 * kMiB; payload *= 2) {
    const uint64_t image = payload + kDiskPageBytes;
    const uint64_t fit = classes.slots_per_extent(classes.ClassOf(image / kDiskPageBytes));
    EXPECT_GT(fit * image, kHostExtentBytes * 99 / 100) << payload;
  }
  EXPECT_EQ(classes.slots_per_extent(classes.ClassOf(257)), 64u);
}

TEST(HostTier, RefusesCapacityThatCannotBe) {
  const auto small = HostTier::Create({.capacity_bytes = kHostExtentBytes - 1});
  EXPECT_EQ(small.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(small.status().message()),
              HasSubstr("capacity_bytes=" + std::to_string(kHostExtentBytes - 1)));
  const auto large = HostTier::Create({.capacity_bytes = 1ull << 50});
  EXPECT_EQ(large.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(large.status().message()), HasSubstr("capacity_bytes=1125899906842624 is "
                                                               "more than the "));
}

TEST(HostTier, RoundsDownToExtents) {
  const auto tier = HostTier::Create({.capacity_bytes = 2 * kHostExtentBytes + 12345});
  ASSERT_TRUE(tier.ok());
  EXPECT_EQ((*tier)->capacity_bytes(), 2 * kHostExtentBytes);
  EXPECT_EQ((*tier)->used_bytes(), 0u);
}

TEST(HostTier, SizesOutsideOfAnExtentAreInvalid) {
  const auto tier = Make(1);
  for (const uint64_t bytes : {uint64_t{0}, kHostExtentBytes + 1}) {
    const auto slot = tier->Allocate(bytes, 1);
    EXPECT_EQ(slot.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(slot.status().message()), HasSubstr("bytes=" + std::to_string(bytes)));
  }
  const auto whole = tier->Allocate(kHostExtentBytes, 1);
  ASSERT_TRUE(whole.ok());
  EXPECT_EQ(tier->SlotBytes(*whole), kHostExtentBytes);
  EXPECT_EQ(tier->Allocate(1, 2).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(HostTier, SmallTiersHaveSmallExtents) {
  EXPECT_EQ(HostExtentBytes(kHostExtentBytes), kHostExtentBytesMin);
  EXPECT_EQ(HostExtentBytes(1024 * kMiB), kHostExtentBytes / 8);
  EXPECT_EQ(HostExtentBytes(64 * kHostExtentBytes), kHostExtentBytes);
  EXPECT_EQ(HostExtentBytes(1ull << 40), kHostExtentBytes);
  EXPECT_EQ(Make(1)->extent_bytes(), kHostExtentBytesMin);
}

TEST(HostTier, WhatIsLargerThanAnExtentGetsARowOfThem) {
  const auto tier = Make(1);  // 16 extents
  const uint64_t extent = tier->extent_bytes();
  std::vector<HostSlot> slots;
  for (uint64_t owner = 0; owner < 5; ++owner) slots.push_back(*tier->Allocate(3 * extent, owner));
  EXPECT_EQ(tier->used_bytes(), 15 * extent);
  const HostSlot small = *tier->Allocate(kDiskPageBytes, 5);
  EXPECT_EQ(tier->Allocate(2 * extent, 6).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(tier->MakesRoom(slots[2], 2 * extent));
  EXPECT_TRUE(tier->MakesRoom(slots[2], kDiskPageBytes));
  EXPECT_FALSE(tier->MakesRoom(slots[2], 4 * extent));
  EXPECT_FALSE(tier->MakesRoom(small, 2 * extent));
  tier->Free(slots[2]);
  const HostSlot other = *tier->Allocate(2 * extent, 6);
  EXPECT_EQ(tier->SlotBytes(other), 2 * extent);
  // A row that is asked for takes whole rows: the small one's extent has no neighbour that would
  // do.
  EXPECT_EQ(tier->ExtentOwners(5 * extent, 0).size(), 2u);
  for (const uint64_t owner : tier->ExtentOwners(16 * extent, 0)) {
    tier->Free(owner == 5 ? small : owner == 6 ? other : slots[owner]);
  }
  EXPECT_EQ(tier->used_bytes(), 0u);
  EXPECT_TRUE(tier->Allocate(16 * extent, 0).ok());
}

TEST(HostTier, ExtentsMoveBetweenClasses) {
  const auto tier = Make(2);
  const uint64_t in_extent = tier->extent_bytes() / kMiB;
  std::vector<HostSlot> slots;
  while (true) {
    const auto slot = tier->Allocate(kMiB + kDiskPageBytes, slots.size());
    if (!slot.ok()) break;
    slots.push_back(*slot);
  }
  EXPECT_EQ(slots.size(), 128u);
  EXPECT_FALSE(tier->Allocate(64 * kKiB, 0).ok());
  EXPECT_TRUE(tier->MakesRoom(slots[0], kMiB));
  EXPECT_FALSE(tier->MakesRoom(slots[0], 64 * kKiB));

  tier->Free(slots[5]);  // now its extent is the cheapest to empty
  const std::vector<uint64_t> owners = tier->ExtentOwners(64 * kKiB, 0);
  EXPECT_EQ(owners.size(), in_extent - 1);
  EXPECT_TRUE(tier->ExtentOwners(kMiB, 0).empty());
  for (const uint64_t owner : owners) {
    ASSERT_NE(owner, 5u);
    EXPECT_FALSE(tier->Allocate(64 * kKiB, 0).ok());
    tier->Free(slots[owner]);
  }
  const auto moved = tier->Allocate(64 * kKiB, 7);
  ASSERT_TRUE(moved.ok());
  EXPECT_EQ(tier->ExtentOwners(kMiB, 0), std::vector<uint64_t>{7});
  tier->SetOwner(*moved, 8);
  EXPECT_EQ(tier->ExtentOwners(kMiB, 0), std::vector<uint64_t>{8});
}

TEST(HostTierDeath, FreeingTwiceAborts) {
  const auto tier = Make(1);
  const HostSlot first = *tier->Allocate(kMiB, 1);
  const HostSlot second = *tier->Allocate(kMiB, 2);
  tier->Free(first);
  EXPECT_DEATH(tier->Free(first), "not in use");
  EXPECT_DEATH(tier->Free(HostSlot{second.id + 1}), "not in use");
  EXPECT_DEATH(tier->Free(HostSlot{}), "no such host slot");
}

// Random allocations and frees against the simplest model: a map of slots with their owners and
// sizes. Every slot carries a pattern of its owner's at both ends, so overlapping slots would show.
TEST(HostTier, AgreesWithANaiveModel) {
  struct Held {
    HostSlot slot;
    uint64_t bytes;
  };
  constexpr uint64_t kSizes[] = {1,           4 * kKiB, 17 * 4 * kKiB, 300 * kKiB,
                                 kMiB + 4096, 5 * kMiB, 9 * kMiB,      33 * kMiB};
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Random random(seed);
    const auto tier = Make(4);
    std::map<uint64_t, Held> held;
    uint64_t next_owner = 1, expected_used = 0;
    const auto release = [&](uint64_t owner) {
      const Held item = held.at(owner);
      uint64_t front = 0, back = 0;
      uint8_t* data = tier->Data(item.slot);
      std::memcpy(&front, data, sizeof front);
      std::memcpy(&back, data + tier->SlotBytes(item.slot) - sizeof back, sizeof back);
      ASSERT_EQ(front, owner);
      ASSERT_EQ(back, owner);
      expected_used -= tier->SlotBytes(item.slot);
      tier->Free(item.slot);
      held.erase(owner);
    };
    for (int step = 0; step < 2000; ++step) {
      if (!held.empty() && random.Chance(0.45)) {
        auto it = held.lower_bound(1 + random.Below(next_owner));
        if (it == held.end()) it = held.begin();
        ASSERT_NO_FATAL_FAILURE(release(it->first));
        continue;
      }
      const uint64_t bytes = kSizes[random.Below(std::size(kSizes))];
      auto slot = tier->Allocate(bytes, next_owner);
      if (!slot.ok()) {
        ASSERT_EQ(slot.status().code(), absl::StatusCode::kResourceExhausted);
        // Emptying the extent it names must help.
        const std::vector<uint64_t> owners = tier->ExtentOwners(bytes, 0);
        if (owners.empty()) {
          ASSERT_TRUE(tier->MakesRoom(held.begin()->second.slot, bytes));
          ASSERT_NO_FATAL_FAILURE(release(held.begin()->first));
        }
        for (const uint64_t owner : owners) ASSERT_NO_FATAL_FAILURE(release(owner));
        slot = tier->Allocate(bytes, next_owner);
        ASSERT_TRUE(slot.ok()) << slot.status();
      }
      ASSERT_GE(tier->SlotBytes(*slot), bytes);
      uint8_t* data = tier->Data(*slot);
      ASSERT_EQ(reinterpret_cast<uintptr_t>(data) % kDiskPageBytes, 0u);
      std::memcpy(data, &next_owner, sizeof next_owner);
      std::memcpy(data + tier->SlotBytes(*slot) - sizeof next_owner, &next_owner,
                  sizeof next_owner);
      expected_used += tier->SlotBytes(*slot);
      held.emplace(next_owner++, Held{*slot, bytes});
      ASSERT_EQ(tier->used_bytes(), expected_used);
    }
    while (!held.empty()) ASSERT_NO_FATAL_FAILURE(release(held.begin()->first));
    EXPECT_EQ(tier->used_bytes(), 0u);
    // All is one piece again.
    for (int i = 0; i < 4; ++i) EXPECT_TRUE(tier->Allocate(kHostExtentBytes, i).ok());
  }
}

}  // namespace
}  // namespace kedge
