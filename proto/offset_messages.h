// Bodies of the frames about offsets (KVCOMM): a node keeps the anchors of a placeholder and mixes
// them. Rules as in proto/messages.h; proto/README.md has each byte.
//
// INSERT:  kPutBegin with the anchor's key -> kPutReady -> kChunk... -> kAnchorInsert in place of
//          kPutCommit -> kAnchorInserted. Where the node has the block already (kExists) the insert
//          names slot 0. The payload is an encoded anchor (gpu/offset/anchor.h).
// MIX:     kMix, in as many frames of one request as the sketch needs -> kMixReply, whose payload
//          is the beginning of the mixed segments, and kChunk... (target 0, offset in the mixed
//          bytes). After an answer was used: kMixUsed, which is not answered.
//
// Mixed bytes: for each layer from 1 on one segment, in the order of layers; a segment has the
// filling's keys [tokens][width], its values, the prefix's keys [prefix_tokens][width], its values,
// in the dtype asked for. Each segment has a digest, seeded like a part's with (pool key, variant
// "mix", layer).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "proto/block_header.h"
#include "proto/block_key.h"
#include "proto/kv_shape.h"
#include "proto/messages.h"
#include "proto/result_code.h"

namespace kedge {

inline constexpr uint32_t kAnchorsPerPoolMax = 256;  // an answer names those that it is made of
inline constexpr uint32_t kMixLayersMax = 1024;      // one digest each, in one head
inline constexpr uint32_t kMixTokensMax = 1u << 15;  // of a filling, and of a prefix segment
inline constexpr uint32_t kMixWidthMax = 1u << 16;
inline constexpr uint32_t kSketchFloats = 16;          // a token
inline constexpr uint32_t kSketchFrameTokens = 1'024;  // in one kMix: 64 KiB of a head's 128

// What all anchors of a pool have in common.
struct PoolShape {
  uint8_t base_kind = 0;  // canonical 0, produced 1
  uint32_t layers = 0;    // 1 to kMixLayersMax
  uint32_t width = 0;     // kv_heads * head_size; 1 to kMixWidthMax
  uint32_t prefix_tokens = 0;
  uint64_t prefix_digest = 0;
  friend bool operator==(const PoolShape&, const PoolShape&) = default;
};

// What a pool thinks of an anchor or a question. Values never change meaning.
enum class PoolVerdict : uint8_t {
  kOk = 0,
  kNoPool = 1,    // nothing is known under this key
  kShape = 2,     // layers or width are not the pool's
  kTemplate = 3,  // the text behind the placeholder, or the kind of base, is not the pool's
  kEmpty = 4,     // a filling without tokens
  kTooLarge = 5,  // more bytes than an anchor, a pool or an answer may have
  kSealed = 6,    // the node cannot read it, and so cannot mix it
  kDamaged = 7,   // the payload is no anchor
  kBusy = 8,      // too many are waiting
};
inline constexpr uint8_t kPoolVerdictMax = 8;
const char* PoolVerdictName(PoolVerdict verdict);  // "ok", "no_pool", ...

// The payload is enciphered by the client: nodes hold no keys, so they store such anchors as plain
// blocks (kPutCommit) and refuse to take them into a pool.
inline constexpr uint8_t kAnchorFlagSealed = 1;

struct AnchorInsertBody {
  uint64_t slot = 0;  // 0: the node has the block
  uint8_t durability = kDurabilityDefault;
  uint8_t flags = 0;
  BlockKey pool;
  uint64_t placement = 0;
  BlockKey key;                     // of the anchor
  uint32_t capacity = 0;            // of a pool that is new: anchors, 1 to kAnchorsPerPoolMax
  uint32_t window = 0;              // of the oldest, that one goes of: 1 and more
  double nucleus = 0;               // share of the weight that counts as active: 0 to 1
  std::span<const uint8_t> header;  // encoded block header; empty with slot 0. Into the frame
};

struct AnchorInsertedBody {
  uint64_t slot = 0;
  ResultCode code = ResultCode::kInternal;  // kExists: the pool has one under this key
  PoolVerdict verdict = PoolVerdict::kOk;
  uint32_t anchors = 0;  // that the pool has now
  std::string text;
};

struct MixBody {
  BlockKey pool;
  uint64_t placement = 0;
  BlockKey key;  // of the anchor that this filling would have
  uint64_t context_digest = 0;
  PoolShape shape;        // of the caller's bases and template
  uint8_t weighting = 0;  // filling 0, token 1, nearest 2, mean 3
  uint8_t with_error = 0;
  DType dtype = DType::kF32;  // of what comes back: f32, f16, bf16
  double sharpness = 0;       // finite, not negative
  // No rows where the pool's own error is above; may be infinite.
  double max_error = 0;
  double max_token_error = 0;
  uint32_t tokens = 0;        // of the filling
  uint32_t sketch_first = 0;  // token that this frame's rows begin with
  std::vector<float> sketch;  // [n][kSketchFloats], n at most kSketchFrameTokens; finite
};

struct MixReplyBody {
  PoolVerdict verdict = PoolVerdict::kOk;
  uint8_t same = 0;  // the answer is the anchor of this very filling in this very context
  uint8_t has_rows = 0;
  DType dtype = DType::kF32;
  PoolShape shape;
  uint32_t tokens = 0;
  uint32_t runs = 0;
  uint32_t longest = 0;
  uint32_t eligible = 0;
  uint32_t predicted = 0;
  double entropy = 0;
  double nearest = 0;       // infinite without anchors
  double error[4] = {};     // filling, its worst hundredth, prefix, its worst hundredth
  uint64_t read_bytes = 0;  // of anchors, on the node
  uint64_t mix_us = 0;      // on the node, without waiting
  std::vector<BlockKey> active;
  std::vector<Digest128> digests;  // of the segments; none without rows

  uint64_t segment_bytes() const;
  uint64_t mixed_bytes() const { return segment_bytes() * digests.size(); }
};

struct MixUsedBody {
  BlockKey pool;
  uint64_t placement = 0;
  std::vector<BlockKey> active;
};

// The digest of the mixed segment of a layer.
Digest128 MixDigest(const BlockKey& pool, uint32_t layer, std::span<const uint8_t> segment);

#define KEDGE_MESSAGE(Name)                                             \
  void Encode##Name(const Name##Body& body, std::vector<uint8_t>& out); \
  absl::Status Decode##Name(std::span<const uint8_t> bytes, Name##Body& body)

KEDGE_MESSAGE(AnchorInsert);
KEDGE_MESSAGE(AnchorInserted);
KEDGE_MESSAGE(Mix);
KEDGE_MESSAGE(MixReply);
KEDGE_MESSAGE(MixUsed);

#undef KEDGE_MESSAGE

}  // namespace kedge
