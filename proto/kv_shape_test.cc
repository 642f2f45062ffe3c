#include "proto/kv_shape.h"

#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <vector>

namespace kedge {
namespace {

const KvShape kShape = KvShape::KeysAndValues(4, 2, 64, 32, DType::kBf16);

std::vector<uint8_t> Encode(const KvShape& shape) {
  std::vector<uint8_t> bytes(KvShape::kEncodedBytes);
  EncodeKvShape(shape, std::span<uint8_t, KvShape::kEncodedBytes>(bytes.data(), bytes.size()));
  return bytes;
}

TEST(KvShape, SizesOfKeysAndValues) {
  EXPECT_EQ(kShape.part_count(), 8u);
  EXPECT_EQ(kShape.raw_part_bytes(), 32u * 2 * 64 * 2);
  EXPECT_EQ(kShape.raw_block_bytes(), 8u * 32 * 2 * 64 * 2);
  EXPECT_TRUE(kShape.Validate().ok());
  EXPECT_EQ(kShape.ToString(), "k+v bf16, layers 0..3, heads 0..1 of 64, 32 tokens");
}

TEST(KvShape, OpaqueHasOnePartOfAnyLength) {
  const KvShape shape = KvShape::Opaque();
  EXPECT_TRUE(shape.opaque());
  EXPECT_EQ(shape.part_count(), 1u);
  EXPECT_EQ(shape.raw_part_bytes(), 0u);
  EXPECT_TRUE(shape.Validate().ok());
  EXPECT_EQ(shape.ToString(), "opaque");
}

TEST(KvShape, PartsFollowTheLayers) {
  KvShape shape = kShape;
  shape.layer_begin = 10;
  EXPECT_EQ(*shape.PartIndex(10, Component::kK), 0u);
  EXPECT_EQ(*shape.PartIndex(10, Component::kV), 1u);
  EXPECT_EQ(*shape.PartIndex(13, Component::kV), 7u);
  EXPECT_FALSE(shape.PartIndex(9, Component::kK).ok());
  EXPECT_FALSE(shape.PartIndex(14, Component::kK).ok());
  EXPECT_FALSE(shape.PartIndex(10, Component::kLatent).ok());
  EXPECT_FALSE(shape.PartIndex(10, static_cast<Component>(0)).ok());
  EXPECT_FALSE(shape.PartIndex(10, static_cast<Component>(200)).ok());
}

TEST(KvShape, ComponentsKeepTheirOrderWhereSomeAreMissing) {
  KvShape shape = kShape;
  shape.components = 0b10110;  // v, latent, index
  EXPECT_EQ(shape.part_count(), 12u);
  EXPECT_EQ(*shape.PartIndex(1, Component::kV), 3u);
  EXPECT_EQ(*shape.PartIndex(1, Component::kLatent), 4u);
  EXPECT_EQ(*shape.PartIndex(1, Component::kIndex), 5u);
}

TEST(KvShape, RoundTrip) {
  KvShape shape = kShape;
  shape.layer_begin = 7;
  shape.kv_head_begin = 3;
  const std::vector<uint8_t> bytes = Encode(shape);
  EXPECT_EQ(bytes, (std::vector<uint8_t>{7, 0, 4, 0, 3, 0, 2, 0, 64, 0, 32, 0, 3, 3, 0, 0}));
  const auto decoded = DecodeKvShape(bytes);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(*decoded, shape);
  EXPECT_EQ(*DecodeKvShape(Encode(KvShape::Opaque())), KvShape::Opaque());
}

TEST(KvShape, ValidateNamesTheField) {
  struct Case {
    std::function<void(KvShape&)> damage;
    const char* field;
  };
  const std::vector<Case> cases = {
      {[](KvShape& s) { s.layer_count = 0; }, "shape.layer_count: 0"},
      {[](KvShape& s) { s.layer_count = 1025; }, "shape.layer_count: 1025"},
      {[](KvShape& s) { s.layer_begin = 65535; }, "shape.layer_begin: 65535"},
      {[](KvShape& s) { s.kv_heads = 0; }, "shape.kv_heads: 0"},
      {[](KvShape& s) { s.kv_head_begin = 65534; }, "shape.kv_head_begin: 65534"},
      {[](KvShape& s) { s.head_size = 0; }, "shape.head_size: 0"},
      {[](KvShape& s) { s.block_tokens = 0; }, "shape.block_tokens: 0"},
      {[](KvShape& s) { s.block_tokens = 33; }, "shape.block_tokens: 33"},
      {[](KvShape& s) { s.dtype = static_cast<DType>(0); }, "shape.dtype: 0"},
      {[](KvShape& s) { s.dtype = static_cast<DType>(6); }, "shape.dtype: 6"},
      {[](KvShape& s) { s.components = 0x23; }, "shape.components: 35"},
      {[](KvShape& s) { s.components = 0; }, "shape.components: 0"},
      {[](KvShape& s) { s.head_size = 65535, s.kv_heads = 60000, s.block_tokens = 65504; },
       "the limit"},
      {[](KvShape& s) { s.head_size = 4096, s.kv_heads = 64; }, "the limit"},
  };
  for (const Case& c : cases) {
    KvShape shape = kShape;
    c.damage(shape);
    const absl::Status status = shape.Validate();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.field;
    EXPECT_NE(status.ToString().find(c.field), std::string::npos) << c.field << " | " << status;
    EXPECT_FALSE(DecodeKvShape(Encode(shape)).ok());
  }
}

TEST(KvShape, DecodeChecksLengthAndReservedBytes) {
  std::vector<uint8_t> bytes = Encode(kShape);
  EXPECT_FALSE(DecodeKvShape(std::span(bytes).first(15)).ok());
  EXPECT_FALSE(DecodeKvShape({}).ok());
  bytes[15] = 1;
  EXPECT_EQ(DecodeKvShape(bytes).status().message(), "shape.reserved: 256 where zero is reserved");
}

TEST(DType, NamesAndSizes) {
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBf16, DType::kF8E4m3, DType::kU8}) {
    EXPECT_EQ(*ParseDType(DTypeName(dtype)), dtype);
  }
  EXPECT_EQ(DTypeBytes(DType::kF32), 4u);
  EXPECT_EQ(DTypeBytes(DType::kF8E4m3), 1u);
  EXPECT_EQ(ParseDType("int4").status().message(),
            "dtype: \"int4\" is none of f32, f16, bf16, f8e4m3, u8");
}

}  // namespace
}  // namespace kedge
