#include "proto/block_header.h"

#include <gtest/gtest.h>

#include <functional>
#include <numeric>

#include "proto/header_digest.h"
#include "proto/wire.h"

namespace kedge {
namespace {

constexpr size_t kRootAt = 16;

// A prefix block of two layers, raw.
BlockHeader Sample() {
  BlockHeader header;
  std::iota(header.key.bytes.begin(), header.key.bytes.end(), 1);
  std::iota(header.parent.bytes.begin(), header.parent.bytes.end(), 101);
  header.placement = 0x1122334455667788;
  header.chain_depth = 3;
  header.keyspace = Keyspace::kPrefix;
  header.rope = RopeState::kRotated;
  header.rope_base_position = 96;
  header.variant = Variant::Raw();
  header.shape = KvShape::KeysAndValues(2, 2, 64, 32, DType::kBf16);
  for (uint32_t part = 0; part < header.shape.part_count(); ++part) {
    const std::vector<uint8_t> bytes(header.shape.raw_part_bytes(), static_cast<uint8_t>(part));
    header.parts.push_back(
        {static_cast<uint32_t>(bytes.size()), PartDigest(header.key, header.variant, part, bytes)});
  }
  return header;
}

BlockHeader OpaqueSample(uint32_t bytes) {
  BlockHeader header;
  header.key.bytes[0] = 7;
  header.variant = Variant::Raw();
  header.parts = {{bytes, {1, 2}}};
  return header;
}

std::vector<uint8_t> Encoded(BlockHeader header) {
  auto bytes = EncodeBlockHeader(header);
  EXPECT_TRUE(bytes.ok()) << bytes.status();
  return *std::move(bytes);
}

// What a writer that lies, but computes a right root digest, would send.
void Reseal(std::vector<uint8_t>& bytes) {
  BlockKey key;
  Variant variant;
  std::memcpy(key.bytes.data(), bytes.data() + 32, 32);
  std::memcpy(variant.name.data(), bytes.data() + 96, kVariantBytes);
  const Digest128 root = RootDigest(key, variant, bytes, kRootAt);
  StoreLe(bytes.data() + kRootAt, root.low);
  StoreLe(bytes.data() + kRootAt + 8, root.high);
}

TEST(BlockHeader, RoundTrip) {
  BlockHeader header = Sample();
  const auto bytes = EncodeBlockHeader(header);
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  EXPECT_EQ(bytes->size(), header.encoded_bytes());
  EXPECT_EQ(*PeekBlockHeaderBytes(std::span(*bytes).first(kBlockHeaderPrefixBytes)), bytes->size());

  std::vector<uint8_t> longer = *bytes;  // what follows the header is not its business
  longer.resize(longer.size() + 100, 0xee);
  const auto decoded = DecodeBlockHeader(longer);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->key, header.key);
  EXPECT_EQ(decoded->parent, header.parent);
  EXPECT_EQ(decoded->placement, header.placement);
  EXPECT_EQ(decoded->chain_depth, header.chain_depth);
  EXPECT_EQ(decoded->keyspace, header.keyspace);
  EXPECT_EQ(decoded->fidelity, header.fidelity);
  EXPECT_EQ(decoded->rope, header.rope);
  EXPECT_EQ(decoded->rope_base_position, header.rope_base_position);
  EXPECT_EQ(decoded->variant, header.variant);
  EXPECT_EQ(decoded->shape, header.shape);
  EXPECT_EQ(decoded->parts, header.parts);
  EXPECT_EQ(decoded->root, header.root);
  EXPECT_EQ(decoded->payload_bytes(), 4u * 8192);
  EXPECT_EQ(decoded->part_offset(3), 3u * 8192);
  EXPECT_EQ(Encoded(*decoded), *bytes);
}

// What a block of version 1 says less.
BlockHeader SampleOfModel() {
  BlockHeader header = Sample();
  header.model = ModelId::Of("org/model@1", "", "", 10000.0);
  header.tenant = 0x8877665544332211;
  return header;
}

TEST(BlockHeader, VersionTwoNamesModelAndTenant) {
  const std::vector<uint8_t> bytes = Encoded(SampleOfModel());
  EXPECT_EQ(bytes[4], 2);
  EXPECT_EQ(bytes.size(), Encoded(Sample()).size() + kBlockHeaderModelBytes);
  const auto decoded = DecodeBlockHeader(bytes);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->model, SampleOfModel().model);
  EXPECT_EQ(decoded->tenant, SampleOfModel().tenant);
  EXPECT_EQ(decoded->parts, SampleOfModel().parts);
  EXPECT_EQ(PartDirectoryOffset(bytes), 216u);
  EXPECT_EQ(Encoded(*decoded), bytes);
}

TEST(BlockHeader, VersionOneIsReadAndComesBackAsItWas) {
  const std::vector<uint8_t> bytes = Encoded(Sample());
  EXPECT_EQ(bytes[4], 1);
  EXPECT_EQ(PartDirectoryOffset(bytes), 192u);
  const auto decoded = DecodeBlockHeader(bytes);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_TRUE(decoded->model.is_zero());
  EXPECT_EQ(Encoded(*decoded), bytes);
}

TEST(BlockHeader, ModelAndTenantMustMakeSense) {
  BlockHeader header = OpaqueSample(10);
  header.model = SampleOfModel().model;
  EXPECT_NE(EncodeBlockHeader(header).status().message().find("header.model"), std::string::npos);
  header = Sample();
  header.tenant = 7;
  EXPECT_EQ(EncodeBlockHeader(header).status().message(),
            "header.tenant: 7 for a block that names no model");
  std::vector<uint8_t> bytes = Encoded(SampleOfModel());
  std::fill_n(bytes.begin() + 192, 16, uint8_t{0});
  Reseal(bytes);
  EXPECT_EQ(DecodeBlockHeader(bytes).status().message(), "header.model: is zero in version 2");
}

TEST(BlockHeader, OpaqueValuesOfAnyLength) {
  for (uint32_t bytes : {0u, 1u, 5000u, static_cast<uint32_t>(kBlockBytesMax)}) {
    EXPECT_TRUE(DecodeBlockHeader(Encoded(OpaqueSample(bytes))).ok()) << bytes;
  }
  BlockHeader too_large = OpaqueSample(kBlockBytesMax + 1);
  EXPECT_EQ(EncodeBlockHeader(too_large).status().message(),
            "header.payload_bytes: 67108865 passes the limit of 67108864");
}

TEST(BlockHeader, LargestHeaderFitsItsLimit) {
  BlockHeader header = Sample();
  header.shape = KvShape::KeysAndValues(1024, 1, 1, 32, DType::kU8);
  header.parts.assign(kPartCountMax, PartEntry{32, {}});
  const std::vector<uint8_t> bytes = Encoded(header);
  EXPECT_LE(bytes.size(), kBlockHeaderBytesMax);
  EXPECT_TRUE(DecodeBlockHeader(bytes).ok());
}

void EveryFlippedBitIsFound(const BlockHeader& header) {
  std::vector<uint8_t> bytes = Encoded(header);
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    bytes[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
    const absl::StatusCode code = DecodeBlockHeader(bytes).status().code();
    const bool in_version = bit / 8 == 4 || bit / 8 == 5;
    ASSERT_EQ(code, in_version ? absl::StatusCode::kUnimplemented : absl::StatusCode::kDataLoss)
        << bit / 8;
    bytes[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
  }
}

TEST(BlockHeader, EveryFlippedBitIsFound) {
  for (const BlockHeader& header : {Sample(), SampleOfModel()}) EveryFlippedBitIsFound(header);
}

TEST(BlockHeader, EveryTruncationIsFound) {
  const std::vector<uint8_t> bytes = Encoded(Sample());
  for (size_t size = 0; size < bytes.size(); ++size) {
    ASSERT_EQ(DecodeBlockHeader(std::span(bytes).first(size)).status().code(),
              absl::StatusCode::kDataLoss)
        << size;
  }
}

// XXH3's streaming state may find an older one in the same memory; the digest must not depend on
// it.
TEST(BlockHeader, RootDigestDoesNotDependOnWhatTheStackHeld) {
  const std::vector<uint8_t> bytes = Encoded(Sample());
  const Digest128 root = RootDigest(Sample().key, Sample().variant, bytes, kRootAt);
  for (int round = 0; round < 100; ++round) {
    EXPECT_TRUE(DecodeBlockHeader(bytes).ok());
    EXPECT_FALSE(
        BlockKey::FromHex(std::string(200, 'x')).ok());  // formats an error over that stack
    ASSERT_EQ(RootDigest(Sample().key, Sample().variant, bytes, kRootAt), root);
  }
}

TEST(BlockHeader, AnotherNameInsideIsFound) {
  // Bytes of one header with key or variant of another: the root digest is seeded with both.
  for (size_t at : {32, 96}) {
    std::vector<uint8_t> bytes = Encoded(Sample());
    bytes[at] ^= 1;
    EXPECT_EQ(DecodeBlockHeader(bytes).status().code(), absl::StatusCode::kDataLoss);
  }
}

TEST(BlockHeader, ErrorsNameFieldAndValue) {
  std::vector<uint8_t> bytes = Encoded(Sample());
  bytes[4] = 9;
  EXPECT_EQ(DecodeBlockHeader(bytes).status().message(),
            "header.version: 9, this build reads versions 1 to 2");
  bytes[0] = 'X';
  EXPECT_NE(DecodeBlockHeader(bytes).status().ToString().find("header.magic: 0x42676458"),
            std::string::npos);
}

TEST(BlockHeader, LyingLengthIsFound) {
  for (uint32_t lie : {0u, 192u, 193u, 211u, 65536u, 0xffffffffu, 192u + 2049 * 20}) {
    std::vector<uint8_t> bytes = Encoded(Sample());
    StoreLe(bytes.data() + 8, lie);
    EXPECT_EQ(PeekBlockHeaderBytes(bytes).status().code(), absl::StatusCode::kDataLoss) << lie;
    EXPECT_EQ(DecodeBlockHeader(bytes).status().code(), absl::StatusCode::kDataLoss) << lie;
  }
}

// Damage that a writer sealed with a right root digest.
TEST(BlockHeader, ContradictionsInsideASealedHeaderAreFound) {
  struct Case {
    std::function<void(std::vector<uint8_t>&)> damage;
    const char* field;
  };
  const std::vector<Case> cases = {
      {[](auto& b) { b[6] = 1; }, "header.reserved1: 1"},
      {[](auto& b) { b[12] = 1; }, "header.reserved2: 1"},
      {[](auto& b) { std::fill_n(b.begin() + 32, 32, 0); }, "header.key: is zero"},
      {[](auto& b) { std::fill_n(b.begin() + 64, 32, 0); },
       "header.chain_depth: 3 with parent none"},
      {[](auto& b) { b[96] = 'R'; }, "variant: \"Raw\""},
      {[](auto& b) { b[96] = 0; }, "header.variant: bytes after"},
      {[](auto& b) { b[143] = 'x'; }, "header.variant: bytes after"},
      {[](auto& b) { std::fill_n(b.begin() + 96, 48, 'x'); }, "variant: \"xxx"},
      {[](auto& b) { b[152] = 0; }, "header.chain_depth: 0"},
      {[](auto& b) { b[160] = 0; }, "header.keyspace: 0"},
      {[](auto& b) { b[160] = 5; }, "header.keyspace: 5"},
      {[](auto& b) { b[160] = 4; }, "header.parent: 65"},
      {[](auto& b) { b[161] = 0; }, "header.fidelity: 0"},
      {[](auto& b) { b[161] = 2; }, "header.fidelity: quantized for the codec raw"},
      {[](auto& b) { b[161] = 9; }, "header.fidelity: 9"},
      {[](auto& b) { b[162] = 3; }, "header.rope: 3"},
      {[](auto& b) { b[162] = 0; }, "header.rope_base_position: 96"},
      {[](auto& b) { b[163] = 1; }, "header.reserved3: 1"},
      {[](auto& b) { b[164] = 5; }, "header.part_count: 5"},
      {[](auto& b) { b[167] = 0xff; }, "header.part_count: 4278190084"},
      {[](auto& b) { b[168] ^= 1; }, "header.payload_bytes: 32769"},
      {[](auto& b) { b[178] = 3; }, "header.part_count: 4, the shape"},
      {[](auto& b) { b[186] = 33; }, "shape.block_tokens: 33"},
      {[](auto& b) { b[188] = 77; }, "shape.dtype: 77"},
      {[](auto& b) { b[191] = 1; }, "shape.reserved: 256"},
      {[](auto& b) { b[192] ^= 1, b[168] ^= 1; }, "header.parts: part 0 has 8193 bytes"},
      {[](auto& b) {
         b[192 + 3] = 0xff;
         StoreLe(b.data() + 168, uint64_t{4 * 8192} + 0xff000000);
       },
       "header.parts: part 0"},
  };
  for (const Case& c : cases) {
    std::vector<uint8_t> bytes = Encoded(Sample());
    c.damage(bytes);
    Reseal(bytes);
    const absl::Status status = DecodeBlockHeader(bytes).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.field << " | " << status;
    EXPECT_NE(status.ToString().find(c.field), std::string::npos) << c.field << " | " << status;
  }
}

TEST(BlockHeader, EncodeRefusesContradictions) {
  const auto error = [](auto change) {
    BlockHeader header = Sample();
    change(header);
    return EncodeBlockHeader(header).status().ToString();
  };
  EXPECT_NE(error([](BlockHeader& h) { h.parts.pop_back(); }).find("part_count: 3"),
            std::string::npos);
  EXPECT_NE(error([](BlockHeader& h) { h.parts[2].bytes = 1; }).find("part 2 has 1 bytes"),
            std::string::npos);
  EXPECT_NE(error([](BlockHeader& h) {
              h.shape = {};
              h.rope = {};
              h.rope_base_position = 0;
            }).find("part_count: 4"),
            std::string::npos);
  EXPECT_NE(error([](BlockHeader& h) { h.shape = {}; }).find("header.rope: 1"), std::string::npos);
  EXPECT_NE(error([](BlockHeader& h) { h.variant = {}; }).find("the name is empty"),
            std::string::npos);
}

TEST(BlockHeader, LossyCodecsChooseTheirSizes) {
  BlockHeader header = Sample();
  header.variant = *Variant::Parse("kivi2g32");
  header.fidelity = Fidelity::kQuantized;
  header.rope = RopeState::kUnrotated;
  header.rope_base_position = 0;
  for (uint32_t part = 0; part < 4; ++part) header.parts[part].bytes = part * 1000;
  const auto decoded = DecodeBlockHeader(Encoded(header));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->part_offset(3), 3000u);
  EXPECT_EQ(decoded->payload_bytes(), 6000u);
  header.parts[0].bytes = header.parts[1].bytes = 1 << 26;  // each is allowed, the sum is not
  EXPECT_NE(EncodeBlockHeader(header).status().ToString().find("payload_bytes: 134222728"),
            std::string::npos);
}

TEST(Variant, ParseNamesTheText) {
  EXPECT_EQ(Variant::Parse("prefixkv0.5+kivi2g32")->view(), "prefixkv0.5+kivi2g32");
  EXPECT_EQ(Variant::Parse(std::string(47, 'a'))->view().size(), 47u);
  EXPECT_EQ(*Variant::Parse("raw"), Variant::Raw());
  for (std::string bad : {std::string(), std::string(48, 'a'), std::string("Raw"),
                          std::string("a b"), std::string("a\0b", 3), std::string("\xff")}) {
    EXPECT_EQ(Variant::Parse(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

}  // namespace
}  // namespace kedge
