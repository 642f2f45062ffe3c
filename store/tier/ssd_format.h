// The bytes of segment files; store/README.md ("Segment files") has each of them. Encoding and
// decoding only.
//
// A segment is a header page and then records. A record is one page of record header and, for a
// block, its image (block_image.h) behind it; a tombstone keeps its keys, or names of single
// variants, in the page itself. Both kinds of page end with a checksum (XXH3-64 of all before it),
// at the same place in every version of the format, so that damage can be told from another
// version.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/block_key.h"
#include "store/tier/block_image.h"

namespace kedge {

// Version 2 has tombstones of one variant. Version 1 is read too.
inline constexpr uint16_t kSsdFormatVersion = 2;
inline constexpr uint32_t kTombstoneKeysMax = 126;     // what fits a page
inline constexpr uint32_t kVariantTombstonesMax = 50;  // likewise

using SsdPage = std::span<uint8_t, kDiskPageBytes>;
using ConstSsdPage = std::span<const uint8_t, kDiskPageBytes>;

struct SegmentHeader {
  uint32_t segment = 0;
  // Random. Every record of the segment repeats it, so that bytes of a payload can never pass for a
  // record: who puts a payload does not know it. It also tells the index whether this is the file
  // that it knows.
  uint64_t nonce = 0;
};

enum class RecordKind : uint8_t { kBlock = 1, kTombstone = 2, kVariantTombstone = 3 };

struct RecordHeader {
  RecordKind kind = RecordKind::kBlock;
  uint32_t segment = 0;
  uint32_t page = 0;  // where this page lies in its segment: a record knows its place
  uint64_t nonce = 0;
  uint64_t sequence =
      0;  // grows inside a segment; a record with a smaller one was left over by a failed append
  ImageLayout image;             // of a block
  std::vector<BlockKey> keys;    // of a tombstone, 1 to kTombstoneKeysMax
  std::vector<BlockName> names;  // of a variant tombstone, 1 to kVariantTombstonesMax

  uint32_t image_pages() const {
    return kind == RecordKind::kBlock ? static_cast<uint32_t>(image.image_bytes() / kDiskPageBytes)
                                      : 0;
  }
};

void EncodeSegmentHeader(const SegmentHeader& header, SsdPage page);
// Hostile bytes. DataLoss (magic, checksum), Unimplemented (version) or InvalidArgument
// (contradiction), naming field and value.
absl::StatusOr<SegmentHeader> DecodeSegmentHeader(ConstSsdPage page);

// Aborts when the header contradicts itself: the tier built it.
void EncodeRecordHeader(const RecordHeader& header, SsdPage page);
absl::StatusOr<RecordHeader> DecodeRecordHeader(ConstSsdPage page);

// "seg-00000001.kseg" and back; nullopt for any other name.
std::string SegmentName(uint32_t segment);
std::optional<uint32_t> ParseSegmentName(std::string_view name);

}  // namespace kedge
