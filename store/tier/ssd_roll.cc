// Segments come and go. All of it is the leader's.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "store/tier/ssd_scan.h"
#include "store/tier/ssd_segments.h"
#include "store/world/random.h"

namespace kedge {

absl::Status SegmentTier::OpenNewSegment() {
  uint64_t used_pages = 0;
  {
    // What the segment before holds counts now, also when the group that fills it is not done yet.
    std::lock_guard<std::mutex> guard(mutex_);
    if (open_.file != nullptr) {
      Segment& full = segments_.at(open_.number);
      used_pages_ += open_.page - std::min(open_.page, full.pages);
      full.pages = std::max(full.pages, open_.page);
    }
    used_pages = used_pages_;
  }
  const uint64_t capacity_pages = options_.capacity_bytes / kDiskPageBytes;
  while (used_pages + segment_pages_ > capacity_pages) {
    if (absl::Status status = DropOldestSegment(); !status.ok()) return status;
    std::lock_guard<std::mutex> guard(mutex_);
    used_pages = used_pages_;
  }
  if (next_segment_ == ~0u) {
    return absl::ResourceExhaustedError(
        absl::StrCat("ssd ", options_.directory, ": segment numbers are used up"));
  }
  OpenSegment fresh;
  fresh.number = next_segment_++;
  fresh.nonce = EntropySeed();
  absl::StatusOr<std::unique_ptr<File>> file = disk_.Open(PathOf(fresh.number), /*create=*/true);
  if (!file.ok()) return file.status();
  fresh.file = *std::move(file);
  EncodeSegmentHeader({fresh.number, fresh.nonce}, header_pages_.page(0));
  absl::Status status = fresh.file->Write(0, header_pages_.first(kDiskPageBytes));
  if (status.ok() && options_.sync) status = fresh.file->Sync();
  if (!status.ok()) {
    // Nothing is in it. If it cannot be removed either, the next start does.
    (void)disk_.Remove(PathOf(fresh.number));
    return status;
  }
  fresh.page = fresh.committed_page = 1;
  open_ = fresh;
  ballast_.Keep(options_.segment_bytes);
  std::lock_guard<std::mutex> guard(mutex_);
  counters_.ballast_bytes = ballast_.held_bytes();
  Segment& segment = segments_[fresh.number];
  segment.nonce = fresh.nonce;
  segment.pages = segment.indexed_pages = 1;
  segment.file = fresh.file;
  segment.last_use = ++uses_;
  ++open_files_;
  ++used_pages_;
  return absl::OkStatus();
}

// --- The index and a disk that others fill ---

bool SegmentTier::IndexHasRoom() {
  if (floor_bytes() == 0) return true;
  const absl::StatusOr<uint64_t> free_bytes = disk_.FreeBytes(options_.directory);
  free_bytes_ = free_bytes.ok() ? std::optional<uint64_t>(*free_bytes) : std::nullopt;
  return !free_bytes.ok() || *free_bytes >= floor_bytes();
}

// Before each group: what it drops and adds is written to the index.
void SegmentTier::GuardIndex() {
  if (IndexHasRoom() || (ballast_.Release() && IndexHasRoom())) return;
  {
    std::lock_guard<std::mutex> guard(mutex_);
    if (counters_.index_in_memory) return;
    // What the index knew is read from the files when it is needed.
    for (auto& [number, segment] : segments_) segment.indexed_pages = 0;
  }
  GiveUpIndex();
}

// One in memory takes its place. The durable one lags from here on; the next start makes it up.
void SegmentTier::GiveUpIndex() {
  index_ = MakeMemoryIndex();
  (void)index_->Open();
  std::lock_guard<std::mutex> guard(mutex_);
  counters_.index_in_memory = true;
}

// After an error that leaves the file in doubt. What was acknowledged stays readable; nothing is
// added.
void SegmentTier::AbandonOpenSegment() {
  if (open_.file == nullptr) return;
  open_ = OpenSegment{};
}

absl::Status SegmentTier::DropOldestSegment() {
  uint32_t number = 0;
  Segment segment;
  {
    std::lock_guard<std::mutex> guard(mutex_);
    if (segments_.empty() || segments_.begin()->first >= group_first_segment_) {
      return absl::ResourceExhaustedError(
          absl::StrCat("ssd ", options_.directory, ": capacity_bytes=", options_.capacity_bytes,
                       " is used up and there is no older segment to drop"));
    }
    number = segments_.begin()->first;
    segment = segments_.begin()->second;
  }
  std::vector<std::pair<BlockHeader, SsdLocation>> blocks;
  // When neither index nor file can be read nobody can be told; readers find out that the segment
  // is gone.
  const bool named = BlocksOfSegment(number, segment, blocks).ok();
  {
    std::lock_guard<std::mutex> guard(mutex_);
    blocks.erase(std::remove_if(blocks.begin(), blocks.end(),
                                [&](const auto& block) {
                                  return !live_.RemoveAt(block.first.key, block.first.variant,
                                                         block.second);
                                }),
                 blocks.end());
    if (!named) live_.RemoveSegment(number);
    counters_.dropped_blocks += blocks.size();
  }
  // Told before the file goes: a power cut in between must not make it a loss that nobody heard of.
  // When the file cannot be removed its blocks are dropped all the same; the next append tries
  // again.
  for (const auto& [header, location] : blocks) on_dropped_(header.key, header.variant, location);
  if (absl::Status status = disk_.Remove(PathOf(number));
      !status.ok() && !absl::IsNotFound(status)) {
    return status;
  }
  {
    std::lock_guard<std::mutex> guard(mutex_);
    open_files_ -= segments_.at(number).file != nullptr;
    segments_.erase(number);
    used_pages_ -= segment.pages;
    ++counters_.dropped_segments;
  }
  // An index that still has it is corrected by the next start, which finds no such file.
  if (!index_->Drop(number).ok()) {
    std::lock_guard<std::mutex> guard(mutex_);
    ++counters_.index_errors;
  }
  return absl::OkStatus();
}

// Every block record of a segment, live or not. From the index when it has all of them, else from
// the file.
absl::Status SegmentTier::BlocksOfSegment(
    uint32_t number, const Segment& segment,
    std::vector<std::pair<BlockHeader, SsdLocation>>& blocks) {
  const auto add = [&](uint32_t page, const BlockHeader& header) {
    const ImageLayout layout{header.encoded_bytes(), header.payload_bytes()};
    blocks.emplace_back(
        header, SsdLocation{number, page + 1, uint32_t(layout.image_bytes() / kDiskPageBytes)});
    blocks.back().first.parts = {};  // names are enough
  };
  if (segment.indexed_pages == segment.pages) {
    const absl::Status status = index_->Visit(number, [&](const SsdIndexRecord& record) {
      if (record.kind != RecordKind::kBlock) return absl::OkStatus();
      absl::StatusOr<BlockHeader> header = DecodeBlockHeader(record.content);
      if (header.ok()) add(record.page, *header);
      return header.status();
    });
    if (status.ok()) return status;
    blocks.clear();
  }
  const absl::StatusOr<std::shared_ptr<File>> file = FileOf(number);
  if (!file.ok()) return file.status();
  SsdScanOptions options;
  options.segment = number;
  options.nonce = segment.nonce;
  options.end_page = segment.pages;
  options.verify_payload = false;
  ScanSegment(**file, options,
              [&](const RecordHeader& record, const BlockHeader* header, std::span<const uint8_t>) {
                if (header != nullptr) add(record.page, *header);
              });
  return absl::OkStatus();
}

}  // namespace kedge
