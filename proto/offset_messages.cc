#include "proto/offset_messages.h"

#include <bit>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "proto/wire.h"

namespace kedge {
namespace {

constexpr uint32_t kKeyBytes = 32;
constexpr uint32_t kDigestBytes = 16;

void PutF64(WireWriter& out, double value) { out.U64(std::bit_cast<uint64_t>(value)); }
double TakeF64(WireReader& in, const char* field) { return std::bit_cast<double>(in.U64(field)); }

void TakeKey(WireReader& in, const char* field, BlockKey& key) {
  in.Bytes(field, key.bytes);
  if (in.ok() && key.is_zero()) in.Fail(field, "is zero");
}

void PutKeys(WireWriter& out, const std::vector<BlockKey>& keys) {
  out.Count(keys.size(), kAnchorsPerPoolMax);
  for (const BlockKey& key : keys) out.Bytes(key.bytes);
}

void TakeKeys(WireReader& in, const char* field, std::vector<BlockKey>& keys) {
  keys.resize(in.Count(field, kAnchorsPerPoolMax, kKeyBytes));
  for (BlockKey& key : keys) TakeKey(in, field, key);
}

uint32_t Within(WireReader& in, const char* field, uint32_t least, uint32_t most) {
  const uint32_t value = in.U32(field);
  if (in.ok() && (value < least || value > most))
    in.Fail(field, absl::StrCat(value, " is not ", least, " to ", most));
  return value;
}

void PutShape(WireWriter& out, const PoolShape& shape) {
  out.U8(shape.base_kind);
  out.U32(shape.layers);
  out.U32(shape.width);
  out.U32(shape.prefix_tokens);
  out.U64(shape.prefix_digest);
}

void TakeShape(WireReader& in, PoolShape& shape) {
  shape.base_kind = in.Enum("base_kind", 1);
  shape.layers = Within(in, "layers", 1, kMixLayersMax);
  shape.width = Within(in, "width", 1, kMixWidthMax);
  shape.prefix_tokens = Within(in, "prefix_tokens", 0, kMixTokensMax);
  shape.prefix_digest = in.U64("prefix_digest");
}

DType TakeDType(WireReader& in) {
  const uint8_t dtype = in.U8("dtype");
  if (in.ok() && (dtype < 1 || dtype > 3))
    in.Fail("dtype", absl::StrCat(dtype, " is none of f32 1, f16 2, bf16 3"));
  return static_cast<DType>(dtype);
}

void TakeSketch(WireReader& in, uint32_t tokens, uint32_t first, std::vector<float>& sketch) {
  const uint32_t rows = in.Count("sketch", kSketchFrameTokens, kSketchFloats * sizeof(float));
  if (in.ok() && (first > tokens || rows > tokens - first)) {
    in.Fail("sketch", absl::StrCat(rows, " rows from token ", first, " of ", tokens));
  }
  sketch.resize(in.ok() ? size_t{rows} * kSketchFloats : 0);
  for (float& value : sketch) {
    value = std::bit_cast<float>(in.U32("sketch"));
    if (!std::isfinite(value)) return in.Fail("sketch", "a number is not finite");
  }
}

}  // namespace

const char* PoolVerdictName(PoolVerdict verdict) {
  static constexpr const char* kNames[] = {"ok",        "no_pool", "shape",   "template", "empty",
                                           "too_large", "sealed",  "damaged", "busy"};
  const auto index = static_cast<size_t>(verdict);
  return index <= kPoolVerdictMax ? kNames[index] : "unknown";
}

uint64_t MixReplyBody::segment_bytes() const {
  const uint64_t width = dtype == DType::kF32 ? 4 : 2;
  return 2 * (uint64_t{tokens} + shape.prefix_tokens) * shape.width * width;
}

Digest128 MixDigest(const BlockKey& pool, uint32_t layer, std::span<const uint8_t> segment) {
  static const Variant kMixVariant = *Variant::Parse("mix");
  return PartDigest(pool, kMixVariant, layer, segment);
}

void EncodeAnchorInsert(const AnchorInsertBody& body, std::vector<uint8_t>& out) {
  WireWriter to(out);
  to.U64(body.slot);
  to.U8(body.durability);
  to.U8(body.flags);
  to.Bytes(body.pool.bytes);
  to.U64(body.placement);
  to.Bytes(body.key.bytes);
  to.U32(body.capacity);
  to.U32(body.window);
  PutF64(to, body.nucleus);
  to.Blob(body.header, kBlockHeaderBytesMax);
}

absl::Status DecodeAnchorInsert(std::span<const uint8_t> bytes, AnchorInsertBody& body) {
  WireReader in("anchor_insert", bytes);
  body.slot = in.U64("slot");
  body.durability = in.U8("durability");
  if (in.ok() && body.durability > kDurabilitySsd && body.durability != kDurabilityDefault)
    in.Fail("durability", absl::StrCat("value ", body.durability, " is none of 0, 1, 255"));
  body.flags = in.Enum("flags", kAnchorFlagSealed);
  TakeKey(in, "pool", body.pool);
  body.placement = in.U64("placement");
  TakeKey(in, "key", body.key);
  body.capacity = Within(in, "capacity", 1, kAnchorsPerPoolMax);
  body.window = Within(in, "window", 1, UINT32_MAX);
  body.nucleus = TakeF64(in, "nucleus");
  if (in.ok() && !(body.nucleus >= 0 && body.nucleus <= 1))
    in.Fail("nucleus", absl::StrCat(body.nucleus, " is not 0 to 1"));
  body.header = in.Blob("header", kBlockHeaderBytesMax);
  if (in.ok() && (body.slot == 0) != body.header.empty())
    in.Fail("header", absl::StrCat(body.header.size(), " bytes with slot ", body.slot));
  return in.Finish();
}

void EncodeAnchorInserted(const AnchorInsertedBody& body, std::vector<uint8_t>& out) {
  WireWriter to(out);
  to.U64(body.slot);
  to.U8(static_cast<uint8_t>(body.code));
  to.U8(static_cast<uint8_t>(body.verdict));
  to.U32(body.anchors);
  to.TextCut(body.text, kTextBytesMax);
}

absl::Status DecodeAnchorInserted(std::span<const uint8_t> bytes, AnchorInsertedBody& body) {
  WireReader in("anchor_inserted", bytes);
  body.slot = in.U64("slot");
  body.code = static_cast<ResultCode>(in.Enum("code", kResultCodeMax));
  body.verdict = static_cast<PoolVerdict>(in.Enum("verdict", kPoolVerdictMax));
  body.anchors = in.U32("anchors");
  in.Text("text", body.text, kTextBytesMax);
  return in.Finish();
}

void EncodeMix(const MixBody& body, std::vector<uint8_t>& out) {
  WireWriter to(out);
  to.Bytes(body.pool.bytes);
  to.U64(body.placement);
  to.Bytes(body.key.bytes);
  to.U64(body.context_digest);
  PutShape(to, body.shape);
  to.U8(body.weighting);
  to.U8(body.with_error);
  to.U8(static_cast<uint8_t>(body.dtype));
  PutF64(to, body.sharpness);
  PutF64(to, body.max_error);
  PutF64(to, body.max_token_error);
  to.U32(body.tokens);
  to.U32(body.sketch_first);
  to.Count(body.sketch.size() / kSketchFloats, kSketchFrameTokens);
  for (const float value : body.sketch) to.U32(std::bit_cast<uint32_t>(value));
}

absl::Status DecodeMix(std::span<const uint8_t> bytes, MixBody& body) {
  WireReader in("mix", bytes);
  TakeKey(in, "pool", body.pool);
  body.placement = in.U64("placement");
  TakeKey(in, "key", body.key);
  body.context_digest = in.U64("context_digest");
  TakeShape(in, body.shape);
  body.weighting = in.Enum("weighting", 3);
  body.with_error = in.Enum("with_error", 1);
  body.dtype = TakeDType(in);
  body.sharpness = TakeF64(in, "sharpness");
  if (in.ok() && !(std::isfinite(body.sharpness) && body.sharpness >= 0))
    in.Fail("sharpness", absl::StrCat(body.sharpness, " is not finite and 0 or more"));
  body.max_error = TakeF64(in, "max_error");
  body.max_token_error = TakeF64(in, "max_token_error");
  body.tokens = Within(in, "tokens", 0, kMixTokensMax);
  body.sketch_first = in.U32("sketch_first");
  TakeSketch(in, body.tokens, body.sketch_first, body.sketch);
  return in.Finish();
}

void EncodeMixReply(const MixReplyBody& body, std::vector<uint8_t>& out) {
  WireWriter to(out);
  to.U8(static_cast<uint8_t>(body.verdict));
  to.U8(body.same);
  to.U8(body.has_rows);
  to.U8(static_cast<uint8_t>(body.dtype));
  PutShape(to, body.shape);
  to.U32(body.tokens);
  to.U32(body.runs);
  to.U32(body.longest);
  to.U32(body.eligible);
  to.U32(body.predicted);
  PutF64(to, body.entropy);
  PutF64(to, body.nearest);
  for (const double error : body.error) PutF64(to, error);
  to.U64(body.read_bytes);
  to.U64(body.mix_us);
  PutKeys(to, body.active);
  to.Count(body.digests.size(), kMixLayersMax);
  for (const Digest128& digest : body.digests) {
    to.U64(digest.low);
    to.U64(digest.high);
  }
}

absl::Status DecodeMixReply(std::span<const uint8_t> bytes, MixReplyBody& body) {
  WireReader in("mix_reply", bytes);
  body.verdict = static_cast<PoolVerdict>(in.Enum("verdict", kPoolVerdictMax));
  body.same = in.Enum("same", 1);
  body.has_rows = in.Enum("has_rows", 1);
  body.dtype = TakeDType(in);
  TakeShape(in, body.shape);
  body.tokens = Within(in, "tokens", 0, kMixTokensMax);
  body.runs = in.U32("runs");
  body.longest = in.U32("longest");
  body.eligible = in.U32("eligible");
  body.predicted = in.U32("predicted");
  body.entropy = TakeF64(in, "entropy");
  body.nearest = TakeF64(in, "nearest");
  for (double& error : body.error) error = TakeF64(in, "error");
  body.read_bytes = in.U64("read_bytes");
  body.mix_us = in.U64("mix_us");
  TakeKeys(in, "active", body.active);
  const uint32_t digests = in.Count("digests", kMixLayersMax, kDigestBytes);
  const uint32_t due = body.has_rows != 0 ? body.shape.layers - 1 : 0;
  if (in.ok() && digests != due)
    in.Fail("digests", absl::StrCat(digests, " of them where ", due, " are due"));
  body.digests.resize(in.ok() ? digests : 0);
  for (Digest128& digest : body.digests) {
    digest.low = in.U64("digests");
    digest.high = in.U64("digests");
  }
  return in.Finish();
}

void EncodeMixUsed(const MixUsedBody& body, std::vector<uint8_t>& out) {
  WireWriter to(out);
  to.Bytes(body.pool.bytes);
  to.U64(body.placement);
  PutKeys(to, body.active);
}

absl::Status DecodeMixUsed(std::span<const uint8_t> bytes, MixUsedBody& body) {
  WireReader in("mix_used", bytes);
  TakeKey(in, "pool", body.pool);
  body.placement = in.U64("placement");
  TakeKeys(in, "active", body.active);
  return in.Finish();
}

}  // namespace kedge
