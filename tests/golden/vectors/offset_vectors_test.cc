// Names of anchors, and rosters, as tests/golden/make_vectors.py makes them from proto/README.md.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "gpu/offset/anchor.h"
#include "store/block/pool_roster.h"

namespace kedge {
namespace {

using nlohmann::json;
using Bytes = std::vector<uint8_t>;

json Load(const std::string& name) {
  std::ifstream file("tests/golden/vectors/" + name);
  EXPECT_TRUE(file.good()) << name;
  return json::parse(file);
}

Bytes FromHex(const json& hex) {
  const std::string bytes = absl::HexStringToBytes(hex.get<std::string>());
  return {bytes.begin(), bytes.end()};
}

TEST(OffsetVectors, Names) {
  const std::string model = Load("keys.json")["fingerprints"][0]["fingerprint"];
  const absl::StatusOr<BlockKey> digits = BlockKey::FromHex(model);
  ASSERT_TRUE(digits.ok());
  const Fingerprint fingerprint{digits->bytes};
  const TenantSalt salt = *TenantSalt::FromText("tenant-a");
  const json file = Load("offsets.json");
  ASSERT_EQ(file["anchors"].size(), 3u);
  for (const json& want : file["anchors"]) {
    const offset::PoolName pool{want["consumer"], want["placeholder"],
                                static_cast<offset::BaseKind>(want["kind"].get<int>())};
    const BlockKey key = offset::PoolKey(salt, fingerprint, pool);
    EXPECT_EQ(key.ToHex(), want["pool"]);
    EXPECT_EQ(offset::AnchorPlacement(salt, fingerprint, pool), want["placement"]);
    EXPECT_EQ(
        offset::AnchorKey(salt, fingerprint, pool, want["filling"].get<std::vector<int32_t>>(),
                          FromHex(want["producer"]))
            .ToHex(),
        want["anchor"]);
    EXPECT_EQ(RosterKey(key, 7).ToHex(), want["roster"]);
  }
}

TEST(OffsetVectors, Rosters) {
  const json file = Load("offsets.json");
  ASSERT_EQ(file["rosters"].size(), 2u);
  for (const json& want : file["rosters"]) {
    const int members = want["members"];
    PoolRoster roster{.shape = {static_cast<offset::BaseKind>(members % 2), 8, 128, 5, 77},
                      .options = {.capacity = 20, .window = 4, .nucleus = 0.9}};
    for (int i = 0; i < members; ++i) {
      AnchorPool::Member member{.activations = static_cast<uint64_t>(i) * 100};
      member.key.bytes.fill(static_cast<uint8_t>(i + 1));
      roster.members.push_back(member);
    }
    const Bytes encoded = FromHex(want["encoded"]);
    EXPECT_EQ(EncodeRoster(roster), encoded);
    const absl::StatusOr<PoolRoster> read = ParseRoster(encoded);
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(read->members, roster.members);
    EXPECT_EQ(read->shape, roster.shape);
  }
}

}  // namespace
}  // namespace kedge
