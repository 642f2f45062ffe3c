#include "store/tier/host_room.h"

#include <algorithm>
#include <vector>

namespace kedge {
namespace {

// Evictions for one allocation. One is the rule; others may take what was freed, or an extent of
// small blocks must go.
constexpr int kRoundsMax = 64;
// Extents looked at for one that nobody has pinned; more only cost time while everything is pinned.
constexpr uint32_t kExtentsTriedMax = 64;

}  // namespace

absl::StatusOr<HostSlot> HostRoom::Allocate(uint64_t bytes) {
  absl::StatusOr<HostSlot> slot = host_.Allocate(bytes, kNobody);
  for (int round = 0; round < kRoundsMax; ++round) {
    if (slot.ok() || slot.status().code() != absl::StatusCode::kResourceExhausted) return slot;
    if (!EvictOne(bytes)) return slot;
    slot = host_.Allocate(bytes, kNobody);
  }
  return slot;
}

bool HostRoom::EvictOne(uint64_t bytes) {
  const auto coldest = map_.Coldest();
  if (!coldest) return false;
  if (host_.MakesRoom(coldest->slot, bytes)) {
    map_.EvictHost(coldest->id);  // when somebody pinned it just now, the next round finds another
    return true;
  }
  if (EmptyAnExtent(bytes)) return true;
  const auto fitting = map_.Coldest([&](HostSlot slot) { return host_.MakesRoom(slot, bytes); });
  if (!fitting) return false;
  map_.EvictHost(fitting->id);
  return true;
}

// The cheapest extent first; one with a pinned block in it is no use, so the next.
bool HostRoom::EmptyAnExtent(uint64_t bytes) {
  for (uint32_t rank = 0; rank < kExtentsTriedMax; ++rank) {
    const std::vector<uint64_t> owners = host_.ExtentOwners(bytes, rank);
    if (owners.empty()) return false;
    const bool all_evictable = std::all_of(owners.begin(), owners.end(), [&](uint64_t owner) {
      return owner != kNobody && map_.Evictable(static_cast<BlockId>(owner - 1));
    });
    if (!all_evictable) continue;
    for (const uint64_t owner : owners) map_.EvictHost(static_cast<BlockId>(owner - 1));
    return true;
  }
  return false;
}

}  // namespace kedge
