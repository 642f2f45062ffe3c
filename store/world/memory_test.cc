#include "store/world/memory.h"

#include <algorithm>
#include <fstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kedge {
namespace {

uint64_t ResidentBytes() {
  std::ifstream file("/proc/self/statm");
  uint64_t size = 0, resident = 0;
  file >> size >> resident;
  return resident * 4096;
}

TEST(MemoryLimit, IsWhatTheMachineHasOrLess) {
  const MemoryLimit limit = MemoryLimitOfProcess();
  EXPECT_GT(limit.bytes, 64u << 20);
  std::ifstream file("/proc/meminfo");
  std::string name;
  uint64_t total_kib = 0;
  file >> name >> total_kib;
  EXPECT_LE(limit.bytes, total_kib << 10);
  EXPECT_FALSE(limit.source.empty());
}

TEST(MemoryArena, IsZeroAndTouchedOnlyWhenUsed) {
  constexpr uint64_t kBytes = 4ull << 30;
  const uint64_t before = ResidentBytes();
  const auto arena = MemoryArena::Create("kedge-test", kBytes);
  ASSERT_TRUE(arena.ok()) << arena.status();
  EXPECT_EQ((*arena)->bytes(), kBytes);
  uint8_t* data = (*arena)->data();
  EXPECT_EQ(data[0] + data[kBytes - 1], 0);
  data[kBytes / 2] = 9;
  EXPECT_EQ(data[kBytes / 2], 9);
  EXPECT_LT(ResidentBytes() - std::min(before, ResidentBytes()), 64u << 20);
}

TEST(MemoryArena, NamesWhatItCouldNotGet) {
  const auto arena = MemoryArena::Create("kedge-test", 1ull << 62);
  EXPECT_EQ(arena.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(arena.status().message()), testing::HasSubstr("arena kedge-test: "));
  EXPECT_THAT(std::string(arena.status().message()),
              testing::HasSubstr("4611686018427387904 bytes"));
}

}  // namespace
}  // namespace kedge
