// A client that keeps anchors on a node and has them mixed, in frames: for tests of the node.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "gpu/offset/testing_rows.h"
#include "proto/offset_messages.h"
#include "store/block/anchor_pool.h"
#include "store/block/pool_roster.h"
#include "store/node/node_testing.h"

namespace kedge {

inline BlockKey TestKey(uint8_t space, uint64_t number) {
  BlockKey key;
  const std::vector<uint8_t> bytes = TestBytes(number + uint64_t{space} * 1'000'000'007, 32);
  std::copy(bytes.begin(), bytes.end(), key.bytes.begin());
  return key;
}

// One of three layers of width 8, as offset::RandomAnchor makes them.
inline offset::Anchor TestAnchor(int64_t tokens, uint32_t seed) {
  offset::Anchor anchor = offset::RandomAnchor(tokens, 2, seed);
  anchor.key = TestKey(1, seed);
  anchor.context_digest = seed + 70;
  return anchor;
}

struct TestPool {
  explicit TestPool(uint64_t number)
      : key(TestKey(2, number)), placement(PlacementOf(TestKey(3, number))) {}
  BlockKey key;
  uint64_t placement;
  AnchorPoolOptions options;
};

inline TestBlock AnchorBlock(const TestPool& pool, const offset::Anchor& anchor) {
  TestBlock block;
  block.header.key = anchor.key;
  block.header.placement = pool.placement;
  block.header.variant = Variant::Raw();
  block.header.keyspace = Keyspace::kAnchor;
  block.payload = offset::EncodeAnchor(anchor, DType::kF32);
  block.header.parts.resize(1);
  block.header.parts[0].bytes = static_cast<uint32_t>(block.payload.size());
  SealTestBlock(block);
  return block;
}

inline AnchorInsertBody InsertOf(const TestPool& pool, const TestBlock& block, uint64_t slot,
                                 uint8_t durability) {
  AnchorInsertBody insert{.slot = slot,
                          .durability = durability,
                          .pool = pool.key,
                          .placement = pool.placement,
                          .key = block.header.key,
                          .capacity = static_cast<uint32_t>(pool.options.capacity),
                          .window = static_cast<uint32_t>(pool.options.window),
                          .nucleus = pool.options.nucleus};
  if (slot != 0) insert.header = block.encoded;
  return insert;
}

inline AnchorInsertedBody SendInsert(TestClient& client, const AnchorInsertBody& insert) {
  std::vector<uint8_t> body;
  EncodeAnchorInsert(insert, body);
  AnchorInsertedBody inserted;
  const auto status =
      DecodeAnchorInserted(client.Ask(FrameType::kAnchorInsert, body).body, inserted);
  EXPECT_TRUE(status.ok()) << status;
  return inserted;
}

inline AnchorInsertedBody InsertBlock(TestClient& client, const TestPool& pool,
                                      const TestBlock& block,
                                      uint8_t durability = kDurabilityDefault) {
  const PutReadyItem ready = client.Begin({&block}, true).at(0);
  if (ready.code == ResultCode::kOk) {
    for (size_t at = 0; at < block.payload.size(); at += 100'000) {
      const size_t bytes = std::min<size_t>(100'000, block.payload.size() - at);
      client.Chunk(ready.slot, at, std::span(block.payload).subspan(at, bytes));
    }
  } else {
    EXPECT_EQ(ready.code, ResultCode::kExists);
  }
  const uint64_t slot = ready.code == ResultCode::kOk ? ready.slot : 0;
  return SendInsert(client, InsertOf(pool, block, slot, durability));
}

inline AnchorInsertedBody InsertAnchor(TestClient& client, const TestPool& pool,
                                       const offset::Anchor& anchor,
                                       uint8_t durability = kDurabilityDefault) {
  return InsertBlock(client, pool, AnchorBlock(pool, anchor), durability);
}

inline MixBody QuestionOf(const TestPool& pool, const offset::Anchor& filling) {
  MixBody mix{.pool = pool.key, .placement = pool.placement, .key = filling.key};
  mix.context_digest = filling.context_digest;
  mix.shape = WireShapeOf(AnchorShape::Of(filling));
  mix.with_error = 1;
  mix.sharpness = 4.0;
  mix.max_error = mix.max_token_error = 1e9;
  mix.tokens = static_cast<uint32_t>(filling.sketch.tokens);
  mix.sketch = filling.sketch.values;
  return mix;
}

struct TestMixed {
  FrameType type = FrameType::kMixReply;
  ResultCode error = ResultCode::kOk;  // of a kError
  std::string text;
  MixReplyBody reply;
  std::vector<uint8_t> bytes;
};

inline TestMixed WaitMixed(TestClient& client, uint64_t request, const BlockKey& pool) {
  TestMixed mixed;
  TestClient::Message message = client.Wait(request);
  mixed.type = message.header.type;
  if (mixed.type == FrameType::kError) {
    ErrorBody error;
    (void)DecodeError(message.body, error);
    mixed.error = error.code;
    mixed.text = error.text;
    return mixed;
  }
  const absl::Status status = DecodeMixReply(message.body, mixed.reply);
  EXPECT_TRUE(status.ok()) << status;
  mixed.bytes.resize(mixed.reply.mixed_bytes());
  std::copy(message.payload.begin(), message.payload.end(), mixed.bytes.begin());
  for (uint64_t got = message.payload.size(); got < mixed.bytes.size();) {
    message = client.Wait(request);
    ChunkBody chunk;
    if (!DecodeChunk(message.body, chunk).ok() ||
        chunk.offset + message.payload.size() > mixed.bytes.size()) {
      ADD_FAILURE() << "a chunk out of bounds";
      return mixed;
    }
    std::copy(message.payload.begin(), message.payload.end(), mixed.bytes.begin() + chunk.offset);
    got += message.payload.size();
  }
  const uint64_t segment = mixed.reply.segment_bytes();
  for (uint32_t i = 0; i < mixed.reply.digests.size(); ++i) {
    EXPECT_EQ(MixDigest(pool, i + 1, std::span(mixed.bytes).subspan(i * segment, segment)),
              mixed.reply.digests[i]);
  }
  return mixed;
}

inline TestMixed AskMix(TestClient& client, const MixBody& mix, uint32_t deadline_ms = 0) {
  std::vector<uint8_t> body;
  EncodeMix(mix, body);
  return WaitMixed(client, client.Send(FrameType::kMix, body, {}, deadline_ms), mix.pool);
}

// What the same pool in this process answers, as the bytes of the wire.
inline std::vector<uint8_t> MixedHere(const AnchorPool& pool, const offset::Anchor& filling) {
  const PoolAnswer answer = pool.Ask(
      filling.sketch,
      {.key = filling.key, .context_digest = filling.context_digest, .mix = {.sharpness = 4.0}});
  std::vector<uint8_t> bytes;
  const auto put = [&](const std::vector<float>& rows, int64_t layer) {
    const size_t count = rows.size() / 3;
    const auto* from = reinterpret_cast<const uint8_t*>(rows.data() + layer * count);
    bytes.insert(bytes.end(), from, from + count * sizeof(float));
  };
  for (int64_t layer = 1; layer < 3 && answer.has_rows; ++layer) {
    put(answer.filling.keys, layer);
    put(answer.filling.values, layer);
    put(answer.prefix.keys, layer);
    put(answer.prefix.values, layer);
  }
  return bytes;
}

inline void SendUsed(TestClient& client, const TestPool& pool, std::vector<BlockKey> active) {
  std::vector<uint8_t> body;
  EncodeMixUsed({pool.key, pool.placement, std::move(active)}, body);
  client.Send(FrameType::kMixUsed, body);
  client.Ping();
}

}  // namespace kedge
