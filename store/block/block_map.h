// What this node holds: (key, variant) -> where the bytes are, and who is using them.
//
// Sharded by placement id, so that the blocks of a run share a shard and no lock is shared by all
// requests. A shard has its entries in a slab, found by key through hash chains, and a prefix index
// over those that are in host memory. Lookup, pin and unpin take one shard's lock for some tens of
// instructions and do not allocate. An entry with all its shares of the tables is below 256 bytes
// (block_map_test measures it).
//
// An entry lives while a tier holds the block. Its key, variant, sizes and root digest never
// change. While it is *pinned* (BlockRef) its host copy stays where it is. A pinned block that is
// removed is out of sight at once and gone with its last pin. What leaves is remembered for a while
// with the reason (gone_set.h).
//
// Thread-safe. The map owns the host slots that were given to it.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "proto/block_header.h"
#include "proto/result_code.h"
#include "store/block/gone_set.h"
#include "store/block/prefix_index.h"
#include "store/block/slab.h"
#include "store/block/variant_table.h"
#include "store/tier/block_image.h"
#include "store/tier/tier_host.h"
#include "store/tier/tier_ssd.h"

namespace kedge {

// Shard and slab index of an entry. Meaningful to the map only, and for others while the block is
// pinned.
using BlockId = uint32_t;
inline constexpr BlockId kNoBlock = UINT32_MAX;

class BlockMap;

// A pin. Move-only; unpins when destroyed. Must not outlive the map.
class BlockRef {
 public:
  BlockRef() = default;
  BlockRef(BlockRef&& other) noexcept : map_(other.map_), id_(std::exchange(other.id_, kNoBlock)) {}
  BlockRef& operator=(BlockRef&& other) noexcept {
    std::swap(map_, other.map_);
    std::swap(id_, other.id_);
    return *this;
  }
  ~BlockRef() { Reset(); }
  void Reset();
  BlockRef Share() const;  // one more pin on the same block
  BlockId id() const { return id_; }
  explicit operator bool() const { return id_ != kNoBlock; }

 private:
  friend class BlockMap;
  BlockRef(BlockMap* map, BlockId id) : map_(map), id_(id) {}
  BlockMap* map_ = nullptr;
  BlockId id_ = kNoBlock;
};

// A copy of an entry. Of a pinned block all fields stay true but `host` (a promotion may set it),
// `ssd`, `pins` and the flags.
struct BlockInfo {
  BlockKey key;
  Digest128 root;
  uint64_t placement = 0;
  uint32_t payload_bytes = 0;
  uint32_t header_bytes = 0;
  uint32_t chain_depth = 0;
  uint16_t variant = kNoVariantId;
  Fidelity fidelity = Fidelity::kLossless;
  HostSlot host;
  SsdLocation ssd;
  uint32_t pins = 0;
  bool unsaved = false;  // in host memory, and not yet given to the SSD tier
  bool removed = false;  // out of sight, kept by pins
  int64_t lease_until_ms = 0;
  uint16_t used_hour = 0;  // of BlockMap::SetHour

  ImageLayout layout() const { return {header_bytes, payload_bytes}; }
  TierId tier() const { return host ? TierId::kHost : ssd ? TierId::kSsd : TierId::kNone; }
};

// What enters the map. At least one of `host` and `ssd` is set.
struct NewBlock {
  BlockKey key;
  Digest128 root;
  uint64_t placement = 0;
  uint32_t payload_bytes = 0;
  uint32_t header_bytes = 0;
  uint32_t chain_depth = 0;
  uint16_t variant = kNoVariantId;
  Fidelity fidelity = Fidelity::kLossless;
  HostSlot host;
  SsdLocation ssd;
  bool unsaved = false;

  // What a block's header says of it; where its copies are is still to be set.
  static NewBlock Of(const BlockHeader& header, uint16_t variant);
};

class BlockMap {
 public:
  static constexpr uint32_t kShardBits = 4;
  static constexpr uint32_t kShards = 1u << kShardBits;

  // `host` must outlive the map; it gets back every slot that the map was given.
  explicit BlockMap(HostTier& host) : host_(host) {}
  ~BlockMap();
  BlockMap(const BlockMap&) = delete;

  VariantTable& variants() { return variants_; }
  const VariantTable& variants() const { return variants_; }

  struct Found {
    ResultCode code =
        ResultCode::kAbsent;  // kOk, or why not: kAbsent, kEvicted, kRemoved, kCorrupt, kNoVariant
    uint8_t rank = 0;         // index into `accepted`; 0 when that was empty
    BlockRef ref;             // set with kOk
    BlockInfo info;           // as it was when the pin was taken
  };
  // The best accepted variant of `key`, pinned. `accepted` are ids from variants().Find
  // (kNoVariantId matches nothing), best first; empty: any lossless one, in host memory rather than
  // on the SSD. Touching is separate, because a chain is touched tail first.
  Found Lookup(const BlockKey& key, uint64_t placement, std::span<const uint16_t> accepted);

  // The block was used just now.
  void Touch(const BlockRef& ref);
  BlockInfo Describe(const BlockRef& ref) const;

  // True: the block is in the map and `ref` pins it. False: (key, variant) is held already, `ref`
  // pins that one, and the host slot still belongs to the caller; a location on the SSD takes the
  // place of an older one.
  bool Insert(const NewBlock& block, BlockRef* ref);

  // A variant on the SSD, made from the block that `of` pins; it must have its placement. False
  // when that one was removed meanwhile, or the variant is held already: nothing changes then.
  bool InsertBeside(const BlockRef& of, const NewBlock& block);

  // A copy came back to host memory. False (the slot stays the caller's) when there is one already.
  bool AttachHost(const BlockRef& ref, HostSlot slot);
  // The block was written. False when it has been removed meanwhile: the location is not kept (a
  // tombstone follows it).
  bool AttachSsd(const BlockRef& ref, SsdLocation location);
  void SetUnsaved(const BlockRef& ref, bool unsaved);
  // The SSD has it as another variant, which is what it will be from now on: it is not unsaved any
  // more, and when it leaves host memory it was replaced, not evicted.
  void SetRecoded(const BlockRef& ref);
  void SetLeaseUntil(const BlockRef& ref, int64_t until_ms);
  // The copy at `location` is gone (kEvicted) or damaged (kCorrupt). With no host copy the block is
  // gone. False: it was not there.
  bool DropSsd(const BlockKey& key, const Variant& variant, SsdLocation location,
               ResultCode reason);
  // The host copy of a pinned block is damaged. The pins go on; new lookups see what is left.
  void DropDamaged(const BlockRef& ref);

  // Takes all variants out of sight, or the one that is named (kNoVariantId: all). Number of
  // variants; 0 when none was held. `unless_pinned`: nothing happens and `*pinned` is set when one
  // is in use.
  uint32_t Remove(const BlockKey& key, uint64_t placement);
  uint32_t RemoveAnywhere(const BlockKey& key, bool unless_pinned, bool* pinned,
                          uint16_t variant = kNoVariantId);
  // A pinned block whose key is held in a variant that takes its place: out of sight, remembered as
  // evicted. False when it is pinned by others too (leased, being read): it stays.
  bool Replace(BlockRef ref);
  ResultCode WhyGone(const BlockKey& key, uint64_t placement) const;

  // Pins every variant of a key, whatever its placement.
  std::vector<BlockRef> FindAnywhere(const BlockKey& key);
  // Pins blocks one by one, in no order that means anything, in slices: starts with *cursor = 0,
  // and is done when it answers false. Blocks that come meanwhile may be missed.
  bool Next(uint64_t* cursor, BlockRef* ref);

  // --- Eviction from host memory (policy: store/tier/host_room.h)

  // While set, a block that is unsaved is no victim: the SSD takes what it is given, so the block
  // is one as soon as it was written. The mover sets it.
  void KeepUnsaved(bool keep) { keep_unsaved_.store(keep, std::memory_order_relaxed); }

  struct Victim {
    BlockId id = kNoBlock;
    HostSlot slot;
  };
  // The block that should go first; it is unpinned (now), and saved where unsaved ones are kept.
  std::optional<Victim> Coldest();
  // The first such block whose slot `fits`.
  std::optional<Victim> Coldest(absl::FunctionRef<bool(HostSlot)> fits);
  bool Evictable(BlockId id) const;
  // Drops the host copy. With none on the SSD the block is gone and recorded as evicted. False:
  // pinned, kept as unsaved, or not there any more.
  bool EvictHost(BlockId id);

  struct Stats {
    uint64_t blocks = 0;  // visible (key, variant)
    uint64_t host_blocks = 0;
    uint64_t host_bytes = 0;  // of images
    uint64_t ssd_blocks = 0;
    uint64_t ssd_bytes = 0;
    uint64_t pinned_blocks = 0;
    uint64_t demoted_blocks = 0;       // left host memory, stayed on the SSD
    uint64_t evicted_host_blocks = 0;  // left host memory and the node
    uint64_t evicted_host_bytes = 0;
    uint64_t evicted_ssd_blocks = 0;  // left the SSD
    uint64_t evicted_ssd_bytes = 0;
    uint64_t removed_blocks = 0;
    uint64_t replaced_blocks = 0;  // left for a smaller variant of theirs
    uint64_t memory_bytes = 0;     // of all tables
  };
  Stats stats() const;

  struct VariantStats {
    uint64_t host_blocks = 0;
    uint64_t host_bytes = 0;  // of payloads
    uint64_t ssd_blocks = 0;
    uint64_t ssd_bytes = 0;
  };
  // What each variant has, by id; as many as there are names.
  std::vector<VariantStats> variant_stats() const;

  // The hour that Touch and Insert note, so that what was not used for long is known. Hours count
  // from any begin; a block of a recovery begins at the hour of the start.
  void SetHour(uint16_t hour) { hour_.store(hour, std::memory_order_relaxed); }

  // Gives a block without host memory its place in the eviction order, so that a test can count
  // what a block costs without the memory of 100,000 slots.
  void CountAsInHostForTest(const BlockRef& ref);

 private:
  friend class BlockRef;

  enum Flag : uint8_t { kLive = 1, kRemoved = 2, kUnsaved = 4, kOnSsd = 8, kRecoded = 16 };

  // Every byte here is paid for each block: 96 of them.
  struct Entry {
    BlockKey key;
    Digest128 root;
    uint64_t placement = 0;
    uint32_t payload_bytes = 0;
    uint32_t chain_depth = 0;
    uint32_t pins = 0;
    HostSlot host;
    uint32_t ssd_segment = 0;  // with kOnSsd; the pages follow from the sizes
    uint32_t ssd_page = 0;
    uint32_t next_in_bucket = kNoIndex;
    uint32_t lease_until = 0;  // in units of kLeaseUnitMs
    uint16_t header_bytes = 0;
    uint16_t variant = kNoVariantId;
    Fidelity fidelity = Fidelity::kLossless;
    uint8_t flags = 0;
    uint16_t used_hour = 0;

    uint64_t image_bytes() const { return ImageLayout{header_bytes, payload_bytes}.image_bytes(); }
    SsdLocation ssd() const {
      if ((flags & kOnSsd) == 0) return {};
      return {ssd_segment, ssd_page, static_cast<uint32_t>(image_bytes() / kDiskPageBytes)};
    }
  };
  static constexpr int64_t kLeaseUnitMs = 64;  // 32 bits of it are years
  static_assert(kBlockHeaderFixedBytes + kBlockHeaderModelBytes + kPartCountMax * kPartEntryBytes <=
                UINT16_MAX);

  struct alignas(64) Shard {
    mutable std::mutex mutex;
    Slab<Entry> entries;
    std::vector<uint32_t> buckets = std::vector<uint32_t>(64, kNoIndex);
    PrefixIndex index;
    GoneSet gone;
    Stats stats;
    std::vector<VariantStats> variants;  // by id; grows with the first block of a variant
  };

  static uint32_t ShardOf(uint64_t placement);
  static BlockId IdOf(uint32_t shard, uint32_t index) { return shard << (32 - kShardBits) | index; }
  static uint32_t ShardOfId(BlockId id) { return id >> (32 - kShardBits); }
  static uint32_t IndexOf(BlockId id) { return id & ((1u << (32 - kShardBits)) - 1); }

  Shard& ShardFor(BlockId id) const { return shards_[ShardOfId(id)]; }
  uint64_t Tick() { return tick_.fetch_add(1, std::memory_order_relaxed); }
  BlockRef Pin(uint32_t shard, uint32_t index);
  void Unpin(BlockId id);
  BlockRef PinAgain(BlockId id);

  // Under the shard's lock.
  static uint32_t& BucketOf(Shard& shard, const BlockKey& key);
  static uint32_t Find(Shard& shard, const BlockKey& key, uint16_t variant);
  static BlockInfo InfoOf(const Entry& entry);
  void Grow(Shard& shard);
  uint32_t AddLocked(Shard& shard, uint32_t shard_index, const NewBlock& block);
  void Hide(Shard& shard, uint32_t index);
  void ReleaseHost(Shard& shard, uint32_t index);
  void SetSsd(Shard& shard, uint32_t index, SsdLocation location);
  void ReleaseSsd(Shard& shard, uint32_t index);
  void Leave(Shard& shard, uint32_t index, ResultCode reason);
  void FreeIfUnused(Shard& shard, uint32_t index);
  uint32_t RemoveLocked(Shard& shard, const BlockKey& key, uint16_t variant);
  static bool HasOtherVariant(Shard& shard, const Entry& entry);
  static VariantStats& VariantOf(Shard& shard, const Entry& entry);
  bool MayGo(const Entry& entry) const {
    return entry.pins == 0 &&
           ((entry.flags & kUnsaved) == 0 || !keep_unsaved_.load(std::memory_order_relaxed));
  }

  HostTier& host_;
  VariantTable variants_;
  std::atomic<uint64_t> tick_{1};
  std::atomic<bool> keep_unsaved_{false};
  std::atomic<uint16_t> hour_{0};
  mutable std::array<Shard, kShards> shards_;
};

}  // namespace kedge
