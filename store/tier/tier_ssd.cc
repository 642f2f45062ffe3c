#include "store/tier/tier_ssd.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "store/tier/ssd_segments.h"
#include "store/world/limits.h"
#include "store/world/random.h"

namespace kedge {
namespace {

constexpr uint64_t kSegmentBytesMin = 64 << 10;
constexpr uint64_t kSegmentBytesMax = 1ull << 40;  // pages are counted in 32 bits

absl::Status CheckOptions(const SsdTier::Options& options) {
  if (options.directory.empty()) return absl::InvalidArgumentError("ssd: directory is empty");
  if (options.segment_bytes < kSegmentBytesMin || options.segment_bytes > kSegmentBytesMax ||
      options.segment_bytes % kDiskPageBytes != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("ssd: segment_bytes=", options.segment_bytes, " is not a multiple of ",
                     kDiskPageBytes, " in [", kSegmentBytesMin, ", ", kSegmentBytesMax, "]"));
  }
  if (options.capacity_bytes / 2 < options.segment_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("ssd: capacity_bytes=", options.capacity_bytes,
                                                   " is less than 2 segments of ",
                                                   options.segment_bytes));
  }
  if (options.ballast_bytes % kDiskPageBytes != 0) {
    return absl::InvalidArgumentError(absl::StrCat("ssd: ballast_bytes=", options.ballast_bytes,
                                                   " is not a multiple of ", kDiskPageBytes));
  }
  return absl::OkStatus();
}

}  // namespace

uint64_t SsdBallastBytes(uint64_t capacity_bytes) {
  return std::min(kSsdBallastBytes, capacity_bytes / 16 / kDiskPageBytes * kDiskPageBytes);
}

SegmentTier::SegmentTier(Disk& disk, std::unique_ptr<SsdIndex> index, const Options& options,
                         OnDropped on_dropped)
    : disk_(disk),
      options_(options),
      segment_pages_(static_cast<uint32_t>(options.segment_bytes / kDiskPageBytes)),
      on_dropped_(std::move(on_dropped)),
      index_(std::move(index)),
      ballast_(disk, options.directory, options.ballast_bytes),
      header_pages_(uint64_t{kSsdGatherRecordsMax} * kDiskPageBytes),
      live_(EntropySeed()) {}

SegmentTier::~SegmentTier() = default;

absl::StatusOr<std::unique_ptr<SsdTier>> SsdTier::Open(Disk& disk, std::unique_ptr<SsdIndex> index,
                                                       const Options& options,
                                                       const OnRecovered& on_recovered,
                                                       OnDropped on_dropped,
                                                       RecoveryReport* report) {
  if (absl::Status status = CheckOptions(options); !status.ok()) return status;
  auto tier = std::make_unique<SegmentTier>(disk, std::move(index), options, std::move(on_dropped));
  RecoveryReport found;
  if (absl::Status status = tier->Start(on_recovered, found); !status.ok()) return status;
  if (report != nullptr) *report = found;
  return tier;
}

uint64_t SegmentTier::used_bytes() const {
  std::lock_guard<std::mutex> guard(mutex_);
  return used_pages_ * kDiskPageBytes;
}

bool SegmentTier::index_in_memory() const {
  std::lock_guard<std::mutex> guard(mutex_);
  return counters_.index_in_memory;
}

void SegmentTier::VisitMetrics(MetricsVisitor& visitor) const {
  Counters counters;
  uint64_t segments = 0, blocks = 0;
  {
    std::lock_guard<std::mutex> guard(mutex_);
    counters = counters_;
    segments = segments_.size();
    blocks = live_.blocks();
  }
  const std::array<std::pair<std::string_view, std::string_view>, 1> tier = {{{"tier", "ssd"}}};
  visitor.Gauge("kedge_tier_capacity_bytes", "Room of a tier.", tier,
                static_cast<double>(capacity_bytes()));
  visitor.Gauge("kedge_tier_used_bytes", "Bytes of a tier that hold blocks.", tier,
                static_cast<double>(used_bytes()));
  const auto gauge = [&](std::string_view name, std::string_view help, uint64_t value) {
    visitor.Gauge(name, help, {}, static_cast<double>(value));
  };
  const auto counter = [&](std::string_view name, std::string_view help, uint64_t value) {
    visitor.Counter(name, help, {}, static_cast<double>(value));
  };
  uint64_t waiting = 0;
  {
    std::lock_guard<std::mutex> guard(queue_mutex_);
    waiting = queue_.size();
  }
  gauge("kedge_ssd_appends_waiting", "Appends that are under way or wait for their turn.", waiting);
  gauge("kedge_ssd_segments", "Segment files.", segments);
  gauge("kedge_ssd_ballast_bytes", "Disk space that is kept for a start on a full disk.",
        counters.ballast_bytes);
  gauge("kedge_ssd_index_in_memory",
        "1 when the durable index could not be opened: the next start reads all segments.",
        counters.index_in_memory ? 1 : 0);
  gauge("kedge_ssd_live_blocks", "Blocks on the SSD that count.", blocks);
  counter("kedge_ssd_appended_blocks_total", "Blocks written and synced.",
          counters.appended_blocks);
  counter("kedge_ssd_appended_bytes_total", "Bytes of these blocks.", counters.appended_bytes);
  counter("kedge_ssd_tombstones_total", "Keys recorded as removed.", counters.tombstones);
  counter("kedge_ssd_append_requests_total", "Appends asked for.", counters.requests);
  counter("kedge_ssd_append_groups_total", "Groups of appends that shared a sync.",
          counters.groups);
  counter("kedge_ssd_append_failures_total", "Appends that failed.", counters.failed_requests);
  counter("kedge_ssd_reads_total", "Reads asked for.", counters.reads);
  counter("kedge_ssd_read_bytes_total", "Bytes read.", counters.read_bytes);
  counter("kedge_ssd_read_failures_total", "Reads that the disk failed.", counters.failed_reads);
  counter("kedge_ssd_dropped_segments_total", "Segments dropped to make room.",
          counters.dropped_segments);
  counter("kedge_ssd_dropped_blocks_total", "Live blocks in them: recorded evictions.",
          counters.dropped_blocks);
  counter("kedge_ssd_index_errors_total", "Writes that the index failed: the next start scans.",
          counters.index_errors);
}

}  // namespace kedge
