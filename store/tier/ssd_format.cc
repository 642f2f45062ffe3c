#include "store/tier/ssd_format.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include <xxhash.h>
#include "absl/base/internal/raw_logging.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "proto/wire.h"

namespace kedge {
namespace {

constexpr uint64_t kSegmentMagic = 0x4745534547'44454bull;  // "KEDGESEG"
constexpr uint32_t kRecordMagic = 0x4345524b;               // "KREC"

constexpr size_t kVersionAt = 8;  // of both: a u16 behind eight bytes that begin with the magic
constexpr size_t kChecksumAt = kDiskPageBytes - 8;
constexpr size_t kKeysAt = 56;
constexpr size_t kKeyBytes = 32;
static_assert(kKeysAt + kTombstoneKeysMax * kKeyBytes <= kChecksumAt);
static_assert(kKeysAt + (kTombstoneKeysMax + 1) * kKeyBytes > kChecksumAt, "no key more would fit");
constexpr size_t kNameBytes = kKeyBytes + kVariantBytes;
static_assert(sizeof(BlockName) == kNameBytes, "names lie one after the other");
static_assert(kKeysAt + kVariantTombstonesMax * kNameBytes <= kChecksumAt);

uint64_t ChecksumOf(const uint8_t* page) { return XXH3_64bits(page, kChecksumAt); }

// Magic is right; are checksum and version?
absl::Status CheckPage(const char* what, ConstSsdPage page) {
  const uint64_t stored = LoadLe<uint64_t>(page.data() + kChecksumAt);
  const uint64_t computed = ChecksumOf(page.data());
  if (stored != computed) {
    return absl::DataLossError(
        absl::StrFormat("%s.checksum: %016x, but the page has %016x", what, stored, computed));
  }
  const uint16_t version = LoadLe<uint16_t>(page.data() + kVersionAt);
  if (version == 0 || version > kSsdFormatVersion) {
    return absl::UnimplementedError(
        absl::StrCat(what, ".version: ", version, ", this build reads 1 to ", kSsdFormatVersion));
  }
  return absl::OkStatus();
}

}  // namespace

void EncodeSegmentHeader(const SegmentHeader& header, SsdPage page) {
  std::memset(page.data(), 0, page.size());
  StoreLe<uint64_t>(page.data(), kSegmentMagic);
  StoreLe<uint16_t>(page.data() + kVersionAt, kSsdFormatVersion);
  StoreLe<uint32_t>(page.data() + 12, header.segment);
  StoreLe<uint64_t>(page.data() + 16, header.nonce);
  StoreLe<uint64_t>(page.data() + kChecksumAt, ChecksumOf(page.data()));
}

absl::StatusOr<SegmentHeader> DecodeSegmentHeader(ConstSsdPage page) {
  const uint64_t magic = LoadLe<uint64_t>(page.data());
  if (magic != kSegmentMagic) {
    return absl::DataLossError(absl::StrFormat("segment header.magic: %016x", magic));
  }
  if (absl::Status status = CheckPage("segment header", page); !status.ok()) return status;
  SegmentHeader header;
  header.segment = LoadLe<uint32_t>(page.data() + 12);
  header.nonce = LoadLe<uint64_t>(page.data() + 16);
  return header;
}

void EncodeRecordHeader(const RecordHeader& header, SsdPage page) {
  const size_t entries = header.keys.size() + header.names.size();
  ABSL_RAW_CHECK(header.keys.empty() || header.kind == RecordKind::kTombstone, "keys");
  ABSL_RAW_CHECK(header.names.empty() || header.kind == RecordKind::kVariantTombstone, "names");
  ABSL_RAW_CHECK(header.kind == RecordKind::kBlock
                     ? header.image.header_bytes > 0
                     : entries != 0 && entries <= (header.keys.empty() ? kVariantTombstonesMax
                                                                       : kTombstoneKeysMax),
                 "record header contradicts its kind");
  std::memset(page.data(), 0, page.size());
  StoreLe<uint32_t>(page.data(), kRecordMagic);
  page[4] = static_cast<uint8_t>(header.kind);
  StoreLe<uint16_t>(page.data() + kVersionAt, kSsdFormatVersion);
  StoreLe<uint32_t>(page.data() + 12, header.segment);
  StoreLe<uint64_t>(page.data() + 16, header.nonce);
  StoreLe<uint64_t>(page.data() + 24, header.sequence);
  StoreLe<uint32_t>(page.data() + 32, header.page);
  StoreLe<uint32_t>(page.data() + 36, static_cast<uint32_t>(entries));
  StoreLe<uint64_t>(page.data() + 40, header.image.payload_bytes);
  StoreLe<uint32_t>(page.data() + 48, header.image.header_bytes);
  for (size_t i = 0; i < header.keys.size(); ++i) {
    std::memcpy(page.data() + kKeysAt + i * kKeyBytes, header.keys[i].bytes.data(), kKeyBytes);
  }
  if (!header.names.empty()) {
    std::memcpy(page.data() + kKeysAt, header.names.data(), header.names.size() * kNameBytes);
  }
  StoreLe<uint64_t>(page.data() + kChecksumAt, ChecksumOf(page.data()));
}

absl::StatusOr<RecordHeader> DecodeRecordHeader(ConstSsdPage page) {
  const uint32_t magic = LoadLe<uint32_t>(page.data());
  if (magic != kRecordMagic) {
    return absl::DataLossError(absl::StrFormat("record.magic: %08x", magic));
  }
  if (absl::Status status = CheckPage("record", page); !status.ok()) return status;
  const auto invalid = [](const char* field, uint64_t value) {
    return absl::InvalidArgumentError(absl::StrCat("record.", field, ": ", value));
  };
  RecordHeader header;
  const uint8_t kind = page[4];
  if (kind < uint8_t(RecordKind::kBlock) || kind > uint8_t(RecordKind::kVariantTombstone)) {
    return invalid("kind", kind);
  }
  header.kind = static_cast<RecordKind>(kind);
  header.segment = LoadLe<uint32_t>(page.data() + 12);
  header.nonce = LoadLe<uint64_t>(page.data() + 16);
  header.sequence = LoadLe<uint64_t>(page.data() + 24);
  header.page = LoadLe<uint32_t>(page.data() + 32);
  const uint32_t key_count = LoadLe<uint32_t>(page.data() + 36);
  header.image.payload_bytes = LoadLe<uint64_t>(page.data() + 40);
  header.image.header_bytes = LoadLe<uint32_t>(page.data() + 48);
  if (header.kind == RecordKind::kBlock) {
    if (key_count != 0) return invalid("key_count", key_count);
    if (header.image.payload_bytes > kBlockBytesMax) {
      return invalid("payload_bytes", header.image.payload_bytes);
    }
    if (header.image.header_bytes == 0 || header.image.header_bytes > kBlockHeaderBytesMax) {
      return invalid("header_bytes", header.image.header_bytes);
    }
    return header;
  }
  if (header.image.payload_bytes != 0) return invalid("payload_bytes", header.image.payload_bytes);
  if (header.image.header_bytes != 0) return invalid("header_bytes", header.image.header_bytes);
  const bool variants = header.kind == RecordKind::kVariantTombstone;
  const uint32_t most = variants ? kVariantTombstonesMax : kTombstoneKeysMax;
  if (key_count == 0 || key_count > most) return invalid("key_count", key_count);
  if (variants) {
    header.names.resize(key_count);
    std::memcpy(header.names.data(), page.data() + kKeysAt, key_count * kNameBytes);
    return header;
  }
  header.keys.resize(key_count);
  for (uint32_t i = 0; i < key_count; ++i) {
    std::memcpy(header.keys[i].bytes.data(), page.data() + kKeysAt + i * kKeyBytes, kKeyBytes);
  }
  return header;
}

std::string SegmentName(uint32_t segment) { return absl::StrFormat("seg-%08u.kseg", segment); }

std::optional<uint32_t> ParseSegmentName(std::string_view name) {
  constexpr std::string_view kPrefix = "seg-", kSuffix = ".kseg";
  if (name.size() < kPrefix.size() + kSuffix.size()) return std::nullopt;
  const std::string_view digits =
      name.substr(kPrefix.size(), name.size() - kPrefix.size() - kSuffix.size());
  uint32_t segment = 0;
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), segment);
  if (parsed.ec != std::errc()) return std::nullopt;
  if (SegmentName(segment) != name) return std::nullopt;  // one name for each number
  return segment;
}

}  // namespace kedge
