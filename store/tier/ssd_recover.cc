// The start: what the index knows, then what it lacks, read from the segments.
//
// Records are applied in the order of segments and pages, which is the order in which they were
// acknowledged. A segment that was there at the start is never appended to: its tail may hold what
// nobody was told about.
#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "store/tier/ssd_scan.h"
#include "store/tier/ssd_segments.h"
#include "store/world/limits.h"

namespace kedge {
namespace {

constexpr size_t kIndexBatchBytes = 1 << 20;

// The index is wrong, not the tier.
absl::Status IndexDamaged(const SsdIndexRecord& record, std::string_view why) {
  return absl::DataLossError(absl::StrCat("index: record at segment ", record.segment, ", page ",
                                          record.page, ": ", std::string(why)));
}

// Collects scanned records and hands them to the index in batches.
class IndexFeed {
 public:
  IndexFeed(SsdIndex& index, uint32_t segment) : index_(index), segment_(segment) {}

  void Add(const RecordHeader& record, std::span<const uint8_t> encoded, uint64_t nonce) {
    if (content_.size() >= kIndexBatchBytes) (void)Flush(record.page, nonce);  // the last one tells
    rows_.push_back({record.page, record.kind, record.sequence, content_.size(), 0});
    content_.insert(content_.end(), encoded.begin(), encoded.end());
    for (const BlockKey& key : record.keys) {
      content_.insert(content_.end(), key.bytes.begin(), key.bytes.end());
    }
    for (const BlockName& name : record.names) {
      content_.insert(content_.end(), name.key.bytes.begin(), name.key.bytes.end());
      content_.insert(content_.end(), name.variant.name.begin(), name.variant.name.end());
    }
    rows_.back().bytes = content_.size() - rows_.back().offset;
  }

  absl::Status Flush(uint32_t pages, uint64_t nonce) {
    std::vector<SsdIndexRecord> records;
    for (const Row& row : rows_) {
      records.push_back({segment_, row.page, row.kind, row.sequence,
                         std::span<const uint8_t>(content_).subspan(row.offset, row.bytes)});
    }
    if (status_.ok()) status_ = index_.Add(records, {segment_, pages, nonce});
    rows_.clear();
    content_.clear();
    return status_;
  }

 private:
  struct Row {
    uint32_t page;
    RecordKind kind;
    uint64_t sequence;
    size_t offset, bytes;
  };
  SsdIndex& index_;
  const uint32_t segment_;
  std::vector<Row> rows_;
  std::vector<uint8_t> content_;
  absl::Status status_;
};

}  // namespace

absl::Status SegmentTier::Start(const OnRecovered& on_recovered, RecoveryReport& report) {
  if (absl::Status status = disk_.MakeDirectory(options_.directory); !status.ok()) return status;
  absl::StatusOr<std::unique_ptr<File>> lock = disk_.Lock(options_.directory);
  if (absl::IsAlreadyExists(lock.status())) {
    return absl::FailedPreconditionError(absl::StrCat(
        "ssd ", options_.directory, " is in use: ", std::string(lock.status().message())));
  }
  if (!lock.ok()) return lock.status();
  lock_ = *std::move(lock);
  const absl::StatusOr<std::vector<std::string>> names = disk_.List(options_.directory);
  if (!names.ok()) return names.status();
  std::vector<uint32_t> numbers;
  for (const std::string& name : *names) {
    if (const std::optional<uint32_t> number = ParseSegmentName(name)) numbers.push_back(*number);
  }
  std::sort(numbers.begin(), numbers.end());

  ballast_.Find();
  if (absl::Status status = OpenIndex(numbers, on_recovered, report); !status.ok()) return status;
  group_first_segment_ = next_segment_;
  return OpenFirstSegment();
}

// The index, and what it and the segments say. An index that cannot be had is no reason not to
// serve: the segments hold the same facts.
absl::Status SegmentTier::OpenIndex(const std::vector<uint32_t>& numbers,
                                    const OnRecovered& on_recovered, RecoveryReport& report) {
  absl::Status status;
  if (!IndexHasRoom()) {
    status = absl::ResourceExhaustedError(
        absl::StrCat("ssd ", options_.directory, ": the disk is full; the index wants ",
                     floor_bytes(), " bytes free before it is opened"));
  } else {
    status = index_->Open();
  }
  if (absl::IsResourceExhausted(status) && ballast_.Release()) status = index_->Open();
  if (status.ok()) status = RecoverAndReport(numbers, on_recovered, report);
  if (status.ok()) return status;
  if (absl::IsDataLoss(status)) {
    // Damage of segments is counted and no error: so it is the index that is damaged (or the disk,
    // which will say so again).
    status = index_->Reset();
    if (absl::IsResourceExhausted(status) && ballast_.Release()) status = index_->Reset();
    report = RecoveryReport{.index_rebuilt = true};
    if (status.ok()) status = RecoverAndReport(numbers, on_recovered, report);
    if (status.ok()) return status;
  }
  if (absl::IsUnimplemented(status)) return status;  // a newer format: it is not ours to read
  report = RecoveryReport{.index_rebuilt = true, .index_error = std::string(status.message())};
  GiveUpIndex();
  return RecoverAndReport(numbers, on_recovered, report);
}

absl::Status SegmentTier::RecoverAndReport(const std::vector<uint32_t>& numbers,
                                           const OnRecovered& on_recovered,
                                           RecoveryReport& report) {
  if (absl::Status status = Recover(numbers, report); !status.ok()) return status;
  return ReportLive(on_recovered, report);
}

// A node whose disk is full, with its own blocks or with others' files, must be able to start
// again.
absl::Status SegmentTier::OpenFirstSegment() {
  absl::Status status = OpenNewSegment();
  if (absl::IsResourceExhausted(status) && ballast_.Release()) status = OpenNewSegment();
  for (uint32_t drops = 0; absl::IsResourceExhausted(status) && drops < kSsdDropsPerAppendMax;
       ++drops) {
    if (!DropOldestSegment().ok()) break;
    status = OpenNewSegment();
  }
  return status;
}

absl::Status SegmentTier::Recover(const std::vector<uint32_t>& numbers, RecoveryReport& report) {
  live_.Clear();
  segments_.clear();
  open_files_ = 0;
  used_pages_ = 0;
  const absl::StatusOr<std::vector<SsdIndexMark>> marks = index_->Marks();
  if (!marks.ok()) return marks.status();
  std::map<uint32_t, SsdIndexMark> mark_of;
  for (const SsdIndexMark& mark : *marks) {
    next_segment_ = std::max(next_segment_, mark.segment + 1);
    mark_of[mark.segment] = mark;
    if (std::binary_search(numbers.begin(), numbers.end(), mark.segment)) continue;
    if (absl::Status status = index_->Drop(mark.segment); !status.ok()) return status;
  }
  for (const uint32_t number : numbers) {
    next_segment_ = std::max(next_segment_, number + 1);
    const auto mark = mark_of.find(number);
    absl::Status status =
        RecoverSegment(number, mark == mark_of.end() ? nullptr : &mark->second, report);
    if (!status.ok()) return status;
  }
  if (marks->empty() && report.scanned_records > 0) report.index_rebuilt = true;
  return absl::OkStatus();
}

absl::Status SegmentTier::RecoverSegment(uint32_t number, const SsdIndexMark* mark,
                                         RecoveryReport& report) {
  const std::string path = PathOf(number);
  absl::StatusOr<std::unique_ptr<File>> opened = disk_.Open(path, /*create=*/false);
  if (!opened.ok()) return opened.status();
  std::shared_ptr<File> file = *std::move(opened);
  const absl::StatusOr<uint64_t> size = file->Size();
  if (!size.ok()) return size.status();
  SsdScanOptions scan;
  scan.segment = number;
  scan.end_page = static_cast<uint32_t>(std::min<uint64_t>(*size / kDiskPageBytes, ~0u));
  bool header_read = true;
  if (scan.end_page > 0) {
    header_read = file->Read(0, header_pages_.first(kDiskPageBytes)).ok();
    const absl::StatusOr<SegmentHeader> header = DecodeSegmentHeader(header_pages_.page(0));
    if (header_read && absl::IsUnimplemented(header.status())) {
      return absl::UnimplementedError(
          absl::StrCat(path, ": ", std::string(header.status().message())));
    }
    if (header_read && header.ok() && header->segment == number) scan.nonce = header->nonce;
  }

  uint64_t records = 0;
  uint32_t indexed_pages = 1;
  if (mark != nullptr) {
    if (scan.nonce == mark->nonce && mark->pages >= 1 && mark->pages <= scan.end_page) {
      absl::Status status = ReplayIndex(number, *mark, scan.last_sequence, records);
      if (!status.ok()) return status;
      indexed_pages = mark->pages;
    } else if (absl::Status status = index_->Drop(number); !status.ok()) {
      return status;  // about another file of that name, or one that was cut
    }
  }
  scan.begin_page = indexed_pages;
  IndexFeed feed(*index_, number);
  const SsdScanReport found = ScanSegment(
      *file, scan,
      [&](const RecordHeader& record, const BlockHeader* header, std::span<const uint8_t> encoded) {
        Apply(record, header);
        feed.Add(record, encoded, record.nonce);
      });
  next_sequence_ = std::max(next_sequence_, found.last_sequence + 1);
  report.scanned_records += found.records;
  report.damaged_records += found.damaged;
  const bool damaged = !header_read || found.bad_page.has_value();
  if (records + found.records == 0 && !damaged) {
    // Nothing was ever put into it.
    if (absl::Status status = disk_.Remove(path); !status.ok()) return status;
    return mark == nullptr ? absl::OkStatus() : index_->Drop(number);
  }
  // What could not be read or verified now is tried again by the next start: it may be the way from
  // the disk that failed.
  const uint32_t known_pages = found.bad_page.value_or(header_read ? scan.end_page : indexed_pages);
  if (found.nonce && (mark == nullptr || known_pages != indexed_pages || found.records > 0)) {
    if (absl::Status status = feed.Flush(known_pages, *found.nonce); !status.ok()) return status;
  }
  Segment& segment = segments_[number];
  segment.nonce = found.nonce.value_or(0);
  segment.pages = scan.end_page;
  segment.indexed_pages = known_pages;
  used_pages_ += scan.end_page;
  return absl::OkStatus();
}

absl::Status SegmentTier::ReplayIndex(uint32_t number, const SsdIndexMark& mark,
                                      uint64_t& last_sequence, uint64_t& records) {
  return index_->Visit(number, [&](const SsdIndexRecord& entry) -> absl::Status {
    if (entry.page >= mark.pages) return absl::OkStatus();  // the scan comes to it
    RecordHeader record;
    record.kind = entry.kind;
    record.segment = number;
    record.page = entry.page;
    record.sequence = entry.sequence;
    ++records;
    last_sequence = std::max(last_sequence, entry.sequence);
    if (entry.kind == RecordKind::kTombstone) {
      if (entry.content.empty() || entry.content.size() % 32 != 0) {
        return IndexDamaged(entry, absl::StrCat("tombstone of ", entry.content.size(), " bytes"));
      }
      for (size_t at = 0; at < entry.content.size(); at += 32) {
        BlockKey& key = record.keys.emplace_back();
        std::copy_n(entry.content.begin() + static_cast<ptrdiff_t>(at), 32, key.bytes.begin());
      }
      Apply(record, nullptr);
      return absl::OkStatus();
    }
    if (entry.kind == RecordKind::kVariantTombstone) {
      if (entry.content.empty() || entry.content.size() % sizeof(BlockName) != 0) {
        return IndexDamaged(entry, absl::StrCat("variants of ", entry.content.size(), " bytes"));
      }
      record.names.resize(entry.content.size() / sizeof(BlockName));
      std::memcpy(record.names.data(), entry.content.data(), entry.content.size());
      Apply(record, nullptr);
      return absl::OkStatus();
    }
    const absl::StatusOr<BlockHeader> header = DecodeBlockHeader(entry.content);
    if (!header.ok()) return IndexDamaged(entry, std::string(header.status().message()));
    record.image = {header->encoded_bytes(), header->payload_bytes()};
    if (uint64_t{entry.page} + 1 + record.image_pages() > mark.pages) {
      return IndexDamaged(entry, "its image ends behind the mark");
    }
    Apply(record, &*header);
    return absl::OkStatus();
  });
}

void SegmentTier::Apply(const RecordHeader& record, const BlockHeader* header) {
  if (header == nullptr) {
    for (const BlockKey& key : record.keys) live_.RemoveKey(key);
    for (const BlockName& name : record.names) live_.RemoveVariant(name.key, name.variant);
    return;
  }
  live_.Put(header->key, header->variant, {record.segment, record.page + 1, record.image_pages()});
}

// A second walk over the index, which has everything by now: the first one cannot know what a later
// record takes back.
absl::Status SegmentTier::ReportLive(const OnRecovered& on_recovered, RecoveryReport& report) {
  report.blocks = 0;
  for (const auto& [number, segment] : segments_) {
    const absl::Status status =
        index_->Visit(number, [&](const SsdIndexRecord& record) -> absl::Status {
          if (record.kind != RecordKind::kBlock) return absl::OkStatus();
          const absl::StatusOr<BlockHeader> header = DecodeBlockHeader(record.content);
          if (!header.ok()) return IndexDamaged(record, std::string(header.status().message()));
          const ImageLayout layout{header->encoded_bytes(), header->payload_bytes()};
          const SsdLocation location{record.segment, record.page + 1,
                                     static_cast<uint32_t>(layout.image_bytes() / kDiskPageBytes)};
          if (!live_.IsLive(header->key, header->variant, location)) return absl::OkStatus();
          ++report.blocks;
          if (on_recovered) on_recovered(*header, location);
          return absl::OkStatus();
        });
    if (!status.ok()) return status;
  }
  if (report.blocks == live_.blocks()) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat("index: ", report.blocks, " of ", live_.blocks(), " live blocks are in it"));
}

}  // namespace kedge
