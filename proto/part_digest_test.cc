// Digests of parts: streams, seeds and the library's SIMD builds agree.
#include <gtest/gtest.h>
#include <xxhash.h>

#include <algorithm>
#include <numeric>

#include "proto/block_header.h"

namespace kedge {
namespace {

std::vector<uint8_t> Pattern(size_t bytes) {
  std::vector<uint8_t> out(bytes);
  uint32_t state = 1;
  for (uint8_t& byte : out)
    byte = static_cast<uint8_t>((state = state * 1664525 + 1013904223) >> 24);
  return out;
}

BlockKey Key(uint8_t first) {
  BlockKey key;
  std::iota(key.bytes.begin(), key.bytes.end(), first);
  return key;
}

// The portable functions of libxxhash, applied as proto/README.md says.
Digest128 ByDefinition(const BlockKey& key, const Variant& variant, uint32_t part,
                       std::span<const uint8_t> bytes) {
  std::vector<uint8_t> name(key.bytes.begin(), key.bytes.end());
  name.insert(name.end(), variant.name.begin(), variant.name.end());
  for (int shift = 0; shift < 32; shift += 8) name.push_back(static_cast<uint8_t>(part >> shift));
  const XXH128_hash_t hash =
      XXH3_128bits_withSeed(bytes.data(), bytes.size(), XXH3_64bits(name.data(), name.size()));
  return Digest128{.low = hash.low64, .high = hash.high64};
}

TEST(PartDigest, EqualsItsDefinitionAtManyLengths) {
  const std::vector<uint8_t> bytes = Pattern(20000);
  for (size_t size :
       {0, 1, 3, 8, 16, 17, 128, 129, 240, 241, 255, 256, 257, 1023, 1024, 1025, 4096, 20000}) {
    const auto span = std::span(bytes).first(size);
    EXPECT_EQ(PartDigest(Key(1), Variant::Raw(), 5, span),
              ByDefinition(Key(1), Variant::Raw(), 5, span))
        << size;
  }
}

TEST(PartDigest, KeyVariantAndPartAreInTheSeed) {
  const std::vector<uint8_t> bytes = Pattern(1000);
  const Digest128 digest = PartDigest(Key(1), Variant::Raw(), 0, bytes);
  EXPECT_NE(digest, PartDigest(Key(2), Variant::Raw(), 0, bytes));
  EXPECT_NE(digest, PartDigest(Key(1), *Variant::Parse("kivi4g32"), 0, bytes));
  EXPECT_NE(digest, PartDigest(Key(1), Variant::Raw(), 1, bytes));
}

TEST(PartDigest, EveryFlippedBitIsSeen) {
  std::vector<uint8_t> bytes = Pattern(300);
  const Digest128 digest = PartDigest(Key(1), Variant::Raw(), 0, bytes);
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    bytes[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
    ASSERT_NE(PartDigest(Key(1), Variant::Raw(), 0, bytes), digest) << bit;
    bytes[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
  }
}

TEST(PartDigester, StreamEqualsOneShot) {
  const std::vector<uint8_t> bytes = Pattern(300000);
  PartDigester digester;
  for (size_t step : {1u, 7u, 64u, 255u, 256u, 1000u, 65536u, 262144u, 300000u}) {
    for (size_t size : {0u, 1u, 240u, 241u, 1024u, 5000u, 300000u}) {
      if (size / step > 20000) continue;
      digester.Reset(Key(9), Variant::Raw(), 3);
      for (size_t at = 0; at < size; at += step) {
        digester.Update(std::span(bytes).subspan(at, std::min(step, size - at)));
      }
      ASSERT_EQ(digester.Finish(),
                PartDigest(Key(9), Variant::Raw(), 3, std::span(bytes).first(size)))
          << step << " " << size;
    }
  }
}

TEST(PartDigester, FinishDoesNotEndTheStreamAndMovesKeepIt) {
  const std::vector<uint8_t> bytes = Pattern(2000);
  PartDigester digester;
  digester.Reset(Key(1), Variant::Raw(), 0);
  digester.Update(std::span(bytes).first(1500));
  EXPECT_EQ(digester.Finish(), PartDigest(Key(1), Variant::Raw(), 0, std::span(bytes).first(1500)));
  PartDigester moved = std::move(digester);
  moved.Update(std::span(bytes).subspan(1500));
  EXPECT_EQ(moved.Finish(), PartDigest(Key(1), Variant::Raw(), 0, bytes));
}

TEST(VerifyPayload, FindsDamageAndWrongNames) {
  std::vector<uint8_t> payload = Pattern(1000);
  BlockHeader header;
  header.key = Key(1);
  header.variant = Variant::Raw();
  const auto all = std::span<const uint8_t>(payload);
  header.parts = {{600, PartDigest(header.key, header.variant, 0, all.first(600))},
                  {400, PartDigest(header.key, header.variant, 1, all.subspan(600))}};
  EXPECT_TRUE(VerifyPayload(header, payload).ok());
  EXPECT_TRUE(VerifyPart(header, 1, all.subspan(600)).ok());

  EXPECT_EQ(VerifyPart(header, 1, all.first(400)).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(VerifyPart(header, 1, all.first(399)).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(VerifyPart(header, 2, all).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(VerifyPayload(header, all.first(999)).code(), absl::StatusCode::kDataLoss);

  BlockHeader renamed = header;  // right bytes under a wrong name
  renamed.key = Key(2);
  const absl::Status status = VerifyPayload(renamed, payload);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_NE(status.ToString().find(renamed.key.ToHex()), std::string::npos);
  EXPECT_NE(status.ToString().find("variant raw part 0"), std::string::npos) << status;
  renamed = header;
  renamed.variant = *Variant::Parse("kivi2g32");
  EXPECT_FALSE(VerifyPayload(renamed, payload).ok());

  payload[700] ^= 0x10;
  EXPECT_NE(VerifyPayload(header, payload).ToString().find("part 1"), std::string::npos);
}

}  // namespace
}  // namespace kedge
