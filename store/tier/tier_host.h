// The host tier's memory: one arena, cut into extents, cut into slots of one size class each.
//
// Extents have 64 MiB and a little, in a small tier less (HostExtentBytes): the mix of block sizes
// that are in use wants an extent for each of them, and more to choose from. Size classes divide an
// extent evenly: about five for each doubling of size, and one of them is 2^n pages and one more,
// because an image (block_image.h) of a power of two has a header page in front. A slot is at most
// 1.25 times as large as what it was asked for, up to a fifth of an extent; above, where fewer than
// 5 images fit, up to 2 times. What is larger than an extent gets several that lie side by side.
//
// An extent belongs to a size class while any of its slots is in use and returns to the free list
// when the last one is freed: memory moves between size classes, so a change of block size does not
// strand it. Slots are page-aligned and in multiples of 4 KiB, so an image (block_image.h) is
// written to the SSD straight from its slot.
//
// The arena is a memfd of our own (never UCX's allocator, which touches every page at once and
// leaves files behind). Pages are touched when first used. Thread-safe. Allocation and freeing are
// O(1) and hold the lock for a few instructions; only where an extent does not suffice, or one has
// to be emptied, all extents (at most 128 up to 8 GiB) are looked at.
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

// 64 images of 1 MiB, each with a page of header, or 128 of half of it; also room for the largest
// payload and the largest header.
inline constexpr uint64_t kHostExtentBytes = 64 * ((1ull << 20) + 2 * kDiskPageBytes);
static_assert(kHostExtentBytes >= PageRound(kBlockHeaderBytesMax) + kBlockBytesMax);
// Smaller ones waste too much behind their last slot.
inline constexpr uint64_t kHostExtentBytesMin = kHostExtentBytes / 16;
// Extents that a tier has at least, as long as they are not smaller than that.
inline constexpr uint64_t kHostExtentsWanted = 64;

// kHostExtentBytes, halved until kHostExtentsWanted fit.
uint64_t HostExtentBytes(uint64_t capacity_bytes);

class HostTier {
 public:
  struct Options {
    uint64_t capacity_bytes = 0;  // rounded down to whole extents
  };
  // INVALID_ARGUMENT naming `capacity_bytes` when it is less than kHostExtentBytes (the largest
  // block), or more than the memory of the machine or the cgroup.
  static absl::StatusOr<std::unique_ptr<HostTier>> Create(const Options& options);
  virtual ~HostTier() = default;

  // A slot of at least `bytes` (1 to kHostExtentBytes; else INVALID_ARGUMENT). RESOURCE_EXHAUSTED
  // when neither a slot of the class nor free extents are left: evict, then ask again. `owner` is
  // kept with the slot for `ExtentOwners`.
  virtual absl::StatusOr<HostSlot> Allocate(uint64_t bytes, uint64_t owner) = 0;
  // Freeing a slot that is not in use aborts: somebody may still read it.
  virtual void Free(HostSlot slot) = 0;
  virtual void SetOwner(HostSlot slot, uint64_t owner) = 0;

  virtual uint8_t* Data(HostSlot slot) const = 0;
  virtual uint64_t SlotBytes(HostSlot slot) const = 0;

  // Would freeing this slot let `bytes` be allocated? Lets an evictor pick victims that help.
  virtual bool MakesRoom(HostSlot slot, uint64_t bytes) const = 0;
  // Owners of the slots in use in extents of other classes that `bytes` could have: rank 0 is the
  // extent (or row of them) that is cheapest to empty, rank 1 the next. Cheap is what holds few
  // bytes, and among equals what has had its class longest. Empty when there is none of that rank.
  // To move it to the class of `bytes`, evict all of its owners.
  virtual std::vector<uint64_t> ExtentOwners(uint64_t bytes, uint32_t rank) const = 0;

  virtual uint64_t extent_bytes() const = 0;
  virtual uint64_t capacity_bytes() const = 0;
  virtual uint64_t used_bytes() const = 0;  // bytes of slots in use
  virtual void VisitMetrics(MetricsVisitor& visitor) const = 0;
};

}  // namespace kedge
