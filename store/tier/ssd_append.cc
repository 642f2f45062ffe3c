// Appends, in groups: while one group is being written and synced the next callers queue up, and
// share the next sync.
//
// A record counts only when everything before it in its segment is written and synced too, so that
// a scan can walk from record to record. One leader at a time, who writes in order, gives that for
// free.
#include <algorithm>
#include <utility>

#include "absl/base/internal/raw_logging.h"
#include "absl/strings/str_cat.h"
#include "store/tier/ssd_segments.h"
#include "store/world/limits.h"

namespace kedge {
namespace {

// A gather write of this size keeps an SSD's queues full; more only holds memory up.
constexpr uint64_t kFlushBytes = 32ull << 20;

absl::Status CheckImage(size_t index, const SsdTier::Image& image) {
  const auto invalid = [&](const std::string& why) {
    return absl::InvalidArgumentError(absl::StrCat("ssd append: image ", index, ": ", why));
  };
  if (image.header == nullptr) return invalid("header is null");
  const ImageLayout layout{image.header->encoded_bytes(), image.header->payload_bytes()};
  if (image.bytes.size() != layout.image_bytes()) {
    return invalid(
        absl::StrCat("bytes=", image.bytes.size(), ", its header says ", layout.image_bytes()));
  }
  if (reinterpret_cast<uintptr_t>(image.bytes.data()) % kDiskPageBytes != 0) {
    return invalid("memory is not page-aligned");
  }
  const absl::StatusOr<uint32_t> header_bytes = PeekBlockHeaderBytes(image.bytes);
  if (!header_bytes.ok()) return invalid(std::string(header_bytes.status().message()));
  if (*header_bytes != layout.header_bytes) {
    return invalid(absl::StrCat("header_bytes=", *header_bytes, " in the image, ",
                                layout.header_bytes, " in its header"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status SegmentTier::Append(std::span<const Image> images, std::span<SsdLocation> locations) {
  ABSL_RAW_CHECK(images.size() == locations.size(), "a location for each image");
  Request request;
  for (size_t i = 0; i < images.size(); ++i) {
    if (absl::Status status = CheckImage(i, images[i]); !status.ok()) return status;
    request.pages += 1 + images[i].bytes.size() / kDiskPageBytes;
  }
  if (request.pages > segment_pages_ - 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("ssd append: ", images.size(), " images of ", request.pages * kDiskPageBytes,
                     " bytes with their records do not fit a segment of ", options_.segment_bytes));
  }
  request.images = images;
  request.locations = locations;
  return Submit(request);
}

absl::Status SegmentTier::AppendTombstones(std::span<const BlockKey> keys) {
  // So many records fit one segment in any case.
  const size_t keys_max = size_t{segment_pages_ - 1} * kTombstoneKeysMax;
  while (!keys.empty()) {
    Request request;
    request.keys = keys.first(std::min(keys.size(), keys_max));
    request.pages = (request.keys.size() + kTombstoneKeysMax - 1) / kTombstoneKeysMax;
    if (absl::Status status = Submit(request); !status.ok()) return status;
    keys = keys.subspan(request.keys.size());
  }
  return absl::OkStatus();
}

absl::Status SegmentTier::AppendTombstones(std::span<const BlockName> names) {
  const size_t names_max = size_t{segment_pages_ - 1} * kVariantTombstonesMax;
  while (!names.empty()) {
    Request request;
    request.names = names.first(std::min(names.size(), names_max));
    request.pages = (request.names.size() + kVariantTombstonesMax - 1) / kVariantTombstonesMax;
    if (absl::Status status = Submit(request); !status.ok()) return status;
    names = names.subspan(request.names.size());
  }
  return absl::OkStatus();
}

absl::Status SegmentTier::Submit(Request& request) {
  if (request.pages == 0) return absl::OkStatus();
  std::unique_lock<std::mutex> lock(queue_mutex_);
  queue_.push_back(&request);
  request.changed.wait(lock, [&] { return request.done || queue_.front() == &request; });
  if (request.done) return request.status;

  // Leading. A group fits one segment, so that it opens at most one new one.
  const uint64_t pages_max =
      std::min<uint64_t>(kSsdGroupBytesMax / kDiskPageBytes, segment_pages_ - 1);
  Group group;
  uint64_t pages = 0;
  for (Request* next : queue_) {
    if (!group.empty() && pages + next->pages > pages_max) break;
    pages += next->pages;
    group.push_back(next);
  }
  lock.unlock();
  const absl::Status status = CommitGroup(group);

  lock.lock();
  queue_.erase(queue_.begin(), queue_.begin() + static_cast<ptrdiff_t>(group.size()));
  queue_.push_front(&request);  // still leading: the index comes after the answers
  for (Request* member : group) {
    if (member == &request) continue;
    member->status = status;
    member->done = true;
    member->changed.notify_one();  // under the lock: it may end as soon as it sees `done`
  }
  lock.unlock();
  if (status.ok()) IndexGroup();

  lock.lock();
  queue_.pop_front();
  if (!queue_.empty()) queue_.front()->changed.notify_one();
  return status;
}

absl::Status SegmentTier::CommitGroup(const Group& group) {
  absl::Status status;
  GuardIndex();
  for (uint32_t drops = 0; true; ++drops) {
    group_first_segment_ = open_.file != nullptr ? open_.number : next_segment_;
    status = WriteGroup(group);
    if (status.ok()) break;
    // What was written of the group is not acknowledged; its place is free again. Its sequence
    // numbers are not used again, so a scan knows what is left of it.
    open_.page = open_.committed_page;
    if (!absl::IsResourceExhausted(status)) {
      AbandonOpenSegment();
      break;
    }
    bool older = false;
    {
      std::lock_guard<std::mutex> guard(mutex_);
      older = !segments_.empty() && segments_.begin()->first < group_first_segment_;
    }
    if (!older || drops == kSsdDropsPerAppendMax) break;
    if (absl::Status dropped = DropOldestSegment(); !dropped.ok()) {
      status = dropped;
      break;
    }
  }
  if (status.ok()) MakeVisible();
  std::lock_guard<std::mutex> guard(mutex_);
  counters_.requests += group.size();
  ++counters_.groups;
  if (!status.ok()) counters_.failed_requests += group.size();
  return status;
}

absl::Status SegmentTier::WriteGroup(const Group& group) {
  placed_.clear();
  pieces_.clear();
  pieces_bytes_ = 0;
  header_pages_used_ = 0;
  if (absl::Status status = CheckRoom(group); !status.ok()) return status;
  for (const Request* request : group) {
    for (size_t i = 0; i < request->images.size(); ++i) {
      absl::Status status = PlaceBlock(request->images[i], request->locations[i]);
      if (!status.ok()) return status;
    }
    for (auto keys = request->keys; !keys.empty();) {
      const auto page = keys.first(std::min<size_t>(keys.size(), kTombstoneKeysMax));
      if (absl::Status status = PlaceTombstone(page); !status.ok()) return status;
      keys = keys.subspan(page.size());
    }
    for (auto names = request->names; !names.empty();) {
      const auto page = names.first(std::min<size_t>(names.size(), kVariantTombstonesMax));
      if (absl::Status status = PlaceTombstone(page); !status.ok()) return status;
      names = names.subspan(page.size());
    }
  }
  return SyncOpenSegment();
}

// The tier's own writes leave the index what it needs.
absl::Status SegmentTier::CheckRoom(const Group& group) {
  if (floor_bytes() == 0) return absl::OkStatus();
  const absl::StatusOr<uint64_t> free_bytes =
      free_bytes_ ? *free_bytes_ : disk_.FreeBytes(options_.directory);
  free_bytes_.reset();
  uint64_t pages = 1;
  for (const Request* request : group) pages += request->pages;
  const uint64_t needed = floor_bytes() + pages * kDiskPageBytes;
  if (!free_bytes.ok() || *free_bytes >= needed) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("ssd ", options_.directory, ": no space left: ", *free_bytes,
                   " bytes are free, with what the index may need ", needed, " are wanted"));
}

absl::Status SegmentTier::PlaceBlock(const Image& image, SsdLocation& location) {
  Placed placed{};
  placed.kind = RecordKind::kBlock;
  placed.header = image.header;
  placed.image_pages = static_cast<uint32_t>(image.bytes.size() / kDiskPageBytes);
  placed.location = &location;
  RecordHeader header;
  header.image = {image.header->encoded_bytes(), image.header->payload_bytes()};
  placed.content = image.bytes.first(header.image.header_bytes);
  return Place(placed, header, image.bytes);
}

absl::Status SegmentTier::PlaceTombstone(std::span<const BlockKey> keys) {
  static_assert(sizeof(BlockKey) == 32, "keys lie one after the other");
  Placed placed{};
  placed.kind = RecordKind::kTombstone;
  placed.keys = keys;
  placed.content = {keys.front().bytes.data(), keys.size_bytes()};
  RecordHeader header;
  header.kind = RecordKind::kTombstone;
  header.keys.assign(keys.begin(), keys.end());
  return Place(placed, header, {});
}

absl::Status SegmentTier::PlaceTombstone(std::span<const BlockName> names) {
  Placed placed{};
  placed.kind = RecordKind::kVariantTombstone;
  placed.names = names;
  placed.content = {names.front().key.bytes.data(), names.size_bytes()};
  RecordHeader header;
  header.kind = RecordKind::kVariantTombstone;
  header.names.assign(names.begin(), names.end());
  return Place(placed, header, {});
}

absl::Status SegmentTier::Place(Placed placed, RecordHeader& header,
                                std::span<const uint8_t> image) {
  if (open_.file == nullptr || open_.page + 1 + placed.image_pages > segment_pages_) {
    // What the group put into the segment before must be safe too; most groups put nothing there.
    if (open_.file != nullptr && open_.page != open_.committed_page) {
      if (absl::Status status = SyncOpenSegment(); !status.ok()) return status;
    }
    if (absl::Status status = OpenNewSegment(); !status.ok()) return status;
  }
  if (header_pages_used_ == kSsdGatherRecordsMax || pieces_bytes_ >= kFlushBytes) {
    if (absl::Status status = FlushPieces(); !status.ok()) return status;
  }
  if (pieces_.empty()) pieces_offset_ = uint64_t{open_.page} * kDiskPageBytes;
  header.segment = placed.segment = open_.number;
  header.page = placed.page = open_.page;
  header.nonce = open_.nonce;
  header.sequence = placed.sequence = next_sequence_++;
  const SsdPage page = header_pages_.page(header_pages_used_++);
  EncodeRecordHeader(header, page);
  pieces_.push_back(page);
  if (!image.empty()) pieces_.push_back(image);
  pieces_bytes_ += page.size() + image.size();
  open_.page += 1 + placed.image_pages;
  placed_.push_back(placed);
  return absl::OkStatus();
}

absl::Status SegmentTier::FlushPieces() {
  if (pieces_.empty()) return absl::OkStatus();
  const absl::Status status = open_.file->WriteGather(pieces_offset_, pieces_);
  pieces_.clear();
  pieces_bytes_ = 0;
  header_pages_used_ = 0;
  return status;
}

absl::Status SegmentTier::SyncOpenSegment() {
  if (absl::Status status = FlushPieces(); !status.ok()) return status;
  return options_.sync ? open_.file->Sync() : absl::OkStatus();
}

// Everything of the group is safe: from here on it counts.
void SegmentTier::MakeVisible() {
  open_.committed_page = open_.page;
  // The index is written after the group's callers have their answers, and may have freed their
  // images.
  index_content_.clear();
  for (const Placed& placed : placed_) {
    index_content_.insert(index_content_.end(), placed.content.begin(), placed.content.end());
  }
  size_t offset = 0;
  for (Placed& placed : placed_) {
    placed.content = {index_content_.data() + offset, placed.content.size()};
    offset += placed.content.size();
  }
  std::lock_guard<std::mutex> guard(mutex_);
  for (const Placed& placed : placed_) {
    Segment& segment = segments_.at(placed.segment);
    const uint32_t end = placed.page + 1 + placed.image_pages;
    used_pages_ += end - std::min(end, segment.pages);
    segment.pages = std::max(segment.pages, end);
    if (placed.kind == RecordKind::kTombstone) {
      for (const BlockKey& key : placed.keys) live_.RemoveKey(key);
      counters_.tombstones += placed.keys.size();
      continue;
    }
    if (placed.kind == RecordKind::kVariantTombstone) {
      for (const BlockName& name : placed.names) live_.RemoveVariant(name.key, name.variant);
      counters_.tombstones += placed.names.size();
      continue;
    }
    *placed.location = placed.at();
    live_.Put(placed.header->key, placed.header->variant, placed.at());
    ++counters_.appended_blocks;
    counters_.appended_bytes += uint64_t{placed.image_pages} * kDiskPageBytes;
  }
}

// The index lags by at most one group. When it cannot be written, its segment lags for good: the
// mark stays, and the next start scans.
void SegmentTier::IndexGroup() {
  for (size_t begin = 0; begin < placed_.size();) {
    const uint32_t number = placed_[begin].segment;
    std::vector<SsdIndexRecord> records;
    size_t end = begin;
    for (; end < placed_.size() && placed_[end].segment == number; ++end) {
      const Placed& placed = placed_[end];
      records.push_back({number, placed.page, placed.kind, placed.sequence, placed.content});
    }
    const uint32_t first_page = placed_[begin].page;
    const uint32_t last_page = placed_[end - 1].page + 1 + placed_[end - 1].image_pages;
    begin = end;
    SsdIndexMark mark{number, last_page, 0};
    {
      std::lock_guard<std::mutex> guard(mutex_);
      const Segment& segment = segments_.at(number);
      mark.nonce = segment.nonce;
      if (segment.indexed_pages != first_page) continue;  // a hole in front: it stays behind
    }
    const absl::Status status = index_->Add(records, mark);
    std::lock_guard<std::mutex> guard(mutex_);
    if (status.ok()) {
      segments_.at(number).indexed_pages = last_page;
    } else {
      ++counters_.index_errors;
    }
  }
}

}  // namespace kedge
