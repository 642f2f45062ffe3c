// The same keys, headers and frames as tests/golden/make_vectors.py makes from proto/README.md.
#include <gtest/gtest.h>

#include <fstream>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "proto/block_header.h"
#include "proto/block_key.h"
#include "proto/frame.h"
#include "proto/messages.h"
#include "proto/near_messages.h"
#include "proto/offset_messages.h"
#include "proto/stream.h"

namespace kedge {
namespace {

using nlohmann::json;
using Bytes = std::vector<uint8_t>;

json Load(const std::string& name) {
  std::ifstream file("tests/golden/vectors/" + name);
  EXPECT_TRUE(file.good()) << name;
  return json::parse(file);
}

std::string Hex(std::span<const uint8_t> bytes) {
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

Bytes FromHex(const json& hex) {
  const std::string bytes = absl::HexStringToBytes(hex.get<std::string>());
  return Bytes(bytes.begin(), bytes.end());
}

KvShape ShapeOf(const json& from) {
  KvShape shape;
  shape.layer_begin = from["layer_begin"];
  shape.layer_count = from["layer_count"];
  shape.kv_head_begin = from["kv_head_begin"];
  shape.kv_heads = from["kv_heads"];
  shape.head_size = from["head_size"];
  shape.block_tokens = from["block_tokens"];
  shape.dtype = *ParseDType(from["dtype"].get<std::string>());
  for (const json& name : from["components"]) {
    for (int value = 1; value <= kComponentCount; ++value) {
      if (name == ComponentName(static_cast<Component>(value)))
        shape.components |= 1 << (value - 1);
    }
  }
  return shape;
}

ModelIdentity ModelOf(const json& from) {
  ModelIdentity model;
  model.weights_id = from["weights_id"];
  model.adapter_id = from["adapter_id"];
  model.tokenizer_id = from["tokenizer_id"];
  model.rope_scaling = from["rope_scaling"];
  model.kv_scales_id = from["kv_scales_id"];
  model.rope_theta = from["rope_theta"];
  model.shape = ShapeOf(from["shape"]);
  return model;
}

Fingerprint FingerprintOf(const json& from) { return *Fingerprint::Of(ModelOf(from)); }

TenantSalt SaltOf(const json& text) { return *TenantSalt::FromText(text.get<std::string>()); }

void ExpectLink(const ChainLink& link, const json& want) {
  EXPECT_EQ(link.key.ToHex(), want["key"]);
  EXPECT_EQ(link.parent.ToHex(), want["parent"]);
  EXPECT_EQ(link.depth, want["depth"]);
  EXPECT_EQ(link.placement, want["placement"].get<uint64_t>());
}

TEST(Vectors, SaltsAndFingerprints) {
  const json keys = Load("keys.json");
  ASSERT_EQ(keys["salts"].size(), 2u);
  for (const json& salt : keys["salts"]) EXPECT_EQ(Hex(SaltOf(salt["text"]).bytes), salt["bytes"]);
  ASSERT_EQ(keys["fingerprints"].size(), 2u);
  for (const json& want : keys["fingerprints"]) {
    EXPECT_EQ(FingerprintOf(want["model"]).ToHex(), want["fingerprint"]);
    EXPECT_EQ(ModelId::Of(ModelOf(want["model"])).ToHex(), want["model_id"]);
    std::array<uint8_t, KvShape::kEncodedBytes> shape;
    EncodeKvShape(ShapeOf(want["model"]["shape"]), shape);
    EXPECT_EQ(Hex(shape), want["shape_bytes"]);
  }
}

TEST(Vectors, Chains) {
  const json keys = Load("keys.json");
  ASSERT_EQ(keys["chains"].size(), 3u);
  for (const json& want : keys["chains"]) {
    const Fingerprint model =
        FingerprintOf(keys["fingerprints"][want["model"].get<int>()]["model"]);
    const Keyspace keyspace = want["keyspace"] == "chunk" ? Keyspace::kChunk : Keyspace::kPrefix;
    const KeyChain chain(SaltOf(want["salt"]), model, keyspace, want["extra"].get<std::string>());
    const auto links =
        chain.Links(want["tokens"].get<std::vector<int32_t>>(), want["block_tokens"]);
    ASSERT_EQ(links.size(), want["links"].size());
    for (size_t i = 0; i < links.size(); ++i) ExpectLink(links[i], want["links"][i]);
  }
}

TEST(Vectors, EngineHashes) {
  const json keys = Load("keys.json");
  ASSERT_EQ(keys["engine_chains"].size(), 1u);
  const json& want = keys["engine_chains"][0];
  const KeyChain chain(SaltOf(want["salt"]), FingerprintOf(keys["fingerprints"][0]["model"]));
  ChainLink link;
  for (size_t i = 0; i < want["hashes"].size(); ++i) {
    link = chain.NextFromEngineHash(i == 0 ? nullptr : &link, FromHex(want["hashes"][i]));
    ExpectLink(link, want["links"][i]);
  }
  EXPECT_EQ(link.depth, 2u);
}

TEST(Vectors, OpaqueKeys) {
  const json keys = Load("keys.json");
  ASSERT_EQ(keys["opaque"].size(), 6u);
  for (const json& want : keys["opaque"]) {
    EXPECT_EQ(OpaqueKey(SaltOf(want["salt"]), FromHex(want["name"])).ToHex(), want["key"]);
  }
}

TEST(Vectors, SequenceKeys) {
  const json keys = Load("keys.json");
  ASSERT_EQ(keys["sequence"].size(), 4u);
  for (const json& want : keys["sequence"]) {
    const absl::StatusOr<BlockKey> tail = BlockKey::FromHex(want["tail"].get<std::string>());
    ASSERT_TRUE(tail.ok());
    const Bytes profile = FromHex(want["profile"]);
    ASSERT_EQ(profile.size(), 16u);
    EXPECT_EQ(
        SequenceKey(SaltOf(want["salt"]), *tail, want["tokens"], want["chain"].get<std::string>(),
                    std::span<const uint8_t, 16>(profile.data(), 16))
            .ToHex(),
        want["key"]);
  }
}

// `pattern` in headers.json.
Bytes Pattern(uint32_t part, uint32_t count) {
  Bytes bytes(count);
  for (uint32_t i = 0; i < count; ++i)
    bytes[i] = static_cast<uint8_t>(i * 7 + i / 256 + part * 13 + 1);
  return bytes;
}

BlockHeader HeaderOf(const json& from, Bytes& payload) {
  BlockHeader header;
  header.key = *BlockKey::FromHex(from["key"].get<std::string>());
  header.parent = *BlockKey::FromHex(from["parent"].get<std::string>());
  header.placement = from["placement"];
  header.chain_depth = from["chain_depth"];
  header.keyspace = static_cast<Keyspace>(from["keyspace"].get<int>());
  header.fidelity = static_cast<Fidelity>(from["fidelity"].get<int>());
  header.rope = static_cast<RopeState>(from["rope"].get<int>());
  header.rope_base_position = from["rope_base_position"];
  header.variant = *Variant::Parse(from["variant"].get<std::string>());
  header.shape = ShapeOf(from["shape"]);
  if (from.contains("model")) {
    const std::string text = absl::HexStringToBytes(from["model"].get<std::string>());
    std::copy_n(text.begin(), header.model.bytes.size(), header.model.bytes.begin());
    header.tenant = from["tenant"];
  }
  for (uint32_t part = 0; part < from["part_bytes"].size(); ++part) {
    const Bytes bytes = Pattern(part, from["part_bytes"][part]);
    payload.insert(payload.end(), bytes.begin(), bytes.end());
    header.parts.push_back(
        {static_cast<uint32_t>(bytes.size()), PartDigest(header.key, header.variant, part, bytes)});
  }
  return header;
}

TEST(Vectors, BlockHeaders) {
  const json file = Load("headers.json");
  ASSERT_EQ(file["headers"].size(), 11u);
  for (const json& want : file["headers"]) {
    Bytes payload;
    BlockHeader header = HeaderOf(want, payload);
    const auto encoded = EncodeBlockHeader(header);
    ASSERT_TRUE(encoded.ok()) << encoded.status();
    EXPECT_EQ(Hex(*encoded), want["encoded"]);
    const auto decoded = DecodeBlockHeader(FromHex(want["encoded"]));
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    EXPECT_TRUE(VerifyPayload(*decoded, payload).ok());
  }
}

BlockKey Key(uint8_t fill) {
  BlockKey key;
  key.bytes.fill(fill);
  return key;
}

template <typename Body>
Bytes Encoded(void (*encode)(const Body&, Bytes&), const Body& body) {
  Bytes bytes;
  encode(body, bytes);
  return bytes;
}

// The bodies of make_bodies() in make_vectors.py.
std::map<std::string, Bytes> Bodies() {
  const std::vector<Member> members = {{"node-a", "tcp://10.0.0.1:7000", "10.0.0.1:7001"},
                                       {"node-b", "shm://localhost:1", ""}};
  const std::vector<Variant> variants = {Variant::Raw(), *Variant::Parse("kivi4g32")};
  const std::vector<KeyItem> keys = {{Key(1), 11}, {Key(2), 22}};
  const Bytes header = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
  std::map<std::string, Bytes> bodies;
  for (const char* empty : {"cancel", "ping", "pong", "goodbye"}) bodies[empty] = {};
  bodies["hello"] = Encoded<HelloBody>(EncodeHello, {"client", "1.2"});
  bodies["welcome"] = Encoded<WelcomeBody>(EncodeWelcome, {7, 8, "node-a", 9, 10, 1, members});
  bodies["match"] =
      Encoded<MatchBody>(EncodeMatch, {kMatchFlagRun | kMatchFlagLease, 500, variants, keys});
  bodies["match_reply"] = Encoded<MatchReplyBody>(
      EncodeMatchReply, {3, 400, {{ResultCode::kOk, TierId::kHost, 1, 4096}, {}}});
  bodies["get"] = Encoded<GetBody>(EncodeGet, {2, 4, variants, {{Key(1), 11, 1048576}}});
  bodies["get_item"] =
      Encoded<GetItemBody>(EncodeGetItem, {6, ResultCode::kOk, TierId::kSsd, 99, header, ""});
  bodies["chunk"] = Encoded<ChunkBody>(EncodeChunk, {17, 4096});
  PutBeginBody put_begin{.variant = Variant::Raw(), .durability = kDurabilitySsd, .items = {}};
  put_begin.items = {{Key(1), 11, 65536, 8, 8192}, {Key(2), 22, 5, 1, 0}};
  bodies["put_begin"] = Encoded(EncodePutBegin, put_begin);
  bodies["put_ready"] =
      Encoded<PutReadyBody>(EncodePutReady, {{{ResultCode::kOk, 17}, {ResultCode::kExists, 0}}});
  bodies["put_commit"] = Encoded<PutCommitBody>(EncodePutCommit, {17, kDurabilityDefault, header});
  bodies["put_done"] = Encoded<PutDoneBody>(EncodePutDone, {17, ResultCode::kMismatch, "part 3"});
  bodies["put_abort"] = Encoded<PutAbortBody>(EncodePutAbort, {{1, 2, 3}});
  bodies["remove"] = Encoded<RemoveBody>(EncodeRemove, {keys});
  bodies["remove_reply"] =
      Encoded<RemoveReplyBody>(EncodeRemoveReply, {{ResultCode::kOk, ResultCode::kAbsent}});
  bodies["release"] = Encoded<ReleaseBody>(EncodeRelease, {{4}});
  bodies["anchor_insert"] = Encoded<AnchorInsertBody>(
      EncodeAnchorInsert, {17, kDurabilitySsd, 0, Key(1), 11, Key(2), 20, 5, 0.9, header});
  bodies["anchor_inserted"] = Encoded<AnchorInsertedBody>(
      EncodeAnchorInserted,
      {17, ResultCode::kInvalid, PoolVerdict::kTemplate, 4, "other template"});
  const PoolShape shape{1, 3, 2, 5, 77};
  MixBody mix{Key(1), 11, Key(2), 55, shape, 1, 1, DType::kBf16, 10.0, 0.48};
  mix.max_token_error = std::numeric_limits<double>::infinity();
  mix.tokens = 6;
  mix.sketch_first = 4;
  for (const int row : {0, 7})
    for (int i = 0; i < 16; ++i) mix.sketch.push_back(static_cast<float>(row + i));
  bodies["mix"] = Encoded(EncodeMix, mix);
  MixReplyBody reply{.has_rows = 1, .dtype = DType::kBf16, .shape = shape, .tokens = 6, .runs = 9};
  reply.longest = 8;
  reply.eligible = 7;
  reply.predicted = 9;
  reply.entropy = 2.0;
  reply.nearest = 0.5;
  for (int i = 0; i < 4; ++i) reply.error[i] = 0.25 * (i + 1);
  reply.read_bytes = 4096;
  reply.mix_us = 31;
  reply.active = {Key(1), Key(2)};
  reply.digests = {{.low = 0x0706050403020100, .high = 0x0f0e0d0c0b0a0908},
                   {.low = 0x1716151413121110, .high = 0x1f1e1d1c1b1a1918}};
  bodies["mix_reply"] = Encoded(EncodeMixReply, reply);
  bodies["mix_used"] = Encoded<MixUsedBody>(EncodeMixUsed, {Key(1), 11, {Key(2)}});
  const NearDonor donor{Key(1), 11, 256, 128, Keyspace::kChunk};
  bodies["near_insert"] = Encoded<NearInsertBody>(EncodeNearInsert, {{{donor, {{5, 3}, {6, 0}}}}});
  bodies["near_inserted"] = Encoded<NearInsertedBody>(
      EncodeNearInserted, {{ResultCode::kOk, static_cast<ResultCode>(3)}});
  bodies["near_lookup"] = Encoded<NearLookupBody>(EncodeNearLookup, {{5, 9, 6}});
  bodies["near_found"] =
      Encoded<NearFoundBody>(EncodeNearFound, {4, {{donor}, {{0, 0, 3}, {2, 0, 0}}}});
  bodies["near_strike"] = Encoded<NearStrikeBody>(EncodeNearStrike, {{Key(1), Key(2)}});
  bodies["error"] =
      Encoded<ErrorBody>(EncodeError, {ResultCode::kStaleEpoch, "old list", 5, members});
  return bodies;
}

TEST(Vectors, FramesAndBodies) {
  const json file = Load("frames.json");
  const std::map<std::string, Bytes> bodies = Bodies();
  ASSERT_EQ(file["frames"].size(), size_t{kFrameTypeMax});
  ASSERT_EQ(bodies.size(), size_t{kFrameTypeMax});
  for (const json& want : file["frames"]) {
    const std::string name = want["name"];
    FrameHeader header;
    header.type = static_cast<FrameType>(want["type"].get<int>());
    EXPECT_EQ(FrameTypeName(header.type), name);
    const Bytes& body = bodies.at(name);
    EXPECT_EQ(Hex(body), want["body"]) << name;

    const Bytes tlvs = FromHex(want["tlvs"]);
    header.tlv_bytes = static_cast<uint16_t>(tlvs.size());
    header.body_bytes = static_cast<uint32_t>(body.size());
    header.payload_bytes = want["payload_bytes"];
    header.deadline_ms = want["deadline_ms"];
    header.request = want["request"];
    header.session = want["session"];
    header.tenant = want["tenant"];
    header.epoch = want["epoch"];
    const Bytes trace_id = FromHex(want["trace_id"]);
    ASSERT_EQ(trace_id.size(), header.trace_id.size());
    std::copy(trace_id.begin(), trace_id.end(), header.trace_id.begin());
    Bytes head(FrameHeadBytes(header.tlv_bytes, header.body_bytes));
    EncodeFrame(header, tlvs, body, head);
    EXPECT_EQ(Hex(head), want["head"]) << name;
    const auto decoded = DecodeFrame(FromHex(want["head"]), header.payload_bytes);
    EXPECT_TRUE(decoded.ok()) << name << " " << decoded.status();
  }
}

TEST(Vectors, GreetingsAndPrefixes) {
  const json file = Load("stream.json");
  ASSERT_EQ(file["greetings"].size(), 3u);
  for (const json& want : file["greetings"]) {
    const Bytes address = FromHex(want["address"]);
    Bytes encoded(kGreetingHeaderBytes + address.size());
    EncodeGreeting({static_cast<StreamWire>(want["wire"].get<int>()),
                    static_cast<GreetingStatus>(want["status"].get<int>()),
                    want["payload_bytes_max"], address},
                   encoded);
    EXPECT_EQ(Hex(encoded), want["encoded"]) << want["name"];
  }
  ASSERT_EQ(file["prefixes"].size(), 3u);
  for (const json& want : file["prefixes"]) {
    const auto encoded = EncodeMessagePrefix({want["head_bytes"], want["payload_bytes"]});
    EXPECT_EQ(Hex(Bytes(encoded.begin(), encoded.end())), want["encoded"]);
  }
}

}  // namespace
}  // namespace kedge
