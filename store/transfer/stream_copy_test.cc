#include "store/transfer/stream_copy.h"

#include <cstdint>
#include <vector>

#include "gtest/gtest.h"

namespace kedge {
namespace {

TEST(StreamCopy, EverySizeAndAlignment) {
  std::vector<uint8_t> source(1000);
  for (size_t i = 0; i < source.size(); ++i) source[i] = static_cast<uint8_t>(i * 7 + 1);
  for (size_t bytes = 0; bytes < 300; ++bytes) {
    for (size_t to = 0; to < 66; to += 3) {
      for (size_t from = 0; from < 18; from += 5) {
        std::vector<uint8_t> target(500, 0xAA), expected(500, 0xAA);
        std::copy_n(source.begin() + from, bytes, expected.begin() + to);
        StreamCopy(target.data() + to, source.data() + from, bytes);
        ASSERT_EQ(target, expected) << bytes << " bytes to +" << to << " from +" << from;
      }
    }
  }
}

}  // namespace
}  // namespace kedge
