#include "tools/replay/payload.h"

#include <vector>

#include "gtest/gtest.h"

namespace kedge {
namespace {

std::vector<uint8_t> Part(uint64_t hash_id, uint32_t part, size_t bytes) {
  std::vector<uint8_t> filled(bytes);
  FillPart(hash_id, part, filled);
  return filled;
}

TEST(PayloadTest, AcceptsItsOwnBytesOnly) {
  for (size_t bytes : {1, 7, 8, 9, 64, 1000}) {
    std::vector<uint8_t> part = Part(5, 3, bytes);
    EXPECT_EQ(FirstWrongByte(5, 3, part), std::nullopt);
    EXPECT_EQ(Part(5, 3, bytes), part) << "the same every time";
    if (bytes < 8) continue;  // few bytes may agree by chance
    EXPECT_NE(FirstWrongByte(6, 3, part), std::nullopt);
    EXPECT_NE(FirstWrongByte(5, 4, part), std::nullopt);
  }
}

TEST(PayloadTest, SaysWhereTheFirstWrongByteIs) {
  for (size_t at : {0, 1, 7, 8, 500, 998, 999}) {
    std::vector<uint8_t> part = Part(1ull << 60, 0, 1000);
    part[at] ^= 1;
    EXPECT_EQ(FirstWrongByte(1ull << 60, 0, part), at);
  }
}

}  // namespace
}  // namespace kedge
