#include "gpu/offset/anchor.h"

#include <limits>
#include <string>

#include "gmock/gmock.h"
#include "gpu/offset/testing_rows.h"
#include "gtest/gtest.h"
#include "proto/wire.h"

namespace kedge::offset {
namespace {

using ::testing::HasSubstr;

TEST(Anchor, ComesBackAsItWasMade) {
  Anchor made = RandomAnchor(5, 3, 1);
  made.kind = BaseKind::kProduced;
  made.context_digest = 11;
  const absl::StatusOr<Anchor> read = ParseAnchor(made.key, EncodeAnchor(made, DType::kF32));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(EncodeAnchor(made, DType::kF32).size(), EncodedAnchorBytes(made, DType::kF32));
  EXPECT_EQ(EncodeAnchor(made, DType::kBf16).size(), EncodedAnchorBytes(made, DType::kBf16));
  EXPECT_EQ(read->key, made.key);
  EXPECT_EQ(read->kind, BaseKind::kProduced);
  EXPECT_EQ(read->prefix_digest, made.prefix_digest);
  EXPECT_EQ(read->context_digest, 11u);
  EXPECT_EQ(read->sketch.values, made.sketch.values);
  EXPECT_EQ(read->filling.keys, made.filling.keys);
  EXPECT_EQ(read->filling.values, made.filling.values);
  EXPECT_EQ(read->prefix.keys, made.prefix.keys);
  EXPECT_EQ(read->prefix.values, made.prefix.values);
}

TEST(Anchor, HalfTypesRoundOnce) {
  const Anchor made = RandomAnchor(5, 0, 2);
  for (DType dtype : {DType::kF16, DType::kBf16}) {
    const std::vector<uint8_t> bytes = EncodeAnchor(made, dtype);
    const absl::StatusOr<Anchor> read = ParseAnchor(made.key, bytes);
    ASSERT_TRUE(read.ok()) << read.status();
    for (size_t i = 0; i < made.filling.keys.size(); ++i)
      EXPECT_NEAR(read->filling.keys[i], made.filling.keys[i], 0.02);
    EXPECT_EQ(EncodeAnchor(*read, dtype), bytes);
  }
}

TEST(Anchor, BadBytesAreNamed) {
  const Anchor made = RandomAnchor(5, 3, 1);
  const std::vector<uint8_t> good = EncodeAnchor(made, DType::kF32);
  const auto with = [&](size_t at, auto value) {
    std::vector<uint8_t> bytes = good;
    StoreLe(bytes.data() + at, value);
    const absl::StatusOr<Anchor> read = ParseAnchor(made.key, bytes);
    return read.ok() ? std::string("read") : std::string(read.status().message());
  };
  EXPECT_THAT(with(0, uint32_t{1}), HasSubstr("anchor.magic"));
  EXPECT_THAT(with(4, uint16_t{2}), HasSubstr("anchor.version: 2"));
  EXPECT_THAT(with(6, uint8_t{99}), HasSubstr("anchor.dtype: 99"));
  EXPECT_THAT(with(7, uint8_t{2}), HasSubstr("anchor.base_kind"));
  EXPECT_THAT(with(8, uint32_t{0}), HasSubstr("anchor.layers: 0"));
  EXPECT_THAT(with(12, uint32_t{1} << 31), HasSubstr("anchor.width: 2147483648"));
  EXPECT_THAT(with(16, uint32_t{0}), HasSubstr("anchor.tokens: 0"));
  EXPECT_THAT(with(16, uint32_t{6}), HasSubstr("anchor.length"));
  EXPECT_THAT(with(20, uint32_t{1} << 20), HasSubstr("anchor.length"));
  EXPECT_THAT(with(40, std::numeric_limits<float>::quiet_NaN()), HasSubstr("anchor.sketch"));
  EXPECT_THAT(with(good.size() - 4, std::numeric_limits<float>::infinity()),
              HasSubstr("anchor.offsets"));
  for (size_t bytes = 0; bytes < good.size(); ++bytes)
    EXPECT_FALSE(ParseAnchor(made.key, std::span(good).first(bytes)).ok()) << bytes;
}

TEST(Anchor, KeysTellApartAllThatMatters) {
  const TenantSalt salt = *TenantSalt::FromText("a"), other_salt = *TenantSalt::FromText("b");
  Fingerprint model, other_model;
  other_model.bytes[3] = 1;
  const PoolName pool{"mason", "question", BaseKind::kCanonical};
  const std::vector<int32_t> filling = {1, 2, 3}, longer = {1, 2, 3, 4};
  const std::vector<uint8_t> producer = {9};
  const BlockKey key = AnchorKey(salt, model, pool, filling);
  EXPECT_EQ(key, AnchorKey(salt, model, pool, filling));
  EXPECT_NE(key, AnchorKey(other_salt, model, pool, filling));
  EXPECT_NE(key, AnchorKey(salt, other_model, pool, filling));
  EXPECT_NE(key, AnchorKey(salt, model, pool, longer));
  PoolName produced = pool, consumer = pool, border{"masonq", "uestion", BaseKind::kCanonical};
  produced.kind = BaseKind::kProduced;
  consumer.consumer = "baker";
  EXPECT_NE(key, AnchorKey(salt, model, produced, filling));
  EXPECT_NE(key, AnchorKey(salt, model, consumer, filling));
  EXPECT_NE(key, AnchorKey(salt, model, border, filling));
  EXPECT_NE(AnchorKey(salt, model, produced, filling),
            AnchorKey(salt, model, produced, filling, producer));
  EXPECT_EQ(PoolKey(salt, model, pool), PoolKey(salt, model, pool));
  EXPECT_NE(PoolKey(salt, model, pool), PoolKey(salt, model, produced));
  EXPECT_NE(PoolKey(salt, model, pool), PoolKey(salt, model, consumer));
  EXPECT_NE(PoolKey(salt, model, pool), AnchorKey(salt, model, pool, {}));
  // A pool lives in one place, both kinds of it.
  EXPECT_EQ(AnchorPlacement(salt, model, pool), AnchorPlacement(salt, model, produced));
  EXPECT_NE(AnchorPlacement(salt, model, pool), AnchorPlacement(salt, model, consumer));
}

}  // namespace
}  // namespace kedge::offset
