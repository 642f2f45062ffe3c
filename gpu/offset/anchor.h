// An anchor: what one filling of a placeholder became in one consumer's context.
//
// KVCOMM (arXiv 2510.12872, section 3.3) keeps the offsets of all consumers in one anchor. Here
// each consumer has its own, so that its pool is whole on one node and can be added to alone.
//
// Base KV is of two kinds that are never mixed: *canonical*, computed alone behind the model's
// fixed lead, and *produced*, cut from the decode of the agent that wrote the text, which already
// holds what that agent was told. An anchor applies to fillings of its own kind.
//
// Encoded, little endian; offsets of layers 1 and up (layer 0 has none), keys not rotated:
//
//     u32 magic "KANC"   u16 version (1)   u8 dtype (proto/kv_shape.h)   u8 base kind
//     u32 layers (2 and more)   u32 width   u32 tokens   u32 prefix_tokens
//     u64 prefix digest   u64 context digest
//     f32 sketch [tokens][16]
//     dtype filling keys [layers - 1][tokens][width], values likewise
//     dtype prefix keys [layers - 1][prefix_tokens][width], values likewise
//
// It is the payload of a block under a key of the anchor keyspace; the block's digests guard it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gpu/offset/kv_rows.h"
#include "gpu/offset/sketch.h"
#include "proto/block_key.h"
#include "proto/kv_shape.h"

namespace kedge::offset {

enum class BaseKind : uint8_t { kCanonical = 0, kProduced = 1 };
const char* BaseKindName(BaseKind kind);

// Whose offsets: one pool.
struct PoolName {
  std::string consumer;     // an agent's template, by its name and digest; at most 256 bytes
  std::string placeholder;  // at most 256 bytes
  BaseKind kind = BaseKind::kCanonical;

  friend bool operator==(const PoolName&, const PoolName&) = default;
  friend auto operator<=>(const PoolName&, const PoolName&) = default;
};

struct Anchor {
  BlockKey key;  // AnchorKey: the same filling has the same
  BaseKind kind = BaseKind::kCanonical;
  uint64_t prefix_digest = 0;   // TokensDigest of the fixed text behind the placeholder
  uint64_t context_digest = 0;  // TokensDigest of all that stood before the filling
  Sketch sketch;
  KvRows filling;  // offsets; layer 0 is zeros
  KvRows prefix;   // offsets of the fixed text behind it; may have no tokens
};

// The key of a pool's anchor for a filling. `producer`: for kProduced the key of the KV that the
// base was cut from, since the same text said by another agent has another base; empty otherwise.
BlockKey AnchorKey(const TenantSalt& salt, const Fingerprint& model, const PoolName& pool,
                   std::span<const int32_t> filling, std::span<const uint8_t> producer = {});
// The name of a pool, kind included.
BlockKey PoolKey(const TenantSalt& salt, const Fingerprint& model, const PoolName& pool);
// Where a placeholder's anchors live: by model, placeholder and consumer, so that one node can mix
// them, whatever their kind.
uint64_t AnchorPlacement(const TenantSalt& salt, const Fingerprint& model, const PoolName& pool);

// Tells texts of one tenant apart that were not made to collide.
uint64_t TokensDigest(std::span<const int32_t> tokens);

// Offsets are rounded to `dtype`: kF32, kF16 or kBf16. Aborts on other types and shapes that do not
// agree.
std::vector<uint8_t> EncodeAnchor(const Anchor& anchor, DType dtype);

// Its length.
uint64_t EncodedAnchorBytes(const Anchor& anchor, DType dtype);

// Hostile bytes. InvalidArgument names the field and value. Sizes are checked before anything is
// allocated; numbers that are not finite are refused. `key` is the name under which it was stored.
absl::StatusOr<Anchor> ParseAnchor(const BlockKey& key, std::span<const uint8_t> bytes);

}  // namespace kedge::offset
