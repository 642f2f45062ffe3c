#include "proto/match_key.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <vector>

namespace kedge {
namespace {

TenantSalt Salt(std::string_view text) { return *TenantSalt::FromText(text); }
Fingerprint Model(uint8_t value) {
  Fingerprint fingerprint;
  fingerprint.bytes.fill(value);
  return fingerprint;
}

TEST(SipHash, AgreesWithTheReferenceVectors) {
  // Key 00 01 .. 0f; messages "" and 00 .. 07, from the authors' table.
  const uint64_t low = 0x0706050403020100, high = 0x0f0e0d0c0b0a0908;
  EXPECT_EQ(SipHash24(low, high, {}), 0x726fdb47dd0e0e31u);
  const uint64_t word = low;
  EXPECT_EQ(SipHash24(low, high, {&word, 1}), 0x93f5f5799a932462u);
}

TEST(MatchKeys, EveryArgumentEntersTheId) {
  const MatchKeys keys(Salt("a"), Model(1));
  const std::set<MatchId> ids = {
      keys.Id(MatchDomain::kWindow, 0, 5),
      keys.Id(MatchDomain::kMinimizer, 0, 5),
      keys.Id(MatchDomain::kBand, 0, 5),
      keys.Id(MatchDomain::kBand, 1, 5),
      keys.Id(MatchDomain::kBand, 0, 6),
      keys.Id(MatchDomain::kBand, 0, 5, 1),
      keys.Id(MatchDomain::kBand, 0, 1, 5),
      MatchKeys(Salt("b"), Model(1)).Id(MatchDomain::kWindow, 0, 5),
      MatchKeys(Salt("a"), Model(2)).Id(MatchDomain::kWindow, 0, 5),
  };
  EXPECT_EQ(ids.size(), 9u);
}

TEST(MatchKeys, SecretsOfTenantsAndModelsDiffer) {
  const MatchKeys a(Salt("a"), Model(1)), b(Salt("b"), Model(1)), c(Salt("a"), Model(2));
  for (const MatchKeys* other : {&b, &c}) {
    EXPECT_NE(a.hash_base(), other->hash_base());
    EXPECT_NE(a.order_seed(), other->order_seed());
    EXPECT_NE(a.projection_seed(), other->projection_seed());
  }
  EXPECT_GE(a.hash_base(), uint64_t{1} << 32);
  EXPECT_LT(a.hash_base(), (uint64_t{1} << 61) - 1);
}

TEST(MatchKeys, TextsAreNamedAndEncipheredPerTenant) {
  const MatchKeys a(Salt("a"), Model(1)), b(Salt("b"), Model(1));
  BlockKey donor;
  donor.bytes.fill(9);
  EXPECT_NE(a.TextName(donor), b.TextName(donor));
  EXPECT_NE(a.TextName(donor), a.TextName(BlockKey{}));
  const std::vector<uint8_t> plain(100, 7);
  std::vector<uint8_t> sealed = plain;
  a.CipherText(donor, sealed);
  EXPECT_NE(sealed, plain);
  std::vector<uint8_t> wrong = sealed;
  b.CipherText(donor, wrong);
  EXPECT_NE(wrong, plain);
  a.CipherText(donor, sealed);
  EXPECT_EQ(sealed, plain);
  a.CipherText(donor, {});
}

}  // namespace
}  // namespace kedge
