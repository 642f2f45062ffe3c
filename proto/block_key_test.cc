#include "proto/block_key.h"

#include <gtest/gtest.h>

#include <cctype>
#include <limits>
#include <numeric>
#include <set>
#include <thread>

namespace kedge {
namespace {

ModelIdentity Model() {
  ModelIdentity model;
  model.weights_id = "org/model@1";
  model.tokenizer_id = "tokenizer";
  model.shape = KvShape::KeysAndValues(4, 2, 64, 32, DType::kBf16);
  model.rope_theta = 10000;
  return model;
}

TenantSalt Salt(std::string_view text = "tenant") { return *TenantSalt::FromText(text); }

std::vector<int32_t> Tokens(size_t count) {
  std::vector<int32_t> tokens(count);
  std::iota(tokens.begin(), tokens.end(), 100);
  return tokens;
}

std::span<const uint8_t> Bytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

TEST(BlockKey, HexRoundTrip) {
  BlockKey key;
  std::iota(key.bytes.begin(), key.bytes.end(), 0xe8);
  const std::string hex = key.ToHex();
  EXPECT_EQ(hex.size(), 64u);
  EXPECT_EQ(hex.substr(0, 6), "e8e9ea");
  EXPECT_EQ(*BlockKey::FromHex(hex), key);
  std::string upper = hex;
  for (char& c : upper) c = static_cast<char>(std::toupper(c));
  EXPECT_EQ(*BlockKey::FromHex(upper), key);
}

TEST(BlockKey, BadHexNamesTheText) {
  for (std::string text :
       {std::string(), std::string("abc"), std::string(63, 'a'), std::string(65, 'a'),
        std::string(63, 'a') + "g", std::string(200, 'x')}) {
    const absl::Status status = BlockKey::FromHex(text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(status.ToString().find(text.substr(0, 80)), std::string::npos) << status;
  }
}

TEST(TenantSalt, HexIsTakenAsItIsAndTextIsHashed) {
  const TenantSalt hex = Salt(std::string(62, '0') + "07");
  EXPECT_EQ(hex.bytes[31], 7);
  EXPECT_EQ(hex.bytes[0], 0);
  // SHA-256("abc"), FIPS 180-2 appendix B.1.
  EXPECT_EQ(BlockKey{Salt("abc").bytes}.ToHex(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(TenantSalt::FromText("").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(Fingerprint, EveryFieldCounts) {
  std::set<std::string> seen;
  const auto add = [&](auto change) {
    ModelIdentity model = Model();
    change(model);
    const auto fingerprint = Fingerprint::Of(model);
    ASSERT_TRUE(fingerprint.ok()) << fingerprint.status();
    EXPECT_TRUE(seen.insert(fingerprint->ToHex()).second);
  };
  add([](ModelIdentity&) {});
  add([](ModelIdentity& m) { m.weights_id += "x"; });
  add([](ModelIdentity& m) { m.adapter_id = "lora"; });
  add([](ModelIdentity& m) { m.tokenizer_id += "x"; });
  add([](ModelIdentity& m) { m.rope_theta = 500000; });
  add([](ModelIdentity& m) { m.rope_theta = 0; });
  add([](ModelIdentity& m) { m.rope_scaling = "lora"; });
  add([](ModelIdentity& m) { m.kv_scales_id = "lora"; });
  add([](ModelIdentity& m) { m.shape.layer_begin = 1; });
  add([](ModelIdentity& m) { m.shape.layer_count = 5; });
  add([](ModelIdentity& m) { m.shape.kv_head_begin = 1; });
  add([](ModelIdentity& m) { m.shape.kv_heads = 3; });
  add([](ModelIdentity& m) { m.shape.head_size = 32; });
  add([](ModelIdentity& m) { m.shape.block_tokens = 64; });
  add([](ModelIdentity& m) { m.shape.dtype = DType::kF16; });
  add([](ModelIdentity& m) { m.shape.components = 1; });
  // Moving a character over a border between two texts is a change too.
  add([](ModelIdentity& m) { m.weights_id = "org/model@", m.adapter_id = "1"; });
}

TEST(Fingerprint, BothZerosAreOneTheta) {
  ModelIdentity plus = Model(), minus = Model();
  plus.rope_theta = 0.0;
  minus.rope_theta = -0.0;
  EXPECT_EQ(*Fingerprint::Of(plus), *Fingerprint::Of(minus));
}

TEST(Fingerprint, BadIdentityNamesTheField) {
  const auto error = [](auto change) {
    ModelIdentity model = Model();
    change(model);
    return Fingerprint::Of(model).status().ToString();
  };
  EXPECT_NE(error([](ModelIdentity& m) { m.weights_id = ""; }).find("weights_id"),
            std::string::npos);
  EXPECT_NE(error([](ModelIdentity& m) { m.tokenizer_id = ""; }).find("tokenizer_id"),
            std::string::npos);
  EXPECT_NE(error([](ModelIdentity& m) { m.rope_theta = -1; }).find("rope_theta: -1"),
            std::string::npos);
  EXPECT_NE(error([](ModelIdentity& m) {
              m.rope_theta = std::numeric_limits<double>::quiet_NaN();
            }).find("rope_theta: nan"),
            std::string::npos);
  EXPECT_NE(error([](ModelIdentity& m) { m.shape = {}; }).find("shape"), std::string::npos);
  EXPECT_NE(error([](ModelIdentity& m) { m.shape.head_size = 0; }).find("head_size"),
            std::string::npos);
  EXPECT_NE(error([](ModelIdentity& m) { m.rope_scaling = std::string(65537, 'x'); }).find("65537"),
            std::string::npos);
}

TEST(KeyChain, LinksAreTheWholeBlocks) {
  const KeyChain chain(Salt(), *Fingerprint::Of(Model()));
  EXPECT_TRUE(chain.Links(Tokens(31), 32).empty());
  const std::vector<ChainLink> links = chain.Links(Tokens(100), 32);
  ASSERT_EQ(links.size(), 3u);
  EXPECT_TRUE(links[0].parent.is_zero());
  EXPECT_EQ(links[1].parent, links[0].key);
  EXPECT_EQ(links[2].parent, links[1].key);
  EXPECT_EQ(links[2].depth, 2u);
  const std::vector<int32_t> tokens = Tokens(100);
  EXPECT_EQ(chain.Next(&links[0], std::span(tokens).subspan(32, 32)).key, links[1].key);
}

TEST(KeyChain, AKeyDependsOnEverythingBefore) {
  const KeyChain chain(Salt(), *Fingerprint::Of(Model()));
  std::vector<int32_t> changed = Tokens(96);
  changed[0] ^= 1;
  const auto a = chain.Links(Tokens(96), 32);
  const auto b = chain.Links(changed, 32);
  for (size_t i = 0; i < a.size(); ++i) EXPECT_NE(a[i].key, b[i].key) << i;
}

TEST(KeyChain, SaltModelKeyspaceAndExtraSeparate) {
  ModelIdentity other = Model();
  other.weights_id = "other";
  const Fingerprint model = *Fingerprint::Of(Model());
  std::set<std::string> keys;
  const std::vector<int32_t> tokens = Tokens(32);
  for (const KeyChain& chain :
       {KeyChain(Salt(), model), KeyChain(Salt("other"), model),
        KeyChain(Salt(), *Fingerprint::Of(other)), KeyChain(Salt(), model, Keyspace::kChunk),
        KeyChain(Salt(), model, Keyspace::kPrefix, "image"),
        KeyChain(Salt(), model, Keyspace::kPrefix, "image2")}) {
    EXPECT_TRUE(keys.insert(chain.Next(nullptr, tokens).key.ToHex()).second);
  }
  EXPECT_EQ(keys.size(), 6u);
}

TEST(KeyChain, EngineHashesAreAKindOfTheirOwn) {
  const KeyChain chain(Salt(), *Fingerprint::Of(Model()));
  const std::vector<int32_t> tokens = {1, 2, 3, 4};
  const std::span<const uint8_t> same(reinterpret_cast<const uint8_t*>(tokens.data()), 16);
  const ChainLink first = chain.NextFromEngineHash(nullptr, same);
  EXPECT_NE(first.key, chain.Next(nullptr, tokens).key);
  const ChainLink second = chain.NextFromEngineHash(&first, same);
  EXPECT_NE(second.key, first.key);
  EXPECT_EQ(second.depth, 1u);
  EXPECT_EQ(second.placement, first.placement);
}

TEST(KeyChain, RunsOf32BlocksShareAPlacement) {
  const KeyChain chain(Salt(), *Fingerprint::Of(Model()));
  const auto links = chain.Links(Tokens(32 * 70), 32);
  ASSERT_EQ(links.size(), 70u);
  for (size_t i = 0; i < links.size(); ++i) {
    EXPECT_EQ(links[i].placement, PlacementOf(links[i / 32 * 32].key)) << i;
  }
  EXPECT_NE(links[31].placement, links[32].placement);
}

TEST(KeyChain, ThreadsAgree) {
  const KeyChain chain(Salt(), *Fingerprint::Of(Model()));
  const auto expected = chain.Links(Tokens(3200), 32).back().key;
  std::vector<BlockKey> found(4);
  std::vector<std::thread> threads;
  for (BlockKey& key : found) {
    threads.emplace_back([&] { key = chain.Links(Tokens(3200), 32).back().key; });
  }
  for (std::thread& thread : threads) thread.join();
  for (const BlockKey& key : found) EXPECT_EQ(key, expected);
}

TEST(SequenceKey, DependsOnEverythingThatItIsMadeOf) {
  const std::array<uint8_t, 16> profile = {1, 2, 3};
  std::array<uint8_t, 16> other_profile = profile;
  other_profile[15] = 1;
  BlockKey tail;
  tail.bytes[0] = 7;
  const BlockKey key = SequenceKey(Salt(), tail, 128, "prefixkv0.5+raw", profile);
  EXPECT_EQ(key, SequenceKey(Salt(), tail, 128, "prefixkv0.5+raw", profile));
  EXPECT_NE(key, SequenceKey(Salt("other"), tail, 128, "prefixkv0.5+raw", profile));
  EXPECT_NE(key, SequenceKey(Salt(), BlockKey(), 128, "prefixkv0.5+raw", profile));
  EXPECT_NE(key, SequenceKey(Salt(), tail, 192, "prefixkv0.5+raw", profile));
  EXPECT_NE(key, SequenceKey(Salt(), tail, 128, "prefixkv0.4+raw", profile));
  EXPECT_NE(key, SequenceKey(Salt(), tail, 128, "prefixkv0.5+raw", other_profile));
  EXPECT_DEATH(SequenceKey(Salt(), tail, 128, "", profile), "1 to 47");
}

TEST(OpaqueKey, DependsOnSaltAndName) {
  const BlockKey key = OpaqueKey(Salt(), Bytes("name"));
  EXPECT_EQ(key, OpaqueKey(Salt(), Bytes("name")));
  EXPECT_NE(key, OpaqueKey(Salt(), Bytes("name2")));
  EXPECT_NE(key, OpaqueKey(Salt("other"), Bytes("name")));
  EXPECT_NE(OpaqueKey(Salt(), {}), key);
}

TEST(PlacementOf, FirstEightBytesLittleEndian) {
  BlockKey key;
  key.bytes[0] = 1;
  key.bytes[7] = 2;
  key.bytes[8] = 3;
  EXPECT_EQ(PlacementOf(key), 0x0200000000000001u);
}

TEST(KeyChainDeathTest, MisuseAborts) {
  const Fingerprint model = *Fingerprint::Of(Model());
  EXPECT_DEATH(KeyChain(Salt(), model, Keyspace::kOpaque), "only prefix and chunk");
  const KeyChain chain(Salt(), model);
  EXPECT_DEATH(chain.NextFromEngineHash(nullptr, {}), "1 to 64 bytes");
}

TEST(ModelId, DependsOnWhatTheBytesBelongTo) {
  const ModelId id = ModelId::Of("w", "a", "s", 1e4);
  EXPECT_FALSE(id.is_zero());
  EXPECT_EQ(id.ToHex().size(), 32u);
  EXPECT_EQ(id, ModelId::Of("w", "a", "s", 1e4));
  EXPECT_EQ(ModelId::Of("w", "a", "s", 0.0), ModelId::Of("w", "a", "s", -0.0));
  for (const ModelId& other : {ModelId::Of("x", "a", "s", 1e4), ModelId::Of("w", "b", "s", 1e4),
                               ModelId::Of("w", "a", "t", 1e4), ModelId::Of("w", "a", "s", 1e5),
                               ModelId::Of("wa", "", "s", 1e4)}) {
    EXPECT_NE(id, other);
  }
}

}  // namespace
}  // namespace kedge
