// Walks over the records of a segment file, from record to record; over damage it looks page by
// page for the next one.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/functional/function_ref.h"
#include "store/tier/ssd_format.h"

namespace kedge {

struct SsdScanOptions {
  uint32_t segment = 0;
  // Of the segment's header. Without it (the header is damaged) that of the record at `begin_page`
  // counts; when that one is damaged too, nothing is found.
  std::optional<uint64_t> nonce;
  uint32_t begin_page = 1;
  uint32_t end_page = 1;       // the file's size
  uint64_t last_sequence = 0;  // of the record in front; records up to it are left over and skipped
  bool verify_payload = true;  // reads whole images and checks each digest; else headers only
};

struct SsdScanReport {
  uint64_t records = 0;
  uint64_t damaged = 0;              // records, or runs of pages that are none
  std::optional<uint32_t> bad_page;  // the first that could not be read or was none of a record
  std::optional<uint64_t> nonce;
  uint64_t last_sequence = 0;  // the highest that was seen
};

// `header` and `encoded` are of a block's record; nullptr and empty for a tombstone. Valid during
// the call.
using SsdScanVisitor = absl::FunctionRef<void(const RecordHeader& record, const BlockHeader* header,
                                              std::span<const uint8_t> encoded)>;

SsdScanReport ScanSegment(File& file, const SsdScanOptions& options, SsdScanVisitor visit);

}  // namespace kedge
