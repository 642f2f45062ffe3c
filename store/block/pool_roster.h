// Who is in a pool of anchors: what makes it survive a restart.
//
// A roster is a block of the anchor keyspace, written by the node beside the anchors: key RosterKey
// (proto/block_key.h) of the pool's key and a sequence number, parent the pool's key, chain_depth
// the sequence number. The one with the largest number counts; the others are taken back once it
// is durable. It names the anchors in the order of their insertion, so that a pool that was read
// from it goes on to the bit as before.
//
// Payload, little endian:
//
//     u32 magic "KROS"   u16 version (1)   u8 base kind   u8 reserved (0)
//     u32 layers   u32 width   u32 prefix_tokens   u32 capacity (1 to 256)   u32 window (1 and
//     more) u64 prefix digest   f64 nucleus (0 to 1) u32 count (at most capacity), then for each
//     anchor: 32 key, u64 activations
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/offset_messages.h"
#include "store/block/anchor_pool.h"

namespace kedge {

struct PoolRoster {
  AnchorShape shape;
  AnchorPoolOptions options;
  std::vector<AnchorPool::Member> members;

  static PoolRoster Of(const AnchorPool& pool);
};

std::vector<uint8_t> EncodeRoster(const PoolRoster& roster);
// Hostile bytes. InvalidArgument names the field and value.
absl::StatusOr<PoolRoster> ParseRoster(std::span<const uint8_t> bytes);
// Of a roster with so many members.
uint64_t RosterBytes(int64_t members);

AnchorShape ShapeOf(const PoolShape& shape);
PoolShape WireShapeOf(const AnchorShape& shape);
// kOk, kShape or kTemplate.
PoolVerdict CompareShapes(const AnchorShape& pool, const AnchorShape& other);

}  // namespace kedge
