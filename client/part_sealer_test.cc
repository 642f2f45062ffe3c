#include "client/part_sealer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include "store/world/random.h"

namespace kedge {
namespace {

BlockHeader HeaderOf(const std::vector<uint32_t>& part_bytes, uint8_t name) {
  BlockHeader header;
  header.key.bytes[0] = name;
  header.variant = Variant::Raw();
  for (uint32_t bytes : part_bytes) header.parts.push_back({bytes, {}});
  return header;
}

std::vector<uint8_t> RandomBytes(uint64_t bytes, Random& random) {
  std::vector<uint8_t> out(bytes);
  for (uint8_t& byte : out) byte = static_cast<uint8_t>(random.Next());
  return out;
}

// Parts in a random order, each in runs of random lengths, some across the border to the next part.
TEST(PartSealer, RunsOfAnyLengthMakeTheDigestsOfWholeParts) {
  Random random(1);
  for (int round = 0; round < 50; ++round) {
    std::vector<uint32_t> sizes;
    for (uint64_t i = 1 + random.Below(8); i > 0; --i) {
      sizes.push_back(static_cast<uint32_t>(1 + random.Below(3000)));
    }
    BlockHeader header = HeaderOf(sizes, 1);
    const std::vector<uint8_t> payload = RandomBytes(header.payload_bytes(), random);
    std::vector<uint32_t> order(sizes.size());
    std::iota(order.begin(), order.end(), 0);
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.Below(i)]);

    PartSealer sealer;
    for (uint32_t part : order) {
      const uint64_t end = header.part_offset(part) + sizes[part];
      for (uint64_t at = header.part_offset(part); at < end;) {
        const uint64_t n = 1 + random.Below(end - at);
        sealer.Add(header, at, std::span(payload).subspan(at, n));
        at += n;
      }
    }
    EXPECT_TRUE(VerifyPayload(header, payload).ok()) << "round " << round;
  }
}

TEST(PartSealer, OneRunMayHoldManyParts) {
  Random random(2);
  BlockHeader header = HeaderOf({10, 300, 1, 4096, 77}, 1);
  const std::vector<uint8_t> payload = RandomBytes(header.payload_bytes(), random);
  PartSealer sealer;
  sealer.Add(header, 0, std::span(payload).first(200));  // the second part is under way
  sealer.Add(header, 200, std::span(payload).subspan(200));
  EXPECT_TRUE(VerifyPayload(header, payload).ok());
}

TEST(PartSealer, ABlockThatWasLeftBehindDoesNotTouchTheNext) {
  Random random(3);
  BlockHeader left = HeaderOf({1000}, 1);
  BlockHeader header = HeaderOf({1000}, 2);
  const std::vector<uint8_t> payload = RandomBytes(1000, random);
  PartSealer sealer;
  sealer.Add(left, 0, std::span(payload).first(400));
  sealer.Add(header, 0, std::span(payload).first(500));
  sealer.Add(header, 500, std::span(payload).subspan(500));
  EXPECT_TRUE(VerifyPayload(header, payload).ok());
}

TEST(PartSealerDeathTest, RefusesToBeginInTheMiddleOfAPart) {
  BlockHeader header = HeaderOf({100, 100}, 1);
  const std::vector<uint8_t> bytes(10);
  PartSealer sealer;
  EXPECT_DEATH(sealer.Add(header, 50, bytes), "middle of a part");
}

}  // namespace
}  // namespace kedge
