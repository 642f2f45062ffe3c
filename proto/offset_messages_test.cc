#include "proto/offset_messages.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "proto/frame.h"
#include "proto/wire.h"

namespace kedge {
namespace {

using Bytes = std::vector<uint8_t>;

BlockKey Key(uint8_t fill) {
  BlockKey key;
  key.bytes.fill(fill);
  return key;
}

// The second encoding is the same bytes; every truncation and one byte too many fail.
template <typename Body>
Body RoundTrip(const Body& body, void (*encode)(const Body&, Bytes&),
               absl::Status (*decode)(std::span<const uint8_t>, Body&), Body used = {}) {
  Bytes bytes;
  encode(body, bytes);
  for (size_t size = 0; size < bytes.size(); ++size) {
    Body partial;
    const Bytes cut(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(size));
    EXPECT_EQ(decode(cut, partial).code(), absl::StatusCode::kInvalidArgument) << size;
  }
  Bytes longer = bytes;
  longer.push_back(0);
  Body excess;
  EXPECT_FALSE(decode(longer, excess).ok());
  const absl::Status status = decode(bytes, used);
  EXPECT_TRUE(status.ok()) << status;
  Bytes again;
  encode(used, again);
  EXPECT_EQ(again, bytes);
  return used;
}

AnchorInsertBody Insert(std::span<const uint8_t> header) {
  return {.slot = 17,
          .durability = kDurabilitySsd,
          .pool = Key(1),
          .placement = 11,
          .key = Key(2),
          .capacity = 20,
          .window = 5,
          .nucleus = 0.9,
          .header = header};
}

MixBody Question(uint32_t tokens) {
  MixBody mix{.pool = Key(1), .placement = 11, .key = Key(2), .shape = {1, 3, 2, 5, 77}};
  mix.sharpness = 10;
  mix.max_error = 0.5;
  mix.max_token_error = std::numeric_limits<double>::infinity();
  mix.tokens = tokens;
  mix.sketch.assign(size_t{tokens} * kSketchFloats, 0.5f);
  return mix;
}

template <typename Body>
std::string ErrorOf(const Body& body, void (*encode)(const Body&, Bytes&),
                    absl::Status (*decode)(std::span<const uint8_t>, Body&)) {
  Bytes bytes;
  encode(body, bytes);
  Body decoded;
  return std::string(decode(bytes, decoded).message());
}

TEST(OffsetMessages, Inserts) {
  const Bytes header = {1, 2, 3};
  EXPECT_EQ(RoundTrip(Insert(header), EncodeAnchorInsert, DecodeAnchorInsert).key, Key(2));
  AnchorInsertBody held = Insert({});
  held.slot = 0;
  held.flags = kAnchorFlagSealed;
  EXPECT_EQ(RoundTrip(held, EncodeAnchorInsert, DecodeAnchorInsert).flags, kAnchorFlagSealed);
  const AnchorInsertedBody done{17, ResultCode::kInvalid, PoolVerdict::kTemplate, 4, "other"};
  EXPECT_EQ(RoundTrip(done, EncodeAnchorInserted, DecodeAnchorInserted).verdict,
            PoolVerdict::kTemplate);
}

TEST(OffsetMessages, WhatAnInsertMayNotSay) {
  const Bytes header = {1};
  const auto error = [&](auto change) {
    AnchorInsertBody body = Insert(header);
    change(body);
    return ErrorOf(body, EncodeAnchorInsert, DecodeAnchorInsert);
  };
  EXPECT_EQ(error([](auto& b) { b.pool = {}; }), "anchor_insert.pool: is zero");
  EXPECT_EQ(error([](auto& b) { b.capacity = 257; }),
            "anchor_insert.capacity: 257 is not 1 to 256");
  EXPECT_EQ(error([](auto& b) { b.nucleus = 1.5; }), "anchor_insert.nucleus: 1.5 is not 0 to 1");
  EXPECT_EQ(error([](auto& b) { b.slot = 0; }), "anchor_insert.header: 1 bytes with slot 0");
  EXPECT_NE(error([](auto& b) { b.flags = 2; }), "");
  EXPECT_NE(error([](auto& b) { b.durability = 9; }), "");
}

TEST(OffsetMessages, MixAndReply) {
  MixBody used = Question(9);
  EXPECT_EQ(RoundTrip(Question(2), EncodeMix, DecodeMix, used).sketch.size(), 32u);
  MixReplyBody reply{.has_rows = 1, .dtype = DType::kBf16, .shape = {1, 3, 2, 5, 77}, .tokens = 6};
  reply.nearest = std::numeric_limits<double>::infinity();
  reply.active = {Key(1), Key(2)};
  reply.digests = {{1, 2}, {3, 4}};
  const MixReplyBody decoded = RoundTrip(reply, EncodeMixReply, DecodeMixReply);
  EXPECT_EQ(decoded.segment_bytes(), 2u * (6 + 5) * 2 * 2);
  EXPECT_EQ(decoded.mixed_bytes(), 2 * decoded.segment_bytes());
  RoundTrip<MixUsedBody>({Key(1), 11, {Key(2)}}, EncodeMixUsed, DecodeMixUsed);
}

TEST(OffsetMessages, WhatAMixMayNotSay) {
  const auto error = [&](auto change) {
    MixBody body = Question(2);
    change(body);
    return ErrorOf(body, EncodeMix, DecodeMix);
  };
  EXPECT_EQ(error([](auto& b) { b.shape.layers = 0; }), "mix.layers: 0 is not 1 to 1024");
  EXPECT_EQ(error([](auto& b) { b.sketch_first = 1; }), "mix.sketch: 2 rows from token 1 of 2");
  EXPECT_EQ(error([](auto& b) { b.sketch_first = 3; }), "mix.sketch: 2 rows from token 3 of 2");
  EXPECT_EQ(error([](auto& b) { b.dtype = DType::kU8; }),
            "mix.dtype: 5 is none of f32 1, f16 2, bf16 3");
  EXPECT_NE(error([](auto& b) { b.sketch[3] = NAN; }), "");
  EXPECT_NE(error([](auto& b) { b.sharpness = -1; }), "");
  EXPECT_NE(error([](auto& b) { b.sharpness = NAN; }), "");
  EXPECT_NE(error([](auto& b) { b.weighting = 4; }), "");
  EXPECT_NE(error([](auto& b) { b.tokens = kMixTokensMax + 1; }), "");
}

TEST(OffsetMessages, AReplyHasOneDigestForEachLayerButTheFirst) {
  MixReplyBody reply{.has_rows = 1, .shape = {0, 3, 2, 5, 77}, .tokens = 6};
  reply.digests = {{1, 2}};
  EXPECT_EQ(ErrorOf(reply, EncodeMixReply, DecodeMixReply),
            "mix_reply.digests: 1 of them where 2 are due");
}

TEST(OffsetMessages, VerdictsHaveNames) {
  for (uint8_t verdict = 0; verdict <= kPoolVerdictMax; ++verdict)
    EXPECT_STRNE(PoolVerdictName(static_cast<PoolVerdict>(verdict)), "unknown");
}

// The largest of each fits a head.
TEST(OffsetMessages, FitFrames) {
  Bytes bytes;
  EncodeMix(Question(kSketchFrameTokens), bytes);
  EXPECT_LE(FrameHeadBytes(0, static_cast<uint32_t>(bytes.size())), kHeadBytesMax);
  MixReplyBody reply{.has_rows = 1, .shape = {0, kMixLayersMax, 2, 5, 77}, .tokens = 6};
  reply.digests.resize(kMixLayersMax - 1);
  reply.active.resize(kAnchorsPerPoolMax, Key(1));
  bytes.clear();
  EncodeMixReply(reply, bytes);
  EXPECT_LE(FrameHeadBytes(0, static_cast<uint32_t>(bytes.size())), kHeadBytesMax);
}

}  // namespace
}  // namespace kedge
