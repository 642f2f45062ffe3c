#include "client/reuse/provenance.h"

#include <gtest/gtest.h>

#include "gpu/device/device_cpu.h"

namespace kedge {
namespace {

KvCache CacheOf(CpuDevice& device, int64_t tokens) {
  KvCache cache = *KvCache::Create(
      device, {.layers = 1, .kv_heads = 1, .head_size = 2, .dtype = DType::kF32}, 64);
  cache.set_length(tokens);
  return cache;
}

TEST(ProvenanceLogTest, OnlyFalls) {
  ProvenanceLog log;
  EXPECT_EQ(log.worst(), Provenance::kExact);
  log.Append(4, Provenance::kExact);
  log.Append(3, Provenance::kDense);
  log.Append(2, Provenance::kCorrected);
  log.Append(0, Provenance::kMoved);
  log.Append(5, Provenance::kDense);
  EXPECT_EQ(log.tokens(), 14);
  EXPECT_EQ(log.At(0), Provenance::kExact);
  EXPECT_EQ(log.At(3), Provenance::kExact);
  EXPECT_EQ(log.At(4), Provenance::kDense);
  EXPECT_EQ(log.At(7), Provenance::kCorrected);
  EXPECT_EQ(log.At(13), Provenance::kCorrected) << "dense over what was corrected is no better";
  EXPECT_EQ(log.publishable_tokens(), 7);
  log.Truncate(8);
  EXPECT_EQ(log.tokens(), 8);
  EXPECT_EQ(log.worst(), Provenance::kCorrected);
  log.Truncate(7);
  EXPECT_EQ(log.worst(), Provenance::kDense);
  log.Append(1, Provenance::kExact);
  EXPECT_EQ(log.At(7), Provenance::kDense);
  log.Truncate(0);
  EXPECT_EQ(log.tokens(), 0);
}

TEST(ProvenanceLogTest, KvOverLossyKvIsLossy) {
  ProvenanceLog log;
  log.Append(4, Provenance::kExact, Fidelity::kQuantized);
  log.Append(4, Provenance::kDense);
  EXPECT_EQ(log.FidelityAt(5), Fidelity::kQuantized);
  EXPECT_EQ(log.publishable_tokens(), 0);
}

// The only way to a cache that a store can read from goes past the log.
TEST(AssembledKvTest, OnlyLosslessExactAndDenseKvIsGivenToAStore) {
  CpuDevice device(1);
  for (const Provenance approximate :
       {Provenance::kCorrected, Provenance::kRecomputed, Provenance::kMoved}) {
    ProvenanceLog log;
    log.Append(3, Provenance::kExact);
    log.Append(5, Provenance::kDense);
    log.Append(2, approximate);
    log.Append(2, Provenance::kDense);
    AssembledKv kv(CacheOf(device, 12), log);
    EXPECT_TRUE(kv.ForStore(8).ok());
    for (const int64_t tokens : {9, 12}) {
      const absl::Status s = kv.ForStore(tokens).status();
      EXPECT_EQ(s.code(), absl::StatusCode::kPermissionDenied);
      EXPECT_EQ(s.message(), std::string("provenance: token 8 is ") + ProvenanceName(approximate) +
                                 ", lossless; only lossless exact and dense KV stands under "
                                 "prefix keys");
    }
    EXPECT_EQ(kv.ForStore(13).status().code(), absl::StatusCode::kInvalidArgument);
  }
  ProvenanceLog log;
  log.Append(4, Provenance::kExact, Fidelity::kQuantized);
  AssembledKv kv(CacheOf(device, 4), log);
  EXPECT_EQ(kv.ForStore(1).status().message(),
            "provenance: token 0 is exact, quantized; only lossless exact and dense KV stands "
            "under prefix keys");
}

}  // namespace
}  // namespace kedge
