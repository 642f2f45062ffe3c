#include "gpu/codec/part_header.h"

#include "absl/strings/str_cat.h"
#include "proto/wire.h"

namespace kedge::codec {
namespace {

constexpr uint8_t kVersion = 1;
constexpr uint8_t kRawTokensFlag = 1;
constexpr uint8_t kHadamardFlag = 2;
constexpr uint8_t kTwoLevelFlag = 4;

uint8_t FlagsOf(const PartHeader& header) {
  return static_cast<uint8_t>((header.raw_tokens ? kRawTokensFlag : 0) |
                              (header.hadamard ? kHadamardFlag : 0) |
                              (header.two_level ? kTwoLevelFlag : 0));
}

const char* DetailName(Method method) {
  switch (method) {
    case Method::kKivi:
      return "group";
    case Method::kFp8:
      return "scale";
    case Method::kArchive:
    case Method::kKiviRans:
      return "tables of the profile";
  }
  return "detail";
}

absl::Status Differs(const std::string& part, const char* field, uint64_t value,
                     uint64_t expected) {
  return absl::InvalidArgumentError(
      absl::StrCat("part ", part, ": ", field, ": ", value, ", expected ", expected));
}

}  // namespace

void EncodePartHeader(const PartHeader& header, std::span<uint8_t, kPartHeaderBytes> out) {
  uint8_t* to = out.data();
  to[0] = static_cast<uint8_t>(header.method);
  to[1] = kVersion;
  to[2] = static_cast<uint8_t>(header.component);
  to[3] = FlagsOf(header);
  StoreLe(to + 4, header.tokens);
  StoreLe(to + 6, header.kv_heads);
  StoreLe(to + 8, header.head_size);
  to[10] = static_cast<uint8_t>(header.dtype);
  to[11] = header.bits;
  StoreLe(to + 12, header.detail);
}

absl::Status DecodePartHeader(const std::string& part, std::span<const uint8_t> bytes,
                              PartHeader& header) {
  if (bytes.size() < kPartHeaderBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("part ", part, ": bytes: ", bytes.size(), ", its header has 16"));
  }
  const uint8_t* from = bytes.data();
  if (from[1] != kVersion) {
    return absl::UnimplementedError(
        absl::StrCat("part ", part, ": version: ", from[1], ", this program reads 1"));
  }
  const uint8_t expected_flags = FlagsOf(header) & ~kRawTokensFlag;
  const struct {
    const char* field;
    uint64_t value;
    uint64_t expected;
  } fields[] = {
      {"method", from[0], static_cast<uint64_t>(header.method)},
      {"component", from[2], static_cast<uint64_t>(header.component)},
      {"flags", static_cast<uint64_t>(from[3] & ~kRawTokensFlag), expected_flags},
      {"tokens", LoadLe<uint16_t>(from + 4), header.tokens},
      {"kv_heads", LoadLe<uint16_t>(from + 6), header.kv_heads},
      {"head_size", LoadLe<uint16_t>(from + 8), header.head_size},
      {"dtype", from[10], static_cast<uint64_t>(header.dtype)},
      {"bits", from[11], header.bits},
  };
  for (const auto& f : fields) {
    if (f.value != f.expected) return Differs(part, f.field, f.value, f.expected);
  }
  const auto detail = LoadLe<uint32_t>(from + 12);
  if (!header.detail_is_free && detail != header.detail)
    return Differs(part, DetailName(header.method), detail, header.detail);
  header.detail = detail;
  header.raw_tokens = (from[3] & kRawTokensFlag) != 0;
  return absl::OkStatus();
}

}  // namespace kedge::codec
