// The host tier's memory: one arena, cut into extents of 64 MiB and a little, cut into slots of one
// size class each.
//
// Size classes divide an extent evenly: about five for each doubling of size, and one of them is
// 2^n pages and one more, because an image (block_image.h) of a power of two has a header page in
// front. 64 images of 1 MiB fit one extent. A slot is at most 1.25 times as large as what it was
// asked for up to 12 MiB; above, where fewer than 5 images fit an extent, up to 2 times.
//
// An extent belongs to a size class while any of its slots is in use and returns to the free list
// when the last one is freed: memory moves between size classes, so a change of block size does not
// strand it. Slots are page-aligned and in multiples of 4 KiB, so an image (block_image.h) is
// written to the SSD straight from its slot.
//
// The arena is a memfd of our own (never UCX's allocator, which touches every page at once and
// leaves files behind). Pages are touched when first used. Thread-safe; O(1); the lock is held for
// a few instructions.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "store/tier/block_image.h"
#include "store/world/metrics.h"

namespace kedge {

// A slot by number; valid until freed. 0 is "no slot".
struct HostSlot {
  uint32_t id = 0;  // page number of the slot's first page in the arena, plus 1
  explicit operator bool() const { return id != 0; }
  friend bool operator==(const HostSlot&, const HostSlot&) = default;
};

// 64 images of 1 MiB, each with a page of header; also room for the largest payload and the largest
// header.
inline constexpr uint64_t kHostExtentBytes = 64 * ((1ull << 20) + kDiskPageBytes);
static_assert(kHostExtentBytes >= PageRound(kBlockHeaderBytesMax) + kBlockBytesMax);

class HostTier {
 public:
  struct Options {
    uint64_t capacity_bytes = 0;  // rounded down to whole extents; at least one
  };
  // INVALID_ARGUMENT naming `capacity_bytes` when it is less than an extent, or more than the
  // memory of the machine or the cgroup.
  static absl::StatusOr<std::unique_ptr<HostTier>> Create(const Options& options);
  virtual ~HostTier() = default;

  // A slot of at least `bytes` (1 to one extent; else INVALID_ARGUMENT). RESOURCE_EXHAUSTED when
  // neither a slot of the class nor a free extent is left: evict, then ask again. `owner` is kept
  // with the slot for `ExtentOwners`.
  virtual absl::StatusOr<HostSlot> Allocate(uint64_t bytes, uint64_t owner) = 0;
  // Freeing a slot that is not in use aborts: somebody may still read it.
  virtual void Free(HostSlot slot) = 0;
  virtual void SetOwner(HostSlot slot, uint64_t owner) = 0;

  virtual uint8_t* Data(HostSlot slot) const = 0;
  virtual uint64_t SlotBytes(HostSlot slot) const = 0;

  // Would freeing this slot let `bytes` be allocated? (Same class.) Lets an evictor pick victims
  // that help.
  virtual bool SameClass(HostSlot slot, uint64_t bytes) const = 0;
  // Owners of the slots in use in an extent of another class than that of `bytes`: rank 0 is the
  // one that is cheapest to empty (fewest slots in use), rank 1 the next. Empty when there is none
  // of that rank. To move an extent to the class of `bytes`, evict all of its owners.
  virtual std::vector<uint64_t> ExtentOwners(uint64_t bytes, uint32_t rank) const = 0;

  virtual uint64_t capacity_bytes() const = 0;
  virtual uint64_t used_bytes() const = 0;  // bytes of slots in use
  virtual void VisitMetrics(MetricsVisitor& visitor) const = 0;
};

}  // namespace kedge
