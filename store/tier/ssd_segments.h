// The SSD tier's one class, cut by verb: ssd_append.cc (group commit), ssd_roll.cc (segments come
// and go), ssd_recover.cc (start), ssd_read.cc, tier_ssd.cc (Open and metrics).
//
// Threads. Appends queue up; the one in front is the leader: it writes and syncs for those behind
// it, then the next one leads. All that is marked "leader" is touched by the leader only (and by
// Open, before there are others), and the queue's mutex hands it over. `mutex_` guards what readers
// share; it is never held during I/O or a callback.
#pragma once

#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "store/tier/page_buffer.h"
#include "store/tier/ssd_ballast.h"
#include "store/tier/ssd_format.h"
#include "store/tier/ssd_index.h"
#include "store/tier/ssd_live.h"
#include "store/tier/tier_ssd.h"

namespace kedge {

class SegmentTier final : public SsdTier {
 public:
  SegmentTier(Disk& disk, std::unique_ptr<SsdIndex> index, const Options& options,
              OnDropped on_dropped);
  ~SegmentTier() override;

  // Once, before anything else.
  absl::Status Start(const OnRecovered& on_recovered, RecoveryReport& report);

  absl::Status Append(std::span<const Image> images, std::span<SsdLocation> locations) override;
  absl::Status AppendTombstones(std::span<const BlockKey> keys) override;
  absl::Status AppendTombstones(std::span<const BlockName> names) override;
  absl::Status Read(SsdLocation location, uint32_t page_offset, std::span<uint8_t> bytes) override;
  uint64_t capacity_bytes() const override { return options_.capacity_bytes; }
  uint64_t used_bytes() const override;
  bool index_in_memory() const override;
  void VisitMetrics(MetricsVisitor& visitor) const override;

 private:
  struct Segment {
    uint64_t nonce = 0;
    uint32_t pages = 0;  // that hold something that was acknowledged, or was there at the start
    uint32_t indexed_pages = 0;  // the index knows everything below
    std::shared_ptr<File> file;  // null: not open just now
    uint64_t last_use = 0;
  };
  struct OpenSegment {
    uint32_t number = 0;
    uint64_t nonce = 0;
    std::shared_ptr<File> file;   // null: there is none
    uint32_t page = 0;            // where the next record goes
    uint32_t committed_page = 0;  // everything below is acknowledged
  };
  // One call of Append or AppendTombstones. Lives on its caller's stack.
  struct Request {
    std::span<const Image> images;
    std::span<SsdLocation> locations;
    std::span<const BlockKey> keys;
    std::span<const BlockName> names;
    uint64_t pages = 0;  // of its records
    bool done = false;
    absl::Status status;
    std::condition_variable changed;
  };
  // A record of the group that is being written.
  struct Placed {
    RecordKind kind;
    uint32_t segment;
    uint32_t page;  // of the record header
    uint64_t sequence;
    const BlockHeader* header = nullptr;  // of a block
    uint32_t image_pages = 0;
    SsdLocation* location = nullptr;   // where to tell its caller
    std::span<const BlockKey> keys;    // of a tombstone
    std::span<const BlockName> names;  // of one of variants
    std::span<const uint8_t> content;  // for the index
    SsdLocation at() const { return {segment, page + 1, image_pages}; }
  };
  using Group = std::vector<Request*>;

  // ssd_append.cc, leader
  absl::Status Submit(Request& request);
  absl::Status CommitGroup(const Group& group);
  absl::Status WriteGroup(const Group& group);
  absl::Status PlaceBlock(const Image& image, SsdLocation& location);
  absl::Status PlaceTombstone(std::span<const BlockKey> keys);
  absl::Status PlaceTombstone(std::span<const BlockName> names);
  absl::Status Place(Placed placed, RecordHeader& header, std::span<const uint8_t> image);
  absl::Status FlushPieces();
  absl::Status SyncOpenSegment();
  absl::Status CheckRoom(const Group& group);
  void MakeVisible();
  void IndexGroup();

  // ssd_roll.cc, leader
  absl::Status OpenNewSegment();
  void AbandonOpenSegment();
  absl::Status DropOldestSegment();
  absl::Status BlocksOfSegment(uint32_t number, const Segment& segment,
                               std::vector<std::pair<BlockHeader, SsdLocation>>& blocks);

  // ssd_recover.cc
  absl::Status OpenIndex(const std::vector<uint32_t>& numbers, const OnRecovered& on_recovered,
                         RecoveryReport& report);
  absl::Status RecoverAndReport(const std::vector<uint32_t>& numbers,
                                const OnRecovered& on_recovered, RecoveryReport& report);
  absl::Status OpenFirstSegment();

  // ssd_roll.cc. Free space below this is the index's: a RocksDB that cannot write may end the
  // process.
  uint64_t floor_bytes() const { return options_.ballast_bytes / 2; }
  bool IndexHasRoom();
  void GuardIndex();
  void GiveUpIndex();
  absl::Status Recover(const std::vector<uint32_t>& numbers, RecoveryReport& report);
  absl::Status RecoverSegment(uint32_t number, const SsdIndexMark* mark, RecoveryReport& report);
  absl::Status ReplayIndex(uint32_t number, const SsdIndexMark& mark, uint64_t& last_sequence,
                           uint64_t& records);
  absl::Status ReportLive(const OnRecovered& on_recovered, RecoveryReport& report);
  void Apply(const RecordHeader& record, const BlockHeader* header);

  // ssd_read.cc
  absl::StatusOr<std::shared_ptr<File>> FileOf(uint32_t segment);
  std::string PathOf(uint32_t segment) const {
    return options_.directory + "/" + SegmentName(segment);
  }

  Disk& disk_;
  const Options options_;
  const uint32_t segment_pages_;
  const OnDropped on_dropped_;
  std::unique_ptr<File> lock_;

  mutable std::mutex queue_mutex_;
  std::deque<Request*> queue_;  // the front leads

  // Leader.
  std::unique_ptr<SsdIndex> index_;
  SsdBallast ballast_;
  OpenSegment open_;
  uint32_t next_segment_ = 1;
  uint64_t next_sequence_ = 1;
  std::optional<uint64_t> free_bytes_;  // of the disk, asked for this group; not after a drop
  uint32_t group_first_segment_ =
      0;  // the open segment when the group began: it and later ones are not dropped for it
  std::vector<Placed> placed_;          // of the group
  std::vector<uint8_t> index_content_;  // what placed_ points to once the group is visible
  PageBuffer header_pages_;
  uint32_t header_pages_used_ = 0;
  std::vector<std::span<const uint8_t>> pieces_;  // not yet written
  uint64_t pieces_bytes_ = 0;
  uint64_t pieces_offset_ = 0;  // where they belong in the open segment

  mutable std::mutex mutex_;  // guards all below
  std::map<uint32_t, Segment> segments_;
  uint32_t open_files_ = 0;
  SsdLiveMap live_;
  uint64_t used_pages_ = 0;
  uint64_t uses_ = 0;
  struct Counters {
    uint64_t appended_blocks = 0, appended_bytes = 0, tombstones = 0, groups = 0, requests = 0;
    uint64_t failed_requests = 0, read_bytes = 0, reads = 0, failed_reads = 0;
    uint64_t dropped_segments = 0, dropped_blocks = 0, index_errors = 0;
    uint64_t ballast_bytes = 0;    // held
    bool index_in_memory = false;  // the durable one could not be opened
  } counters_;
};

}  // namespace kedge
