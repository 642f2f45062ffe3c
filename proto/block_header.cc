#include "proto/block_header.h"

#include <algorithm>
#include <cstring>

#include "absl/base/internal/raw_logging.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "proto/header_digest.h"
#include "proto/wire.h"

namespace kedge {
namespace {

constexpr uint32_t kMagic = 0x4267644b;  // "KdgB"

// Offsets in the encoded header; proto/README.md has the table.
constexpr size_t kVersionAt = 4;
constexpr size_t kReserved1At = 6;
constexpr size_t kHeaderBytesAt = 8;
constexpr size_t kReserved2At = 12;
constexpr size_t kRootAt = 16;
constexpr size_t kKeyAt = 32;
constexpr size_t kParentAt = 64;
constexpr size_t kVariantAt = 96;
constexpr size_t kPlacementAt = 144;
constexpr size_t kChainDepthAt = 152;
constexpr size_t kRopeBaseAt = 156;
constexpr size_t kKeyspaceAt = 160;
constexpr size_t kFidelityAt = 161;
constexpr size_t kRopeAt = 162;
constexpr size_t kReserved3At = 163;
constexpr size_t kPartCountAt = 164;
constexpr size_t kPayloadBytesAt = 168;
constexpr size_t kShapeAt = 176;
constexpr size_t kModelAt = kBlockHeaderFixedBytes;  // version 2
constexpr size_t kTenantAt = kModelAt + 16;
static_assert(kShapeAt + KvShape::kEncodedBytes == kBlockHeaderFixedBytes);
static_assert(kTenantAt + 8 == kBlockHeaderFixedBytes + kBlockHeaderModelBytes);
static_assert(kBlockHeaderFixedBytes + kBlockHeaderModelBytes + kPartCountMax * kPartEntryBytes <=
              kBlockHeaderBytesMax);

uint32_t DirectoryOffset(uint16_t version) {
  return kBlockHeaderFixedBytes + (version >= 2 ? kBlockHeaderModelBytes : 0);
}

uint16_t VersionOf(const BlockHeader& header) { return header.model.is_zero() ? 1 : 2; }

template <typename... Args>
absl::Status Wrong(const char* field, const Args&... why) {
  return absl::InvalidArgumentError(absl::StrCat("header.", field, ": ", why...));
}

template <typename... Args>
absl::Status Damaged(const char* field, const Args&... why) {
  return absl::DataLossError(absl::StrCat("header.", field, ": ", why...));
}

bool IsVariantChar(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '+' || c == '_' ||
         c == '-';
}

// The name as it stands in the fixed field: valid characters, then zeros to the end.
absl::Status CheckVariant(const Variant& variant) {
  const std::string_view name = variant.view();
  const bool padded = std::all_of(variant.name.begin() + name.size(), variant.name.end(),
                                  [](char c) { return c == 0; });
  if (!padded) return Wrong("variant", "bytes after the name's end are not zero");
  absl::StatusOr<Variant> parsed = Variant::Parse(name);
  return parsed.status();
}

absl::Status CheckEnums(const BlockHeader& header) {
  const auto keyspace = static_cast<int>(header.keyspace);
  const auto fidelity = static_cast<int>(header.fidelity);
  const auto rope = static_cast<int>(header.rope);
  if (keyspace < 1 || keyspace > 4) return Wrong("keyspace", keyspace, " is unknown");
  if (fidelity < 1 || fidelity > 3) return Wrong("fidelity", fidelity, " is unknown");
  if (rope > 2) return Wrong("rope", rope, " is unknown");
  return absl::OkStatus();
}

absl::Status CheckChain(const BlockHeader& header) {
  if (header.key.is_zero()) return Wrong("key", "is zero");
  const bool root = header.parent.is_zero();
  if (root != (header.chain_depth == 0)) {
    return Wrong("chain_depth", header.chain_depth, " with parent ",
                 root ? std::string("none") : header.parent.ToHex());
  }
  if (header.keyspace == Keyspace::kOpaque && !root) {
    return Wrong("parent", header.parent.ToHex(), " for an opaque key, which has none");
  }
  return absl::OkStatus();
}

absl::Status CheckRope(const BlockHeader& header) {
  if (header.rope != RopeState::kNone && header.shape.opaque()) {
    return Wrong("rope", static_cast<int>(header.rope), " for an opaque shape, which has no keys");
  }
  if (header.rope != RopeState::kRotated && header.rope_base_position != 0) {
    return Wrong("rope_base_position", header.rope_base_position,
                 " where the keys are not rotated");
  }
  return absl::OkStatus();
}

absl::Status CheckModel(const BlockHeader& header) {
  if (!header.model.is_zero() && header.shape.opaque()) {
    return Wrong("model", header.model.ToHex(), " for an opaque shape, which is of no model");
  }
  if (header.model.is_zero() && header.tenant != 0) {
    return Wrong("tenant", header.tenant, " for a block that names no model");
  }
  return absl::OkStatus();
}

absl::Status CheckParts(const BlockHeader& header) {
  if (header.parts.size() != header.shape.part_count()) {
    return Wrong("part_count", header.parts.size(), ", the shape (", header.shape.ToString(),
                 ") has ", header.shape.part_count());
  }
  const bool raw = header.variant == Variant::Raw();
  if (raw && header.fidelity != Fidelity::kLossless) {
    return Wrong("fidelity", FidelityName(header.fidelity),
                 " for the codec raw, which is lossless");
  }
  const uint64_t raw_bytes = header.shape.raw_part_bytes();
  for (size_t part = 0; raw && !header.shape.opaque() && part < header.parts.size(); ++part) {
    if (header.parts[part].bytes == raw_bytes) continue;
    return Wrong("parts", "part ", part, " has ", header.parts[part].bytes,
                 " bytes, codec raw makes ", raw_bytes);
  }
  if (header.payload_bytes() > kBlockBytesMax) {
    return Wrong("payload_bytes", header.payload_bytes(), " passes the limit of ", kBlockBytesMax);
  }
  return absl::OkStatus();
}

absl::Status CheckHeader(const BlockHeader& header) {
  if (absl::Status status = CheckEnums(header); !status.ok()) return status;
  if (absl::Status status = CheckVariant(header.variant); !status.ok()) return status;
  if (absl::Status status = header.shape.Validate(); !status.ok()) return status;
  if (absl::Status status = CheckChain(header); !status.ok()) return status;
  if (absl::Status status = CheckRope(header); !status.ok()) return status;
  if (absl::Status status = CheckModel(header); !status.ok()) return status;
  return CheckParts(header);
}

void StoreDigest(uint8_t* to, const Digest128& digest) {
  StoreLe(to, digest.low);
  StoreLe(to + 8, digest.high);
}

Digest128 LoadDigest(const uint8_t* from) {
  return Digest128{.low = LoadLe<uint64_t>(from), .high = LoadLe<uint64_t>(from + 8)};
}

absl::Status CheckReserved(const uint8_t* from) {
  const auto reserved1 = LoadLe<uint16_t>(from + kReserved1At);
  const auto reserved2 = LoadLe<uint32_t>(from + kReserved2At);
  if (reserved1 != 0) return Wrong("reserved1", reserved1, " where zero is reserved");
  if (reserved2 != 0) return Wrong("reserved2", reserved2, " where zero is reserved");
  if (from[kReserved3At] != 0)
    return Wrong("reserved3", from[kReserved3At], " where zero is reserved");
  return absl::OkStatus();
}

// The fields of a header whose root digest is right. They may contradict each other still.
absl::StatusOr<BlockHeader> ReadFields(std::span<const uint8_t> bytes) {
  const uint8_t* from = bytes.data();
  if (absl::Status status = CheckReserved(from); !status.ok()) return status;
  BlockHeader header;
  std::memcpy(header.key.bytes.data(), from + kKeyAt, 32);
  std::memcpy(header.parent.bytes.data(), from + kParentAt, 32);
  std::memcpy(header.variant.name.data(), from + kVariantAt, kVariantBytes);
  header.placement = LoadLe<uint64_t>(from + kPlacementAt);
  header.chain_depth = LoadLe<uint32_t>(from + kChainDepthAt);
  header.rope_base_position = LoadLe<uint32_t>(from + kRopeBaseAt);
  header.keyspace = static_cast<Keyspace>(from[kKeyspaceAt]);
  header.fidelity = static_cast<Fidelity>(from[kFidelityAt]);
  header.rope = static_cast<RopeState>(from[kRopeAt]);
  header.root = LoadDigest(from + kRootAt);
  absl::StatusOr<KvShape> shape = DecodeKvShape(bytes.subspan(kShapeAt, KvShape::kEncodedBytes));
  if (!shape.ok()) return shape.status();
  header.shape = *shape;

  const auto version = LoadLe<uint16_t>(from + kVersionAt);
  if (version >= 2) {
    std::memcpy(header.model.bytes.data(), from + kModelAt, header.model.bytes.size());
    header.tenant = LoadLe<uint64_t>(from + kTenantAt);
    if (header.model.is_zero()) return Wrong("model", "is zero in version ", version);
  }

  const auto part_count = LoadLe<uint32_t>(from + kPartCountAt);
  const uint32_t directory = DirectoryOffset(version);
  const size_t room = (bytes.size() - directory) / kPartEntryBytes;
  if (part_count != room)
    return Wrong("part_count", part_count, ", the header's length has room for ", room);
  header.parts.resize(part_count);
  const uint8_t* entry = from + directory;
  for (PartEntry& part : header.parts) {
    part.bytes = LoadLe<uint32_t>(entry);
    part.digest = LoadDigest(entry + 4);
    entry += kPartEntryBytes;
  }
  const auto payload_bytes = LoadLe<uint64_t>(from + kPayloadBytesAt);
  if (payload_bytes != header.payload_bytes()) {
    return Wrong("payload_bytes", payload_bytes, ", the parts sum up to ", header.payload_bytes());
  }
  return header;
}

}  // namespace

Variant Variant::Raw() {
  Variant variant;
  std::memcpy(variant.name.data(), "raw", 3);
  return variant;
}

absl::StatusOr<Variant> Variant::Parse(std::string_view text) {
  if (text.empty()) return absl::InvalidArgumentError("variant: the name is empty");
  if (text.size() > kVariantBytes - 1 || !std::all_of(text.begin(), text.end(), IsVariantChar)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "variant: \"", absl::CHexEscape(std::string(text.substr(0, 80))), "\" (", text.size(),
        " characters) is not 1 to ", kVariantBytes - 1, " of [a-z0-9.+_-]"));
  }
  Variant variant;
  std::copy(text.begin(), text.end(), variant.name.begin());
  return variant;
}

std::string_view Variant::view() const {
  const auto end = std::find(name.begin(), name.end(), '\0');
  return {name.data(), static_cast<size_t>(end - name.begin())};
}

const char* FidelityName(Fidelity fidelity) {
  switch (fidelity) {
    case Fidelity::kLossless:
      return "lossless";
    case Fidelity::kQuantized:
      return "quantized";
    case Fidelity::kPruned:
      return "pruned";
  }
  return "unknown";
}

std::string Digest128::ToHex() const { return absl::StrFormat("%016x%016x", high, low); }

uint64_t BlockHeader::payload_bytes() const {
  return part_offset(static_cast<uint32_t>(parts.size()));
}

uint64_t BlockHeader::part_offset(uint32_t part) const {
  ABSL_RAW_CHECK(part <= parts.size(), "no such part");
  uint64_t bytes = 0;
  for (uint32_t i = 0; i < part; ++i) bytes += parts[i].bytes;
  return bytes;
}

uint32_t BlockHeader::encoded_bytes() const {
  return DirectoryOffset(VersionOf(*this)) + static_cast<uint32_t>(parts.size()) * kPartEntryBytes;
}

uint32_t PartDirectoryOffset(std::span<const uint8_t> encoded) {
  return DirectoryOffset(LoadLe<uint16_t>(encoded.data() + kVersionAt));
}

absl::StatusOr<std::vector<uint8_t>> EncodeBlockHeader(BlockHeader& header) {
  if (absl::Status status = CheckHeader(header); !status.ok()) return status;
  std::vector<uint8_t> bytes(header.encoded_bytes());
  uint8_t* to = bytes.data();
  StoreLe(to, kMagic);
  StoreLe(to + kVersionAt, VersionOf(header));
  StoreLe(to + kHeaderBytesAt, header.encoded_bytes());
  std::memcpy(to + kKeyAt, header.key.bytes.data(), 32);
  std::memcpy(to + kParentAt, header.parent.bytes.data(), 32);
  std::memcpy(to + kVariantAt, header.variant.name.data(), kVariantBytes);
  StoreLe(to + kPlacementAt, header.placement);
  StoreLe(to + kChainDepthAt, header.chain_depth);
  StoreLe(to + kRopeBaseAt, header.rope_base_position);
  to[kKeyspaceAt] = static_cast<uint8_t>(header.keyspace);
  to[kFidelityAt] = static_cast<uint8_t>(header.fidelity);
  to[kRopeAt] = static_cast<uint8_t>(header.rope);
  StoreLe(to + kPartCountAt, static_cast<uint32_t>(header.parts.size()));
  StoreLe(to + kPayloadBytesAt, header.payload_bytes());
  EncodeKvShape(header.shape,
                std::span<uint8_t, KvShape::kEncodedBytes>(to + kShapeAt, KvShape::kEncodedBytes));
  if (!header.model.is_zero()) {
    std::memcpy(to + kModelAt, header.model.bytes.data(), header.model.bytes.size());
    StoreLe(to + kTenantAt, header.tenant);
  }
  uint8_t* entry = to + DirectoryOffset(VersionOf(header));
  for (const PartEntry& part : header.parts) {
    StoreLe(entry, part.bytes);
    StoreDigest(entry + 4, part.digest);
    entry += kPartEntryBytes;
  }
  header.root = RootDigest(header.key, header.variant, bytes, kRootAt);
  StoreDigest(to + kRootAt, header.root);
  return bytes;
}

absl::StatusOr<uint32_t> PeekBlockHeaderBytes(std::span<const uint8_t> bytes) {
  if (bytes.size() < kBlockHeaderPrefixBytes) {
    return Damaged("prefix", bytes.size(), " bytes where ", kBlockHeaderPrefixBytes, " are due");
  }
  const uint8_t* from = bytes.data();
  if (const auto magic = LoadLe<uint32_t>(from); magic != kMagic) {
    return Damaged("magic", absl::StrFormat("%#010x is not %#010x", magic, kMagic));
  }
  const auto version = LoadLe<uint16_t>(from + kVersionAt);
  if (version == 0 || version > kBlockHeaderVersion) {
    return absl::UnimplementedError(absl::StrCat(
        "header.version: ", version, ", this build reads versions 1 to ", kBlockHeaderVersion));
  }
  const auto header_bytes = LoadLe<uint32_t>(from + kHeaderBytesAt);
  const uint32_t directory = DirectoryOffset(version);
  const bool fits =
      header_bytes > directory && header_bytes <= directory + kPartCountMax * kPartEntryBytes;
  if (!fits || (header_bytes - directory) % kPartEntryBytes != 0) {
    return Damaged("header_bytes", header_bytes, " is not ", directory, " and ", kPartEntryBytes,
                   " for each of 1 to ", kPartCountMax, " parts");
  }
  return header_bytes;
}

absl::StatusOr<BlockHeader> DecodeBlockHeader(std::span<const uint8_t> bytes) {
  absl::StatusOr<uint32_t> header_bytes = PeekBlockHeaderBytes(bytes);
  if (!header_bytes.ok()) return header_bytes.status();
  if (bytes.size() < *header_bytes) {
    return Damaged("header_bytes", *header_bytes, ", but only ", bytes.size(), " bytes are there");
  }
  bytes = bytes.first(*header_bytes);
  BlockKey key;
  Variant variant;
  std::memcpy(key.bytes.data(), bytes.data() + kKeyAt, 32);
  std::memcpy(variant.name.data(), bytes.data() + kVariantAt, kVariantBytes);
  const Digest128 stored = LoadDigest(bytes.data() + kRootAt);
  const Digest128 computed = RootDigest(key, variant, bytes, kRootAt);
  if (stored != computed) {
    return Damaged("root", stored.ToHex(), ", the bytes have ", computed.ToHex());
  }
  absl::StatusOr<BlockHeader> header = ReadFields(bytes);
  if (!header.ok()) return header;
  if (absl::Status status = CheckHeader(*header); !status.ok()) return status;
  return header;
}

}  // namespace kedge
