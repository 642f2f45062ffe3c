// Eviction from host memory: which block goes first, and what becomes of it.

#include "store/block/block_map.h"

namespace kedge {
namespace {

// Runs of one shard that an eviction looks at. Past this the caller is told that there is nothing:
// a walk over tens of thousands of runs would hold up everybody else in the shard.
constexpr uint32_t kVictimRunsMax = 1024;

}  // namespace

std::optional<BlockMap::Victim> BlockMap::Coldest() {
  return Coldest([](HostSlot) { return true; });
}

std::optional<BlockMap::Victim> BlockMap::Coldest(absl::FunctionRef<bool(HostSlot)> fits) {
  std::array<uint64_t, kShards> ticks;
  for (uint32_t i = 0; i < kShards; ++i) {
    const std::lock_guard<std::mutex> lock(shards_[i].mutex);
    ticks[i] = shards_[i].index.coldest_tick();
  }
  // The shard with the coldest run first; one that has nothing to give is not asked again.
  for (uint32_t round = 0; round < kShards; ++round) {
    uint32_t coldest = 0;
    for (uint32_t i = 1; i < kShards; ++i) {
      if (ticks[i] < ticks[coldest]) coldest = i;
    }
    if (ticks[coldest] == UINT64_MAX) return std::nullopt;
    Shard& shard = shards_[coldest];
    const std::lock_guard<std::mutex> lock(shard.mutex);
    const auto judge = [&](uint32_t index) {
      const Entry& entry = shard.entries[index];
      if (!MayGo(entry)) return PrefixIndex::Verdict::kBusy;
      return fits(entry.host) ? PrefixIndex::Verdict::kTake : PrefixIndex::Verdict::kSkip;
    };
    if (const auto index = shard.index.Victim(judge, Tick(), kVictimRunsMax)) {
      return Victim{IdOf(coldest, *index), shard.entries[*index].host};
    }
    ticks[coldest] = UINT64_MAX;
  }
  return std::nullopt;
}

bool BlockMap::Evictable(BlockId id) const {
  Shard& shard = ShardFor(id);
  const std::lock_guard<std::mutex> lock(shard.mutex);
  if (IndexOf(id) >= shard.entries.end()) return false;
  const Entry& entry = shard.entries[IndexOf(id)];
  return (entry.flags & kLive) != 0 && MayGo(entry) && entry.host;
}

bool BlockMap::EvictHost(BlockId id) {
  Shard& shard = ShardFor(id);
  const uint32_t index = IndexOf(id);
  const std::lock_guard<std::mutex> lock(shard.mutex);
  if (index >= shard.entries.end()) return false;
  Entry& entry = shard.entries[index];
  if ((entry.flags & kLive) == 0 || !MayGo(entry) || !entry.host) return false;
  if ((entry.flags & kOnSsd) != 0) {
    ++shard.stats.demoted_blocks;
    ReleaseHost(shard, index);
    return true;
  }
  if ((entry.flags & kRecoded) != 0) {
    ++shard.stats.replaced_blocks;
  } else {
    ++shard.stats.evicted_host_blocks;
    shard.stats.evicted_host_bytes += entry.image_bytes();
  }
  Leave(shard, index, ResultCode::kEvicted);
  return true;
}

}  // namespace kedge
