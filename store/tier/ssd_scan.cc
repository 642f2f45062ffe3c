#include "store/tier/ssd_scan.h"

#include <algorithm>

#include "store/tier/page_buffer.h"

namespace kedge {
namespace {

constexpr uint32_t kSearchPages = 64;

bool AllZero(ConstSsdPage page) {
  return std::all_of(page.begin(), page.end(), [](uint8_t byte) { return byte == 0; });
}

class Scan {
 public:
  Scan(File& file, const SsdScanOptions& options, SsdScanVisitor visit)
      : file_(file), options_(options), visit_(visit), window_(kSearchPages * kDiskPageBytes) {
    report_.nonce = options.nonce;
    report_.last_sequence = options.last_sequence;
  }

  SsdScanReport Run() {
    uint32_t page = options_.begin_page;
    while (page < options_.end_page) {
      // One page where a record is expected, many where the next one is looked for.
      uint32_t pages = std::min(searching_ ? kSearchPages : 1, options_.end_page - page);
      if (!ReadPages(page, window_.first(uint64_t{pages} * kDiskPageBytes))) {
        pages = 1;
        if (!ReadPages(page, window_.first(kDiskPageBytes))) {
          Search(page, /*damage=*/true);
          ++page;
          continue;
        }
      }
      page = Look(page, pages);
      if (searching_ && !report_.nonce) break;
    }
    return report_;
  }

 private:
  bool ReadPages(uint32_t page, std::span<uint8_t> bytes) {
    return file_.Read(uint64_t{page} * kDiskPageBytes, bytes).ok();
  }
  void CountDamage(uint32_t page) {
    ++report_.damaged;
    if (!report_.bad_page) report_.bad_page = page;
  }
  // From here to the next record: one damage, however long.
  void Search(uint32_t page, bool damage) {
    if (damage && !damage_counted_) {
      CountDamage(page);
      damage_counted_ = true;
    }
    searching_ = true;
  }

  // Looks for a record in the window. Returns the page to go on from.
  uint32_t Look(uint32_t first, uint32_t pages) {
    for (uint32_t i = 0; i < pages; ++i) {
      const ConstSsdPage bytes = window_.page(i);
      const absl::StatusOr<RecordHeader> record = DecodeRecordHeader(bytes);
      if (!record.ok() || !Belongs(*record, first + i)) {
        Search(first + i, /*damage=*/!AllZero(bytes));
        continue;
      }
      if (record->sequence <= report_.last_sequence) {
        Search(first + i, /*damage=*/false);  // left over by an append that failed
        continue;
      }
      const uint64_t next = uint64_t{first} + i + 1 + record->image_pages();
      if (next > options_.end_page) {
        Search(first + i, /*damage=*/true);  // the file ends inside of the image
        continue;
      }
      searching_ = damage_counted_ = false;
      report_.nonce = record->nonce;
      report_.last_sequence = record->sequence;
      if (record->kind != RecordKind::kBlock) {
        ++report_.records;
        visit_(*record, nullptr, {});
      } else {
        Block(*record);
      }
      return static_cast<uint32_t>(next);
    }
    return first + pages;
  }

  bool Belongs(const RecordHeader& record, uint32_t page) const {
    return record.segment == options_.segment && record.page == page &&
           (!report_.nonce || record.nonce == *report_.nonce);
  }

  void Block(const RecordHeader& record) {
    const uint64_t bytes =
        options_.verify_payload ? record.image.image_bytes() : record.image.payload_offset();
    image_.Grow(bytes);
    const std::span<uint8_t> image = image_.first(bytes);
    if (!ReadPages(record.page + 1, image)) {
      CountDamage(record.page);
      return;
    }
    const absl::StatusOr<BlockHeader> header =
        DecodeBlockHeader(image.first(record.image.header_bytes));
    const bool right = header.ok() && header->encoded_bytes() == record.image.header_bytes &&
                       header->payload_bytes() == record.image.payload_bytes &&
                       (!options_.verify_payload ||
                        VerifyPayload(*header, image.subspan(record.image.payload_offset(),
                                                             record.image.payload_bytes))
                            .ok());
    if (!right) {
      CountDamage(record.page);  // its length is known: the next record is right behind it
      return;
    }
    ++report_.records;
    visit_(record, &*header, image.first(record.image.header_bytes));
  }

  File& file_;
  const SsdScanOptions& options_;
  const SsdScanVisitor visit_;
  PageBuffer window_;
  PageBuffer image_;
  bool searching_ = false;
  bool damage_counted_ = false;
  SsdScanReport report_;
};

}  // namespace

SsdScanReport ScanSegment(File& file, const SsdScanOptions& options, SsdScanVisitor visit) {
  return Scan(file, options, visit).Run();
}

}  // namespace kedge
