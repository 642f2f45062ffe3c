#include "store/block/block_map.h"

#include <algorithm>
#include <cstring>

#include "absl/base/internal/raw_logging.h"

namespace kedge {
namespace {

uint64_t KeyWord(const BlockKey& key) {
  uint64_t word;
  std::memcpy(&word, key.bytes.data() + 8, sizeof word);
  return word;
}

}  // namespace

// --- BlockRef -----------------------------------------------------------------------------------

void BlockRef::Reset() {
  if (id_ != kNoBlock) map_->Unpin(std::exchange(id_, kNoBlock));
}

BlockRef BlockRef::Share() const { return map_->PinAgain(id_); }

BlockRef BlockMap::Pin(uint32_t shard, uint32_t index) {
  Entry& entry = shards_[shard].entries[index];
  if (entry.pins++ == 0) ++shards_[shard].stats.pinned_blocks;
  return BlockRef(this, IdOf(shard, index));
}

BlockRef BlockMap::PinAgain(BlockId id) {
  const std::lock_guard<std::mutex> lock(ShardFor(id).mutex);
  return Pin(ShardOfId(id), IndexOf(id));
}

void BlockMap::Unpin(BlockId id) {
  Shard& shard = ShardFor(id);
  const std::lock_guard<std::mutex> lock(shard.mutex);
  Entry& entry = shard.entries[IndexOf(id)];
  ABSL_RAW_CHECK(entry.pins > 0, "a pin was given back twice");
  if (--entry.pins != 0) return;
  --shard.stats.pinned_blocks;
  FreeIfUnused(shard, IndexOf(id));
}

// --- Tables of a shard --------------------------------------------------------------------------

NewBlock NewBlock::Of(const BlockHeader& header, uint16_t variant) {
  NewBlock block;
  block.key = header.key;
  block.root = header.root;
  block.placement = header.placement;
  block.payload_bytes = static_cast<uint32_t>(header.payload_bytes());
  block.header_bytes = header.encoded_bytes();
  block.chain_depth = header.chain_depth;
  block.variant = variant;
  block.fidelity = header.fidelity;
  return block;
}

BlockMap::~BlockMap() {
  for (Shard& shard : shards_) {
    for (uint32_t index = 0; index < shard.entries.end(); ++index) {
      Entry& entry = shard.entries[index];
      ABSL_RAW_CHECK(entry.pins == 0, "a block is pinned while its map is destroyed");
      if (entry.host) host_.Free(entry.host);
    }
  }
}

uint32_t BlockMap::ShardOf(uint64_t placement) {
  return static_cast<uint32_t>((placement * 0x9e3779b97f4a7c15ull) >> (64 - kShardBits));
}

uint32_t& BlockMap::BucketOf(Shard& shard, const BlockKey& key) {
  return shard.buckets[KeyWord(key) & (shard.buckets.size() - 1)];
}

uint32_t BlockMap::Find(Shard& shard, const BlockKey& key, uint16_t variant) {
  uint32_t index = BucketOf(shard, key);
  while (index != kNoIndex) {
    const Entry& entry = shard.entries[index];
    if (entry.variant == variant && entry.key == key) return index;
    index = entry.next_in_bucket;
  }
  return kNoIndex;
}

void BlockMap::Grow(Shard& shard) {
  std::vector<uint32_t> old(shard.buckets.size() * 2, kNoIndex);
  old.swap(shard.buckets);
  for (uint32_t index : old) {
    while (index != kNoIndex) {
      Entry& entry = shard.entries[index];
      const uint32_t next = entry.next_in_bucket;
      uint32_t& bucket = BucketOf(shard, entry.key);
      entry.next_in_bucket = bucket;
      bucket = index;
      index = next;
    }
  }
}

BlockInfo BlockMap::InfoOf(const Entry& entry) {
  BlockInfo info;
  info.key = entry.key;
  info.root = entry.root;
  info.placement = entry.placement;
  info.payload_bytes = entry.payload_bytes;
  info.header_bytes = entry.header_bytes;
  info.chain_depth = entry.chain_depth;
  info.variant = entry.variant;
  info.fidelity = entry.fidelity;
  info.host = entry.host;
  info.ssd = entry.ssd();
  info.pins = entry.pins;
  info.unsaved = (entry.flags & kUnsaved) != 0;
  info.removed = (entry.flags & kRemoved) != 0;
  info.used_hour = entry.used_hour;
  info.lease_until_ms = int64_t{entry.lease_until} * kLeaseUnitMs;
  return info;
}

// Out of the tables by which others find it. Its memory stays until the last pin is gone.
void BlockMap::Hide(Shard& shard, uint32_t index) {
  Entry& entry = shard.entries[index];
  uint32_t* link = &BucketOf(shard, entry.key);
  while (*link != index) link = &shard.entries[*link].next_in_bucket;
  *link = entry.next_in_bucket;
  if (shard.index.Contains(index)) shard.index.Erase(index);
  entry.flags = static_cast<uint8_t>((entry.flags & ~kLive) | kRemoved);
  --shard.stats.blocks;
}

void BlockMap::ReleaseHost(Shard& shard, uint32_t index) {
  Entry& entry = shard.entries[index];
  if (!entry.host) return;
  if (shard.index.Contains(index)) shard.index.Erase(index);
  host_.Free(std::exchange(entry.host, HostSlot{}));
  --shard.stats.host_blocks;
  shard.stats.host_bytes -= entry.image_bytes();
  VariantStats& of_variant = VariantOf(shard, entry);
  --of_variant.host_blocks;
  of_variant.host_bytes -= entry.payload_bytes;
}

BlockMap::VariantStats& BlockMap::VariantOf(Shard& shard, const Entry& entry) {
  if (entry.variant >= shard.variants.size()) shard.variants.resize(entry.variant + 1);
  return shard.variants[entry.variant];
}

bool BlockMap::HasOtherVariant(Shard& shard, const Entry& entry) {
  for (uint32_t index = BucketOf(shard, entry.key); index != kNoIndex;
       index = shard.entries[index].next_in_bucket) {
    const Entry& other = shard.entries[index];
    if (other.key == entry.key && other.variant != entry.variant) return true;
  }
  return false;
}

void BlockMap::SetSsd(Shard& shard, uint32_t index, SsdLocation location) {
  Entry& entry = shard.entries[index];
  ABSL_RAW_CHECK(uint64_t{location.pages} * kDiskPageBytes == entry.image_bytes(),
                 "an image on the SSD has another size than its block");
  ReleaseSsd(shard, index);
  entry.ssd_segment = location.segment;
  entry.ssd_page = location.page;
  entry.flags |= kOnSsd;
  ++shard.stats.ssd_blocks;
  shard.stats.ssd_bytes += entry.image_bytes();
  VariantStats& of_variant = VariantOf(shard, entry);
  ++of_variant.ssd_blocks;
  of_variant.ssd_bytes += entry.payload_bytes;
}

void BlockMap::ReleaseSsd(Shard& shard, uint32_t index) {
  Entry& entry = shard.entries[index];
  if ((entry.flags & kOnSsd) == 0) return;
  --shard.stats.ssd_blocks;
  shard.stats.ssd_bytes -= entry.image_bytes();
  VariantStats& of_variant = VariantOf(shard, entry);
  --of_variant.ssd_blocks;
  of_variant.ssd_bytes -= entry.payload_bytes;
  entry.flags &= static_cast<uint8_t>(~kOnSsd);
}

// No tier holds it any more.
void BlockMap::Leave(Shard& shard, uint32_t index, ResultCode reason) {
  shard.gone.Add(shard.entries[index].key, reason);
  Hide(shard, index);
  FreeIfUnused(shard, index);
}

void BlockMap::FreeIfUnused(Shard& shard, uint32_t index) {
  Entry& entry = shard.entries[index];
  if (entry.pins != 0 || (entry.flags & kLive) != 0) return;
  ReleaseHost(shard, index);
  ReleaseSsd(shard, index);
  entry = Entry{};
  shard.entries.Free(index);
}

// --- Reading ------------------------------------------------------------------------------------

BlockMap::Found BlockMap::Lookup(const BlockKey& key, uint64_t placement,
                                 std::span<const uint16_t> accepted) {
  const uint32_t shard_index = ShardOf(placement);
  Shard& shard = shards_[shard_index];
  Found found;
  const std::lock_guard<std::mutex> lock(shard.mutex);
  uint32_t best = kNoIndex;
  size_t best_rank = SIZE_MAX;
  bool other_variant = false;
  for (uint32_t index = BucketOf(shard, key); index != kNoIndex;
       index = shard.entries[index].next_in_bucket) {
    const Entry& entry = shard.entries[index];
    if (entry.key != key) continue;
    other_variant = true;
    size_t rank = accepted.size();
    if (accepted.empty()) {
      if (entry.fidelity != Fidelity::kLossless) continue;
      rank = entry.host ? 0 : 1;
    } else {
      rank = 0;
      while (rank < accepted.size() && accepted[rank] != entry.variant) ++rank;
      if (rank == accepted.size()) continue;
    }
    if (rank < best_rank) {
      best = index;
      best_rank = rank;
    }
  }
  if (best == kNoIndex) {
    found.code = other_variant ? ResultCode::kNoVariant : shard.gone.Find(key);
    return found;
  }
  found.code = ResultCode::kOk;
  found.rank = accepted.empty() ? 0 : static_cast<uint8_t>(best_rank);
  found.ref = Pin(shard_index, best);
  found.info = InfoOf(shard.entries[best]);
  return found;
}

void BlockMap::Touch(const BlockRef& ref) {
  Shard& shard = ShardFor(ref.id());
  const std::lock_guard<std::mutex> lock(shard.mutex);
  shard.entries[IndexOf(ref.id())].used_hour = hour_.load(std::memory_order_relaxed);
  shard.index.Touch(IndexOf(ref.id()), Tick());
}

BlockInfo BlockMap::Describe(const BlockRef& ref) const {
  Shard& shard = ShardFor(ref.id());
  const std::lock_guard<std::mutex> lock(shard.mutex);
  return InfoOf(shard.entries[IndexOf(ref.id())]);
}

ResultCode BlockMap::WhyGone(const BlockKey& key, uint64_t placement) const {
  Shard& shard = shards_[ShardOf(placement)];
  const std::lock_guard<std::mutex> lock(shard.mutex);
  return shard.gone.Find(key);
}

std::vector<BlockRef> BlockMap::FindAnywhere(const BlockKey& key) {
  std::vector<BlockRef> refs;
  for (uint32_t shard_index = 0; shard_index < kShards; ++shard_index) {
    Shard& shard = shards_[shard_index];
    const std::lock_guard<std::mutex> lock(shard.mutex);
    for (uint32_t index = BucketOf(shard, key); index != kNoIndex;
         index = shard.entries[index].next_in_bucket) {
      if (shard.entries[index].key == key) refs.push_back(Pin(shard_index, index));
    }
  }
  return refs;
}

bool BlockMap::Next(uint64_t* cursor, BlockRef* ref) {
  ref->Reset();
  for (; (*cursor >> 32) < kShards; *cursor = ((*cursor >> 32) + 1) << 32) {
    const auto shard_index = static_cast<uint32_t>(*cursor >> 32);
    Shard& shard = shards_[shard_index];
    const std::lock_guard<std::mutex> lock(shard.mutex);
    for (auto index = static_cast<uint32_t>(*cursor); index < shard.entries.end(); ++index) {
      if ((shard.entries[index].flags & kLive) == 0) continue;
      *ref = Pin(shard_index, index);
      *cursor = uint64_t{shard_index} << 32 | (index + 1);
      return true;
    }
  }
  return false;
}

// --- Writing ------------------------------------------------------------------------------------

bool BlockMap::Insert(const NewBlock& block, BlockRef* ref) {
  const uint32_t shard_index = ShardOf(block.placement);
  Shard& shard = shards_[shard_index];
  ref->Reset();
  const std::lock_guard<std::mutex> lock(shard.mutex);
  uint32_t index = Find(shard, block.key, block.variant);
  if (index != kNoIndex) {
    if (block.ssd && block.root == shard.entries[index].root) SetSsd(shard, index, block.ssd);
    *ref = Pin(shard_index, index);
    return false;
  }
  *ref = Pin(shard_index, AddLocked(shard, shard_index, block));
  return true;
}

bool BlockMap::InsertBeside(const BlockRef& of, const NewBlock& block) {
  const uint32_t shard_index = ShardOfId(of.id());
  Shard& shard = shards_[shard_index];
  const std::lock_guard<std::mutex> lock(shard.mutex);
  const Entry& from = shard.entries[IndexOf(of.id())];
  ABSL_RAW_CHECK(ShardOf(block.placement) == shard_index && from.key == block.key,
                 "a variant has the key and the placement of its block");
  if ((from.flags & kLive) == 0) return false;
  const uint16_t used_hour = from.used_hour;
  if (Find(shard, block.key, block.variant) != kNoIndex) return false;
  shard.entries[AddLocked(shard, shard_index, block)].used_hour = used_hour;
  return true;
}

uint32_t BlockMap::AddLocked(Shard& shard, uint32_t shard_index, const NewBlock& block) {
  if (shard.stats.blocks >= shard.buckets.size()) Grow(shard);
  const uint32_t index = shard.entries.Add();
  ABSL_RAW_CHECK(index < (1u << (32 - kShardBits)), "a shard of the block map is full");
  uint32_t& bucket = BucketOf(shard, block.key);
  Entry& entry = shard.entries[index];
  entry.key = block.key;
  entry.root = block.root;
  entry.placement = block.placement;
  entry.payload_bytes = block.payload_bytes;
  entry.header_bytes = static_cast<uint16_t>(block.header_bytes);
  entry.chain_depth = block.chain_depth;
  entry.variant = block.variant;
  entry.fidelity = block.fidelity;
  entry.used_hour = hour_.load(std::memory_order_relaxed);
  entry.host = block.host;
  entry.flags = static_cast<uint8_t>(kLive | (block.unsaved ? kUnsaved : 0));
  entry.next_in_bucket = bucket;
  bucket = index;
  ++shard.stats.blocks;
  if (entry.host) {
    shard.index.Insert(index, entry.placement, entry.chain_depth, Tick());
    host_.SetOwner(entry.host, uint64_t{IdOf(shard_index, index)} + 1);
    ++shard.stats.host_blocks;
    shard.stats.host_bytes += entry.image_bytes();
    VariantStats& of_variant = VariantOf(shard, entry);
    ++of_variant.host_blocks;
    of_variant.host_bytes += entry.payload_bytes;
  }
  if (block.ssd) SetSsd(shard, index, block.ssd);
  shard.gone.Erase(block.key);
  return index;
}

bool BlockMap::AttachHost(const BlockRef& ref, HostSlot slot) {
  Shard& shard = ShardFor(ref.id());
  const uint32_t index = IndexOf(ref.id());
  const std::lock_guard<std::mutex> lock(shard.mutex);
  Entry& entry = shard.entries[index];
  if (entry.host) return false;
  entry.host = slot;
  host_.SetOwner(slot, uint64_t{ref.id()} + 1);
  ++shard.stats.host_blocks;
  shard.stats.host_bytes += entry.image_bytes();
  VariantStats& of_variant = VariantOf(shard, entry);
  ++of_variant.host_blocks;
  of_variant.host_bytes += entry.payload_bytes;
  // A removed one keeps the copy for those who have it pinned; it is on no list.
  if ((entry.flags & kLive) != 0) {
    shard.index.Insert(index, entry.placement, entry.chain_depth, Tick());
  }
  return true;
}

bool BlockMap::AttachSsd(const BlockRef& ref, SsdLocation location) {
  Shard& shard = ShardFor(ref.id());
  const uint32_t index = IndexOf(ref.id());
  const std::lock_guard<std::mutex> lock(shard.mutex);
  Entry& entry = shard.entries[index];
  entry.flags &= static_cast<uint8_t>(~kUnsaved);
  if ((entry.flags & kLive) == 0) return false;
  SetSsd(shard, index, location);
  return true;
}

void BlockMap::SetUnsaved(const BlockRef& ref, bool unsaved) {
  Shard& shard = ShardFor(ref.id());
  const std::lock_guard<std::mutex> lock(shard.mutex);
  Entry& entry = shard.entries[IndexOf(ref.id())];
  entry.flags = static_cast<uint8_t>((entry.flags & ~kUnsaved) | (unsaved ? kUnsaved : 0));
}

void BlockMap::SetRecoded(const BlockRef& ref) {
  Shard& shard = ShardFor(ref.id());
  const std::lock_guard<std::mutex> lock(shard.mutex);
  Entry& entry = shard.entries[IndexOf(ref.id())];
  entry.flags = static_cast<uint8_t>((entry.flags & ~kUnsaved) | kRecoded);
}

void BlockMap::SetLeaseUntil(const BlockRef& ref, int64_t until_ms) {
  Shard& shard = ShardFor(ref.id());
  const std::lock_guard<std::mutex> lock(shard.mutex);
  uint32_t& lease_until = shard.entries[IndexOf(ref.id())].lease_until;
  const auto until = static_cast<uint32_t>((until_ms + kLeaseUnitMs - 1) / kLeaseUnitMs);
  if (until > lease_until) lease_until = until;
}

bool BlockMap::DropSsd(const BlockKey& key, const Variant& variant, SsdLocation location,
                       ResultCode reason) {
  const uint16_t variant_id = variants_.Find(variant);
  if (variant_id == kNoVariantId) return false;
  // The SSD tier does not know the placement.
  for (Shard& shard : shards_) {
    const std::lock_guard<std::mutex> lock(shard.mutex);
    const uint32_t index = Find(shard, key, variant_id);
    if (index == kNoIndex || shard.entries[index].ssd() != location) continue;
    if (reason == ResultCode::kEvicted) {
      ++shard.stats.evicted_ssd_blocks;
      shard.stats.evicted_ssd_bytes += uint64_t{location.pages} * kDiskPageBytes;
    }
    ReleaseSsd(shard, index);
    if (!shard.entries[index].host) Leave(shard, index, reason);
    return true;
  }
  return false;
}

void BlockMap::DropDamaged(const BlockRef& ref) {
  NewBlock rest;
  {
    Shard& shard = ShardFor(ref.id());
    const uint32_t index = IndexOf(ref.id());
    const std::lock_guard<std::mutex> lock(shard.mutex);
    Entry& entry = shard.entries[index];
    if ((entry.flags & kLive) == 0) return;
    rest = NewBlock{entry.key,
                    entry.root,
                    entry.placement,
                    entry.payload_bytes,
                    entry.header_bytes,
                    entry.chain_depth,
                    entry.variant,
                    entry.fidelity,
                    HostSlot{},
                    entry.ssd(),
                    false};
    ReleaseSsd(shard, index);
    Leave(shard, index, ResultCode::kCorrupt);
  }
  BlockRef unused;
  if (rest.ssd) Insert(rest, &unused);
}

uint32_t BlockMap::RemoveLocked(Shard& shard, const BlockKey& key, uint16_t variant) {
  uint32_t removed = 0;
  uint32_t index = BucketOf(shard, key);
  while (index != kNoIndex) {
    const uint32_t next = shard.entries[index].next_in_bucket;
    if (shard.entries[index].key == key &&
        (variant == kNoVariantId || shard.entries[index].variant == variant)) {
      Leave(shard, index, ResultCode::kRemoved);
      ++shard.stats.removed_blocks;
      ++removed;
    }
    index = next;
  }
  return removed;
}

uint32_t BlockMap::Remove(const BlockKey& key, uint64_t placement) {
  Shard& shard = shards_[ShardOf(placement)];
  const std::lock_guard<std::mutex> lock(shard.mutex);
  return RemoveLocked(shard, key, kNoVariantId);
}

uint32_t BlockMap::RemoveAnywhere(const BlockKey& key, bool unless_pinned, bool* pinned,
                                  uint16_t variant) {
  *pinned = false;
  uint32_t removed = 0;
  for (Shard& shard : shards_) {
    const std::lock_guard<std::mutex> lock(shard.mutex);
    for (uint32_t index = BucketOf(shard, key); unless_pinned && index != kNoIndex;
         index = shard.entries[index].next_in_bucket) {
      const Entry& entry = shard.entries[index];
      const bool meant = variant == kNoVariantId || entry.variant == variant;
      if (entry.key == key && meant && entry.pins != 0) *pinned = true;
    }
    if (*pinned) return removed;
    removed += RemoveLocked(shard, key, variant);
  }
  return removed;
}

bool BlockMap::Replace(BlockRef ref) {
  Shard& shard = ShardFor(ref.id());
  const uint32_t index = IndexOf(ref.id());
  const std::lock_guard<std::mutex> lock(shard.mutex);
  Entry& entry = shard.entries[index];
  if ((entry.flags & kLive) == 0 || entry.pins != 1 || !HasOtherVariant(shard, entry)) {
    // The pin is given back under the lock that is held.
    ref.id_ = kNoBlock;
    if (--entry.pins == 0) {
      --shard.stats.pinned_blocks;
      FreeIfUnused(shard, index);
    }
    return false;
  }
  ref.id_ = kNoBlock;
  entry.pins = 0;
  --shard.stats.pinned_blocks;
  ++shard.stats.replaced_blocks;
  Leave(shard, index, ResultCode::kEvicted);
  return true;
}

void BlockMap::CountAsInHostForTest(const BlockRef& ref) {
  Shard& shard = ShardFor(ref.id());
  const uint32_t index = IndexOf(ref.id());
  const std::lock_guard<std::mutex> lock(shard.mutex);
  const Entry& entry = shard.entries[index];
  shard.index.Insert(index, entry.placement, entry.chain_depth, Tick());
}

BlockMap::Stats BlockMap::stats() const {
  Stats sum;
  for (Shard& shard : shards_) {
    const std::lock_guard<std::mutex> lock(shard.mutex);
    const Stats& part = shard.stats;
    sum.blocks += part.blocks;
    sum.host_blocks += part.host_blocks;
    sum.host_bytes += part.host_bytes;
    sum.ssd_blocks += part.ssd_blocks;
    sum.ssd_bytes += part.ssd_bytes;
    sum.pinned_blocks += part.pinned_blocks;
    sum.demoted_blocks += part.demoted_blocks;
    sum.evicted_host_blocks += part.evicted_host_blocks;
    sum.evicted_host_bytes += part.evicted_host_bytes;
    sum.evicted_ssd_blocks += part.evicted_ssd_blocks;
    sum.evicted_ssd_bytes += part.evicted_ssd_bytes;
    sum.removed_blocks += part.removed_blocks;
    sum.replaced_blocks += part.replaced_blocks;
    sum.memory_bytes += shard.entries.memory_bytes() + shard.index.memory_bytes() +
                        GoneSet::memory_bytes() + shard.buckets.capacity() * sizeof(uint32_t) +
                        sizeof(Shard);
  }
  sum.memory_bytes += sizeof(VariantTable);
  return sum;
}

std::vector<BlockMap::VariantStats> BlockMap::variant_stats() const {
  std::vector<VariantStats> sums(variants_.count());
  for (Shard& shard : shards_) {
    const std::lock_guard<std::mutex> lock(shard.mutex);
    for (size_t id = 0; id < std::min(sums.size(), shard.variants.size()); ++id) {
      sums[id].host_blocks += shard.variants[id].host_blocks;
      sums[id].host_bytes += shard.variants[id].host_bytes;
      sums[id].ssd_blocks += shard.variants[id].ssd_blocks;
      sums[id].ssd_bytes += shard.variants[id].ssd_bytes;
    }
  }
  return sums;
}

}  // namespace kedge
