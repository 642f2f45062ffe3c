#include "store/block/pool_roster.h"

#include <bit>
#include <string>

#include "proto/wire.h"

namespace kedge {
namespace {

constexpr uint32_t kMagic = 0x534f524b;  // "KROS"
constexpr uint16_t kVersion = 1;
constexpr uint32_t kFixedBytes = 48;
constexpr uint32_t kMemberBytes = 40;

}  // namespace

PoolRoster PoolRoster::Of(const AnchorPool& pool) {
  return {pool.shape(), pool.options(), pool.members()};
}

uint64_t RosterBytes(int64_t members) {
  return kFixedBytes + static_cast<uint64_t>(members) * kMemberBytes;
}

std::vector<uint8_t> EncodeRoster(const PoolRoster& roster) {
  std::vector<uint8_t> out;
  WireWriter to(out);
  to.U32(kMagic);
  to.U16(kVersion);
  to.U8(static_cast<uint8_t>(roster.shape.kind));
  to.U8(0);
  to.U32(static_cast<uint32_t>(roster.shape.layers));
  to.U32(static_cast<uint32_t>(roster.shape.width));
  to.U32(static_cast<uint32_t>(roster.shape.prefix_tokens));
  to.U32(static_cast<uint32_t>(roster.options.capacity));
  to.U32(static_cast<uint32_t>(roster.options.window));
  to.U64(roster.shape.prefix_digest);
  to.U64(std::bit_cast<uint64_t>(roster.options.nucleus));
  to.Count(roster.members.size(), kAnchorsPerPoolMax);
  for (const AnchorPool::Member& member : roster.members) {
    to.Bytes(member.key.bytes);
    to.U64(member.activations);
  }
  return out;
}

absl::StatusOr<PoolRoster> ParseRoster(std::span<const uint8_t> bytes) {
  WireReader in("roster", bytes);
  if (in.U32("magic") != kMagic) in.Fail("magic", "not a roster");
  const uint16_t version = in.U16("version");
  if (version != kVersion) in.Fail("version", std::to_string(version) + ", only 1 is read");
  const auto within = [&](const char* field, uint32_t least, uint32_t most) {
    const uint32_t value = in.U32(field);
    if (value < least || value > most) in.Fail(field, std::to_string(value));
    return int64_t{value};
  };
  PoolRoster roster;
  roster.shape.kind = static_cast<offset::BaseKind>(in.Enum("base_kind", 1));
  in.Zero("reserved");
  roster.shape.layers = within("layers", 1, kMixLayersMax);
  roster.shape.width = within("width", 1, kMixWidthMax);
  roster.shape.prefix_tokens = within("prefix_tokens", 0, kMixTokensMax);
  roster.options.capacity = within("capacity", 1, kAnchorsPerPoolMax);
  roster.options.window = within("window", 1, UINT32_MAX);
  roster.shape.prefix_digest = in.U64("prefix_digest");
  roster.options.nucleus = std::bit_cast<double>(in.U64("nucleus"));
  if (!(roster.options.nucleus >= 0 && roster.options.nucleus <= 1))
    in.Fail("nucleus", "is not 0 to 1");
  const auto most = static_cast<uint32_t>(roster.options.capacity);
  roster.members.resize(in.ok() ? in.Count("members", most, kMemberBytes) : 0);
  for (AnchorPool::Member& member : roster.members) {
    in.Bytes("key", member.key.bytes);
    member.activations = in.U64("activations");
  }
  if (absl::Status s = in.Finish(); !s.ok()) return s;
  return roster;
}

AnchorShape ShapeOf(const PoolShape& shape) {
  return {static_cast<offset::BaseKind>(shape.base_kind), shape.layers, shape.width,
          shape.prefix_tokens, shape.prefix_digest};
}

PoolShape WireShapeOf(const AnchorShape& shape) {
  return {static_cast<uint8_t>(shape.kind), static_cast<uint32_t>(shape.layers),
          static_cast<uint32_t>(shape.width), static_cast<uint32_t>(shape.prefix_tokens),
          shape.prefix_digest};
}

PoolVerdict CompareShapes(const AnchorShape& pool, const AnchorShape& other) {
  if (pool.layers != other.layers || pool.width != other.width) return PoolVerdict::kShape;
  return pool == other ? PoolVerdict::kOk : PoolVerdict::kTemplate;
}

}  // namespace kedge
