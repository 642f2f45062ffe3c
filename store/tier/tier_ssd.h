// The SSD tier: append-only segment files that describe themselves, and an index that only makes
// starting faster.
//
// A segment (`seg-00000001.kseg`, at most `segment_bytes`) starts with a page that names format and
// version; records follow, page-aligned: a block image (block_image.h) behind one page of record
// header, or a tombstone (a key that was removed, or one variant of it). Records carry a growing
// sequence number. Nothing that was acknowledged is ever overwritten; when the tier is full its
// oldest segment is dropped whole
// (`OnDropped` names each block: an eviction that is recorded, never a silent loss).
//
// The RocksDB index holds location and header of every record and how far each segment has been
// indexed. It is written after the segment is synced, so it may lag behind but never runs ahead;
// what it lacks is read from the segments when the node starts, and it is rebuilt whole when it is
// missing or damaged. Where it cannot be opened at all (a full disk, although a ballast file is
// given up for it), one in memory takes its place until the next start. An in-memory index is also
// its twin for simulated disks.
//
// Blocking; call it from executor tasks, not from a loop. Thread-safe: appends are serialised
// inside (one open segment), reads run beside them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/block_header.h"
#include "store/tier/block_image.h"
#include "store/world/disk.h"
#include "store/world/metrics.h"

namespace kedge {

// Where an image's first page lies. 0 pages: nowhere.
struct SsdLocation {
  uint32_t segment = 0;
  uint32_t page = 0;   // of the image (not of the record header), in pages from the segment's start
  uint32_t pages = 0;  // of the image
  explicit operator bool() const { return pages != 0; }
  friend bool operator==(const SsdLocation&, const SsdLocation&) = default;
};

class SsdIndex;  // store/tier/ssd_index.h: rocksdb or in memory

// A good size for Options::ballast_bytes.
uint64_t SsdBallastBytes(uint64_t capacity_bytes);

class SsdTier {
 public:
  struct Options {
    std::string directory;
    uint64_t capacity_bytes = 0;  // at least 2 segments
    // At least 64 KiB, whole pages. An image that does not fit a segment is refused.
    uint64_t segment_bytes = 256ull << 20;
    // Of a file that is given up when the disk is too full to start; beside `capacity_bytes`. Half
    // as much is left free by appends, and without it the durable index is not touched. Whole
    // pages; 0: none of this.
    uint64_t ballast_bytes = 0;
    bool sync = true;  // false only to show in a test that syncing is needed
  };

  // Told about every live block of a segment that is being dropped: it counts no more, and can soon
  // not be read. Called on the thread that appends (also inside Open, after OnRecovered, when the
  // capacity shrank), while other appends wait: it must not append. Reads may run.
  using OnDropped =
      std::function<void(const BlockKey& key, const Variant& variant, SsdLocation location)>;
  // Told about every live block when the tier opens, oldest first: the last put of a key and
  // variant, not removed since. When the index turns out to be damaged half way, all are told
  // again.
  using OnRecovered = std::function<void(const BlockHeader& header, SsdLocation location)>;

  struct RecoveryReport {
    uint64_t blocks = 0;
    uint64_t scanned_records = 0;  // not in the index: read, verified in full, and added to it
    uint64_t damaged_records = 0;  // failed verification (a torn tail, a bad sector): not recovered
    bool index_rebuilt = false;    // it was missing or damaged
    std::string index_error;       // not empty: why the durable index could not be used
  };

  // Locks the directory, recovers, opens a new segment. FAILED_PRECONDITION when another process
  // has it; UNIMPLEMENTED naming the version of a newer format; PERMISSION_DENIED /
  // RESOURCE_EXHAUSTED naming the path when it is read-only or full.
  static absl::StatusOr<std::unique_ptr<SsdTier>> Open(Disk& disk, std::unique_ptr<SsdIndex> index,
                                                       const Options& options,
                                                       const OnRecovered& on_recovered,
                                                       OnDropped on_dropped,
                                                       RecoveryReport* report);  // may be null
  virtual ~SsdTier() = default;

  struct Image {
    const BlockHeader* header = nullptr;
    std::span<const uint8_t> bytes;  // page-aligned, ImageLayout::image_bytes() long
  };
  // Appends a batch and syncs once; on OK every one of them survives a power cut. On an error none
  // is visible (space may be lost until the segment is dropped; a restart may bring back some,
  // whole and verified). Calls that come while another one is under way share the next sync.
  // RESOURCE_EXHAUSTED when the disk itself is full, after dropping the oldest segments did not
  // help. INVALID_ARGUMENT when an image contradicts its header, or the batch does not fit one
  // segment.
  virtual absl::Status Append(std::span<const Image> images, std::span<SsdLocation> locations) = 0;
  // Durable record that these keys are gone, in all variants.
  virtual absl::Status AppendTombstones(std::span<const BlockKey> keys) = 0;
  // The same for single variants; the others of their keys stay.
  virtual absl::Status AppendTombstones(std::span<const BlockName> names) = 0;

  // Reads `bytes` (whole pages, page-aligned) starting `page_offset` pages into the image.
  // NOT_FOUND when its segment was dropped. Does not verify: the caller has the header and verifies
  // parts (never serve unverified bytes).
  virtual absl::Status Read(SsdLocation location, uint32_t page_offset,
                            std::span<uint8_t> bytes) = 0;

  virtual uint64_t capacity_bytes() const = 0;
  virtual uint64_t used_bytes() const = 0;
  // The durable index was given up, when it was opened or later, because the disk is full.
  virtual bool index_in_memory() const = 0;
  virtual void VisitMetrics(MetricsVisitor& visitor) const = 0;
};

}  // namespace kedge
