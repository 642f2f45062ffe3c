#include "gpu/codec/block_codec.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

namespace kedge::codec {
namespace {

constexpr int64_t kTokens = 32;

BlockHeader RawHeader(uint32_t depth) {
  BlockHeader header;
  header.key.bytes[0] = 7;
  if (depth != 0) header.parent.bytes[0] = 6;
  header.chain_depth = depth;
  header.keyspace = Keyspace::kPrefix;
  header.variant = Variant::Raw();
  header.model = ModelId::Of("w", "", "", 1e4);
  header.rope = RopeState::kRotated;
  header.rope_base_position = depth * kTokens;
  header.shape = KvShape::KeysAndValues(2, 2, 64, kTokens, DType::kF32);
  header.parts.resize(header.shape.part_count());
  for (PartEntry& part : header.parts) part.bytes = header.shape.raw_part_bytes();
  return header;
}

std::vector<uint8_t> Payload(const BlockHeader& header) {
  std::mt19937 random(header.chain_depth + 1);
  std::vector<float> values(header.payload_bytes() / sizeof(float));
  for (float& value : values) value = static_cast<float>(random()) / 4e9f - 0.5f;
  std::vector<uint8_t> bytes(header.payload_bytes());
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

TEST(BlockCodec, PartsAreOrderedByLayerThenComponent) {
  const KvShape shape = RawHeader(0).shape;
  for (uint32_t part = 0; part < shape.part_count(); ++part) {
    const PartPlace place = PlaceOfPart(shape, part);
    EXPECT_EQ(*shape.PartIndex(place.layer, place.component), part);
  }
}

// Part by part, what CodecChain makes; the header says what it is.
TEST(BlockCodec, RecodesToWhatTheChainEncodes) {
  const CodecChain chain = *CodecChain::Parse("kivi4g32");
  const KeyRotation rotation = *KeyRotation::Of(1e4, "", 64);
  for (uint32_t depth : {0u, 3u}) {
    const BlockHeader raw = RawHeader(depth);
    const std::vector<uint8_t> payload = Payload(raw);
    auto block = RecodeBlock(*CodecChain::Parse("raw"), raw, payload, chain, rotation);
    ASSERT_TRUE(block.ok()) << block.status();
    EXPECT_EQ(block->header.variant.view(), "kivi4g32");
    EXPECT_EQ(block->header.fidelity, Fidelity::kQuantized);
    EXPECT_EQ(block->header.rope, RopeState::kUnrotated);
    EXPECT_EQ(block->header.model, raw.model);
    ASSERT_TRUE(EncodeBlockHeader(block->header).ok());
    EXPECT_TRUE(VerifyPayload(block->header, block->payload).ok());

    const auto table = rotation.Table(depth * kTokens, kTokens);
    for (uint32_t part = 0; part < raw.parts.size(); ++part) {
      const PartPlace place = PlaceOfPart(raw.shape, part);
      std::vector<uint8_t> want(*chain.MaxPartBytes(raw.shape, place.component, depth == 0));
      const auto size = chain.EncodePart(
          {raw.shape, place.layer, place.component, &*table}, depth == 0,
          std::span(payload).subspan(raw.part_offset(part), raw.parts[part].bytes), want);
      ASSERT_TRUE(size.ok()) << size.status();
      want.resize(*size);
      const auto got =
          std::span(block->payload)
              .subspan(block->header.part_offset(part), block->header.parts[part].bytes);
      EXPECT_TRUE(std::equal(got.begin(), got.end(), want.begin(), want.end())) << part;
    }
  }
}

// From a lossy variant to a smaller one: no rotation is needed any more, and the first tokens stay.
TEST(BlockCodec, RecodesALossyVariant) {
  const CodecChain kivi8 = *CodecChain::Parse("kivi8g32");
  const CodecChain kivi2 = *CodecChain::Parse("kivi2g32");
  const KeyRotation rotation = *KeyRotation::Of(1e4, "", 64);
  const BlockHeader raw = RawHeader(0);
  const std::vector<uint8_t> payload = Payload(raw);
  auto first = RecodeBlock(*CodecChain::Parse("raw"), raw, payload, kivi8, rotation);
  ASSERT_TRUE(first.ok()) << first.status();
  auto second = RecodeBlock(kivi8, first->header, first->payload, kivi2, KeyRotation());
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(second->header.rope, RopeState::kUnrotated);
  EXPECT_LT(second->payload.size(), first->payload.size());

  const auto table = rotation.Table(0, kTokens);
  std::vector<uint8_t> decoded(raw.shape.raw_part_bytes());
  const std::span<uint8_t> page(decoded);
  ASSERT_TRUE(kivi2
                  .DecodePart({raw.shape, 0, Component::kK, &*table},
                              std::span(second->payload).first(second->header.parts[0].bytes),
                              {{&page, 1}, kTokens})
                  .ok());
  const uint64_t row = raw.shape.raw_part_bytes() / kTokens;
  EXPECT_TRUE(std::equal(decoded.begin(), decoded.begin() + 4 * row, payload.begin()));
  float error = 0;
  for (size_t i = 0; i < decoded.size() / 4; ++i) {
    float is, was;
    std::memcpy(&is, decoded.data() + 4 * i, 4);
    std::memcpy(&was, payload.data() + 4 * i, 4);
    error = std::max(error, std::abs(is - was));
  }
  EXPECT_LT(error, 0.5f);  // 2 bits of values within [-0.5, 0.5]
}

TEST(BlockCodec, RefusesWhatItCannotTurn) {
  const CodecChain raw_chain = *CodecChain::Parse("raw");
  const CodecChain chain = *CodecChain::Parse("kivi4g32");
  const BlockHeader raw = RawHeader(1);
  const auto unknown = RecodeBlock(raw_chain, raw, Payload(raw), chain, KeyRotation());
  EXPECT_EQ(unknown.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(unknown.status().message().find(raw.model.ToHex()), std::string::npos);

  BlockHeader opaque;
  opaque.parts = {{16, {}}};
  EXPECT_EQ(RecodeBlock(raw_chain, opaque, std::vector<uint8_t>(16), chain, KeyRotation())
                .status()
                .code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_FALSE(KeyRotation::Of(1e4, "yarn factor=4", 64).ok());
  EXPECT_FALSE(KeyRotation::Of(1e4, "", 63).ok());
  EXPECT_TRUE(KeyRotation::Of(0, "yarn factor=4", 64)->none());
}

}  // namespace
}  // namespace kedge::codec
