#include "proto/crc32c.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>
#include <string_view>
#include <vector>

namespace kedge {
namespace {

// RFC 3720, appendix B.4, and the check value of the CRC catalogue.
TEST(Crc32c, KnownValues) {
  std::vector<uint8_t> bytes(32, 0);
  EXPECT_EQ(Crc32c(bytes), 0x8a9136aau);
  bytes.assign(32, 0xff);
  EXPECT_EQ(Crc32c(bytes), 0x62a8ab43u);
  std::iota(bytes.begin(), bytes.end(), 0);
  EXPECT_EQ(Crc32c(bytes), 0x46dd794eu);
  const std::string_view check = "123456789";
  EXPECT_EQ(Crc32c({reinterpret_cast<const uint8_t*>(check.data()), check.size()}), 0xe3069283u);
  EXPECT_EQ(Crc32c({}), 0u);
}

TEST(Crc32c, InstructionAgreesWithTableAtEveryLengthAndAlignment) {
  std::vector<uint8_t> bytes(200);
  std::mt19937 random(1);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  for (size_t begin = 0; begin < 9; ++begin) {
    for (size_t size = 0; begin + size <= bytes.size(); ++size) {
      const auto part = std::span<const uint8_t>(bytes).subspan(begin, size);
      ASSERT_EQ(Crc32c(part), ExtendCrc32cPortable(0, part)) << begin << " " << size;
    }
  }
}

TEST(Crc32c, ExtendsOverPieces) {
  std::vector<uint8_t> bytes(100);
  std::iota(bytes.begin(), bytes.end(), 5);
  const auto whole = std::span<const uint8_t>(bytes);
  for (size_t cut = 0; cut <= bytes.size(); ++cut) {
    EXPECT_EQ(ExtendCrc32c(Crc32c(whole.first(cut)), whole.subspan(cut)), Crc32c(whole));
  }
}

}  // namespace
}  // namespace kedge
