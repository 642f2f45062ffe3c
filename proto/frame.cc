#include "proto/frame.h"

#include <algorithm>

#include "absl/base/internal/raw_logging.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "proto/crc32c.h"
#include "proto/wire.h"

namespace kedge {
namespace {

constexpr uint32_t kMagic = 0x4667644b;  // "KdgF"

// Offsets in the header; proto/README.md has the table.
constexpr size_t kVersionAt = 4;
constexpr size_t kTypeAt = 5;
constexpr size_t kFlagsAt = 6;
constexpr size_t kTlvBytesAt = 8;
constexpr size_t kReserved1At = 10;
constexpr size_t kBodyBytesAt = 12;
constexpr size_t kPayloadBytesAt = 16;
constexpr size_t kDeadlineAt = 20;
constexpr size_t kRequestAt = 24;
constexpr size_t kSessionAt = 32;
constexpr size_t kTenantAt = 40;
constexpr size_t kEpochAt = 48;
constexpr size_t kTraceAt = 56;
constexpr size_t kReserved2At = 72;
constexpr size_t kCrcAt = 76;
static_assert(kCrcAt + 4 == kFrameHeaderBytes);

constexpr size_t kTlvHeaderBytes = 4;

uint32_t HeadCrc(std::span<const uint8_t> head) {
  return ExtendCrc32c(Crc32c(head.first(kCrcAt)), head.subspan(kFrameHeaderBytes));
}

bool IsFrameType(uint8_t type) {
  return type >= static_cast<uint8_t>(FrameType::kHello) && type <= kFrameTypeMax;
}

absl::Status Wrong(const char* field, uint64_t value, const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat("frame.", field, ": ", value, " ", why));
}

// Lengths against what arrived and against the limits; nothing past the header is read.
absl::Status CheckLengths(const FrameHeader& header, size_t head_bytes, size_t payload_bytes) {
  if (header.tlv_bytes > kTlvBytesMax) {
    return Wrong("tlv_bytes", header.tlv_bytes, absl::StrCat("passes the limit of ", kTlvBytesMax));
  }
  const uint64_t expected = uint64_t{kFrameHeaderBytes} + header.tlv_bytes + header.body_bytes;
  if (expected != head_bytes) {
    return Wrong("body_bytes", header.body_bytes,
                 absl::StrCat("and tlv_bytes ", header.tlv_bytes, " make a head of ", expected,
                              " bytes, ", head_bytes, " arrived"));
  }
  if (header.payload_bytes > kPayloadBytesMax) {
    return Wrong("payload_bytes", header.payload_bytes,
                 absl::StrCat("passes the limit of ", kPayloadBytesMax));
  }
  if (header.payload_bytes != payload_bytes) {
    return Wrong("payload_bytes", header.payload_bytes,
                 absl::StrCat("but ", payload_bytes, " arrived"));
  }
  return absl::OkStatus();
}

absl::Status CheckTlvs(std::span<const uint8_t> tlvs) {
  while (!tlvs.empty()) {
    if (tlvs.size() < kTlvHeaderBytes)
      return Wrong("tlvs", tlvs.size(), "bytes left, a TLV has at least 4");
    const auto value_bytes = LoadLe<uint16_t>(tlvs.data() + 2);
    if (value_bytes > tlvs.size() - kTlvHeaderBytes) {
      return Wrong("tlvs", value_bytes,
                   absl::StrCat("bytes in TLV type ", LoadLe<uint16_t>(tlvs.data()), ", ",
                                tlvs.size() - kTlvHeaderBytes, " are left"));
    }
    tlvs = tlvs.subspan(kTlvHeaderBytes + value_bytes);
  }
  return absl::OkStatus();
}

}  // namespace

const char* FrameTypeName(FrameType type) {
  static constexpr const char* kNames[] = {
      "unknown",    "hello",     "welcome",     "match",         "match_reply",     "get",
      "get_item",   "chunk",     "cancel",      "put_begin",     "put_ready",       "put_commit",
      "put_done",   "put_abort", "remove",      "remove_reply",  "release",         "ping",
      "pong",       "error",     "goodbye",     "anchor_insert", "anchor_inserted", "mix",
      "mix_reply",  "mix_used",  "near_insert", "near_inserted", "near_lookup",     "near_found",
      "near_strike"};
  static_assert(std::size(kNames) == size_t{kFrameTypeMax} + 1);
  const auto value = static_cast<uint8_t>(type);
  return IsFrameType(value) ? kNames[value] : kNames[0];
}

void EncodeFrame(const FrameHeader& header, std::span<const uint8_t> tlvs,
                 std::span<const uint8_t> body, std::span<uint8_t> out) {
  ABSL_RAW_CHECK(IsFrameType(static_cast<uint8_t>(header.type)), "frame of an unknown type");
  ABSL_RAW_CHECK(header.tlv_bytes == tlvs.size() && tlvs.size() <= kTlvBytesMax,
                 "tlv_bytes is wrong");
  ABSL_RAW_CHECK(header.body_bytes == body.size() && body.size() <= kHeadBytesMax,
                 "body_bytes is wrong");
  ABSL_RAW_CHECK(header.payload_bytes <= kPayloadBytesMax, "payload_bytes passes its limit");
  ABSL_RAW_CHECK(out.size() == FrameHeadBytes(header.tlv_bytes, header.body_bytes) &&
                     out.size() <= kHeadBytesMax,
                 "the head's buffer has the wrong size");
  uint8_t* to = out.data();
  StoreLe(to, kMagic);
  to[kVersionAt] = kFrameVersion;
  to[kTypeAt] = static_cast<uint8_t>(header.type);
  StoreLe(to + kFlagsAt, header.flags);
  StoreLe(to + kTlvBytesAt, header.tlv_bytes);
  StoreLe(to + kReserved1At, uint16_t{0});
  StoreLe(to + kBodyBytesAt, header.body_bytes);
  StoreLe(to + kPayloadBytesAt, header.payload_bytes);
  StoreLe(to + kDeadlineAt, header.deadline_ms);
  StoreLe(to + kRequestAt, header.request);
  StoreLe(to + kSessionAt, header.session);
  StoreLe(to + kTenantAt, header.tenant);
  StoreLe(to + kEpochAt, header.epoch);
  std::copy(header.trace_id.begin(), header.trace_id.end(), to + kTraceAt);
  StoreLe(to + kReserved2At, uint32_t{0});
  std::copy(tlvs.begin(), tlvs.end(), to + kFrameHeaderBytes);
  std::copy(body.begin(), body.end(), to + kFrameHeaderBytes + tlvs.size());
  StoreLe(to + kCrcAt, HeadCrc(out));
}

absl::StatusOr<Frame> DecodeFrame(std::span<const uint8_t> head, size_t payload_bytes) {
  if (head.size() < kFrameHeaderBytes) {
    return Wrong("head", head.size(),
                 absl::StrCat("bytes, a header alone has ", kFrameHeaderBytes));
  }
  if (head.size() > kHeadBytesMax) {
    return Wrong("head", head.size(), absl::StrCat("bytes pass the limit of ", kHeadBytesMax));
  }
  const uint8_t* from = head.data();
  if (const auto magic = LoadLe<uint32_t>(from); magic != kMagic) {
    return absl::InvalidArgumentError(
        absl::StrFormat("frame.magic: %#010x is not %#010x", magic, kMagic));
  }
  if (from[kVersionAt] != kFrameVersion) {
    return absl::UnimplementedError(absl::StrCat("frame.version: ", from[kVersionAt],
                                                 ", this build reads version ", kFrameVersion));
  }
  Frame frame;
  FrameHeader& header = frame.header;
  header.flags = LoadLe<uint16_t>(from + kFlagsAt);
  header.tlv_bytes = LoadLe<uint16_t>(from + kTlvBytesAt);
  header.body_bytes = LoadLe<uint32_t>(from + kBodyBytesAt);
  header.payload_bytes = LoadLe<uint32_t>(from + kPayloadBytesAt);
  if (absl::Status status = CheckLengths(header, head.size(), payload_bytes); !status.ok())
    return status;
  if (const auto crc = LoadLe<uint32_t>(from + kCrcAt); crc != HeadCrc(head)) {
    return absl::DataLossError(
        absl::StrFormat("frame.crc: %#010x, the bytes have %#010x", crc, HeadCrc(head)));
  }
  if (!IsFrameType(from[kTypeAt])) return Wrong("type", from[kTypeAt], "is unknown");
  header.type = static_cast<FrameType>(from[kTypeAt]);
  const auto reserved1 = LoadLe<uint16_t>(from + kReserved1At);
  const auto reserved2 = LoadLe<uint32_t>(from + kReserved2At);
  if (reserved1 != 0) return Wrong("reserved1", reserved1, "where zero is reserved");
  if (reserved2 != 0) return Wrong("reserved2", reserved2, "where zero is reserved");
  header.deadline_ms = LoadLe<uint32_t>(from + kDeadlineAt);
  header.request = LoadLe<uint64_t>(from + kRequestAt);
  header.session = LoadLe<uint64_t>(from + kSessionAt);
  header.tenant = LoadLe<uint64_t>(from + kTenantAt);
  header.epoch = LoadLe<uint64_t>(from + kEpochAt);
  std::copy_n(from + kTraceAt, header.trace_id.size(), header.trace_id.begin());
  frame.tlvs = head.subspan(kFrameHeaderBytes, header.tlv_bytes);
  frame.body = head.subspan(kFrameHeaderBytes + header.tlv_bytes);
  if (absl::Status status = CheckTlvs(frame.tlvs); !status.ok()) return status;
  return frame;
}

}  // namespace kedge
