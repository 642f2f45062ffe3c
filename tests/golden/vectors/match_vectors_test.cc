// The same match ids and donor texts as tests/golden/make_vectors.py makes from proto/README.md.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "client/match/fingerprints.h"
#include "proto/donor_text.h"
#include "proto/match_key.h"

namespace kedge {
namespace {

using nlohmann::json;

json Load() {
  std::ifstream file("tests/golden/vectors/match.json");
  EXPECT_TRUE(file.good());
  return json::parse(file);
}

TEST(MatchVectors, SecretsAndIds) {
  const json vectors = Load();
  ASSERT_EQ(vectors["cases"].size(), 2u);
  for (const json& want : vectors["cases"]) {
    const Fingerprint model{BlockKey::FromHex(want["fingerprint"].get<std::string>())->bytes};
    const MatchKeys keys(*TenantSalt::FromText(want["salt"].get<std::string>()), model);
    EXPECT_EQ(keys.hash_base(), want["hash_base"].get<uint64_t>());
    EXPECT_EQ(keys.order_seed(), want["order_seed"].get<uint64_t>());
    EXPECT_EQ(keys.projection_seed(), want["projection_seed"].get<uint64_t>());
    const auto tokens = want["tokens"].get<std::vector<int32_t>>();
    EXPECT_EQ(match::RollingHashes(tokens, 64, keys.hash_base()).at(0),
              want["rolling"].get<uint64_t>());
    for (const json& id : want["ids"]) {
      EXPECT_EQ(keys.Id(static_cast<MatchDomain>(id["domain"].get<int>()), id["index"], id["value"],
                        id["second"]),
                id["id"].get<uint64_t>());
    }
    const BlockKey donor = *BlockKey::FromHex(want["donor"].get<std::string>());
    EXPECT_EQ(keys.TextName(donor).ToHex(), want["text_name"]);
  }
}

TEST(MatchVectors, DonorTexts) {
  const json want = Load()["text"];
  const DonorText text{.parent = *BlockKey::FromHex(want["parent"].get<std::string>()),
                       .depth = want["depth"],
                       .placement = want["placement"],
                       .tokens = want["tokens"]};
  const std::vector<uint8_t> bytes = EncodeDonorText(text);
  EXPECT_EQ(absl::BytesToHexString(
                absl::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size())),
            want["encoded"]);
}

}  // namespace
}  // namespace kedge
