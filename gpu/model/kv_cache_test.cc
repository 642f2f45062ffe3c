#include "gpu/model/kv_cache.h"

#include <cstring>

#include <gtest/gtest.h>

#include "gpu/device/device_cpu.h"

namespace kedge {
namespace {

constexpr KvCache::Geometry kGeometry{
    .layers = 3, .kv_heads = 2, .head_size = 4, .dtype = DType::kBf16};

TEST(KvCache, PartsAreContiguousAndApart) {
  CpuDevice device(1);
  absl::StatusOr<KvCache> cache = KvCache::Create(device, kGeometry, 10);
  ASSERT_TRUE(cache.ok());
  EXPECT_EQ(cache->token_bytes(), 2 * 4 * 2);
  EXPECT_EQ(cache->capacity(), 10);
  EXPECT_EQ(cache->length(), 0);
  uint8_t mark = 0;
  for (int64_t layer = 0; layer < 3; ++layer) {
    for (Component component : {Component::kK, Component::kV}) {
      const auto part = cache->PartSpan(layer, component, 0, 10);
      ASSERT_EQ(part.size(), 160u);
      std::memset(part.data(), ++mark, part.size());
    }
  }
  mark = 0;
  for (int64_t layer = 0; layer < 3; ++layer) {
    for (Component component : {Component::kK, Component::kV}) {
      const auto whole = cache->PartSpan(layer, component, 0, 10);
      const auto piece = cache->PartSpan(layer, component, 4, 3);
      EXPECT_EQ(piece.data(), whole.data() + 4 * 16);
      EXPECT_EQ(piece.size(), 48u);
      ++mark;
      for (uint8_t byte : whole) ASSERT_EQ(byte, mark);
    }
  }
  cache->set_length(10);
  EXPECT_EQ(cache->length(), 10);
}

TEST(KvCache, RefusesImpossibleShapes) {
  CpuDevice device(1);
  EXPECT_EQ(KvCache::Create(device, kGeometry, 0).status().message(),
            "kv cache: capacity: 0 tokens is not positive");
  EXPECT_EQ(KvCache::Create(device, kGeometry, INT64_MAX / 8).status().code(),
            absl::StatusCode::kResourceExhausted);
  KvCache::Geometry geometry = kGeometry;
  geometry.dtype = DType::kU8;
  EXPECT_EQ(KvCache::Create(device, geometry, 1).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(KvCache, APrunedOneCountsRowsApartFromTokens) {
  CpuDevice device(1);
  absl::StatusOr<KvCache> cache = KvCache::Create(device, kGeometry, 10);
  ASSERT_TRUE(cache.ok());
  EXPECT_FALSE(cache->pruned());
  EXPECT_EQ(cache->RowsFor(1, 7), 7);
  ASSERT_TRUE(cache->SetPruned(6, {{0, 1, 2, 5}, {0, 5}, {0, 1, 2, 3, 4, 5}}).ok());
  EXPECT_TRUE(cache->pruned());
  EXPECT_EQ(cache->length(), 6);
  EXPECT_EQ(cache->pruned_tokens(), 6);
  EXPECT_EQ(cache->rows(0), 4);
  EXPECT_EQ(cache->rows(1), 2);
  EXPECT_EQ(cache->rows(2), 6);
  cache->set_length(8);
  EXPECT_EQ(cache->rows(1), 4);
  EXPECT_EQ(cache->RowsFor(1, 7), 3);
  EXPECT_EQ(cache->kept(1)[1], 5);
}

TEST(KvCache, RefusesKeptPositionsThatCannotBe) {
  CpuDevice device(1);
  absl::StatusOr<KvCache> cache = KvCache::Create(device, kGeometry, 10);
  ASSERT_TRUE(cache.ok());
  EXPECT_EQ(cache->SetPruned(11, {{0}, {0}, {0}}).message(),
            "kv cache: tokens: 11 are not in [1, capacity = 10]");
  EXPECT_EQ(cache->SetPruned(6, {{0}, {0}}).message(),
            "kv cache: kept: 2 lists, the cache has 3 layers");
  EXPECT_EQ(cache->SetPruned(6, {{0}, {0, 3, 3}, {0}}).message(),
            "kv cache: layer 1: position 3 after 3 does not ascend inside 6");
  EXPECT_EQ(cache->SetPruned(6, {{0}, {0, 6}, {0}}).message(),
            "kv cache: layer 1: position 6 after 0 does not ascend inside 6");
  EXPECT_FALSE(cache->pruned());
  EXPECT_EQ(cache->length(), 0);
}

TEST(KvCacheDeathTest, AbortsOutOfRange) {
  CpuDevice device(1);
  absl::StatusOr<KvCache> cache = KvCache::Create(device, kGeometry, 10);
  ASSERT_TRUE(cache.ok());
  EXPECT_DEATH(cache->set_length(11), "outside its capacity");
  EXPECT_DEATH(cache->PartSpan(3, Component::kK, 0, 1), "layer out of range");
  EXPECT_DEATH(cache->PartSpan(0, Component::kK, 8, 3), "tokens out of range");
  EXPECT_DEATH(cache->PartSpan(0, Component::kLatent, 0, 1), "keys and values only");
}

}  // namespace
}  // namespace kedge
