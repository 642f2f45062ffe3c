#include "proto/stream.h"

#include <algorithm>

#include "absl/base/internal/raw_logging.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "proto/crc32c.h"
#include "proto/frame.h"
#include "proto/wire.h"

namespace kedge {
namespace {

constexpr uint32_t kMagic = 0x5367644b;  // "KdgS"

constexpr size_t kVersionAt = 4;
constexpr size_t kWireAt = 6;
constexpr size_t kStatusAt = 7;
constexpr size_t kPayloadBytesMaxAt = 8;
constexpr size_t kAddressBytesAt = 12;
constexpr size_t kReservedAt = 16;
constexpr size_t kCrcAt = 20;
static_assert(kCrcAt + 4 == kGreetingHeaderBytes);

absl::Status Wrong(const char* field, uint64_t value, const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat(field, ": ", value, " ", why));
}

uint32_t GreetingCrc(std::span<const uint8_t> bytes) {
  return ExtendCrc32c(Crc32c(bytes.first(kCrcAt)), bytes.subspan(kGreetingHeaderBytes));
}

}  // namespace

const char* StreamWireName(StreamWire wire) { return wire == StreamWire::kTcp ? "tcp" : "shm"; }

void EncodeGreeting(const Greeting& greeting, std::span<uint8_t> out) {
  ABSL_RAW_CHECK(greeting.address.size() <= kGreetingAddressBytesMax, "greeting: long address");
  ABSL_RAW_CHECK(out.size() == kGreetingHeaderBytes + greeting.address.size(), "greeting: size");
  std::fill_n(out.begin(), kGreetingHeaderBytes, 0);
  StoreLe<uint32_t>(out.data(), kMagic);
  StoreLe<uint16_t>(out.data() + kVersionAt, kStreamVersion);
  out[kWireAt] = static_cast<uint8_t>(greeting.wire);
  out[kStatusAt] = static_cast<uint8_t>(greeting.status);
  StoreLe<uint32_t>(out.data() + kPayloadBytesMaxAt, greeting.payload_bytes_max);
  StoreLe<uint32_t>(out.data() + kAddressBytesAt, static_cast<uint32_t>(greeting.address.size()));
  std::copy(greeting.address.begin(), greeting.address.end(), out.begin() + kGreetingHeaderBytes);
  StoreLe<uint32_t>(out.data() + kCrcAt, GreetingCrc(out));
}

absl::StatusOr<uint32_t> GreetingBytes(std::span<const uint8_t> header) {
  if (header.size() < kGreetingHeaderBytes) {
    return Wrong("greeting", header.size(), "bytes, too short");
  }
  const uint32_t magic = LoadLe<uint32_t>(header.data());
  if (magic != kMagic) {
    return absl::InvalidArgumentError(
        absl::StrFormat("greeting.magic: 0x%08x is not Kedge's", magic));
  }
  const uint16_t version = LoadLe<uint16_t>(header.data() + kVersionAt);
  if (version != kStreamVersion) {
    return absl::UnimplementedError(
        absl::StrCat("greeting.version: ", version, ", this side has ", kStreamVersion));
  }
  const uint32_t address_bytes = LoadLe<uint32_t>(header.data() + kAddressBytesAt);
  if (address_bytes > kGreetingAddressBytesMax) {
    return Wrong("greeting.address_bytes", address_bytes,
                 absl::StrCat("passes the limit of ", kGreetingAddressBytesMax));
  }
  return kGreetingHeaderBytes + address_bytes;
}

absl::StatusOr<Greeting> DecodeGreeting(std::span<const uint8_t> bytes) {
  absl::StatusOr<uint32_t> expected = GreetingBytes(bytes);
  if (!expected.ok()) return expected.status();
  if (bytes.size() != *expected) {
    return Wrong("greeting", bytes.size(), absl::StrCat("bytes, its header says ", *expected));
  }
  const uint32_t crc = LoadLe<uint32_t>(bytes.data() + kCrcAt);
  if (crc != GreetingCrc(bytes)) {
    return absl::DataLossError(absl::StrFormat("greeting.crc: 0x%08x does not agree", crc));
  }
  const uint8_t wire = bytes[kWireAt];
  if (wire != static_cast<uint8_t>(StreamWire::kTcp) &&
      wire != static_cast<uint8_t>(StreamWire::kShm)) {
    return Wrong("greeting.wire", wire, "is unknown");
  }
  const uint8_t status = bytes[kStatusAt];
  if (status > static_cast<uint8_t>(GreetingStatus::kRefused)) {
    return Wrong("greeting.status", status, "is unknown");
  }
  const uint32_t reserved = LoadLe<uint32_t>(bytes.data() + kReservedAt);
  if (reserved != 0) return Wrong("greeting.reserved", reserved, "is not 0");
  Greeting greeting;
  greeting.wire = static_cast<StreamWire>(wire);
  greeting.status = static_cast<GreetingStatus>(status);
  greeting.payload_bytes_max = LoadLe<uint32_t>(bytes.data() + kPayloadBytesMaxAt);
  greeting.address = bytes.subspan(kGreetingHeaderBytes);
  return greeting;
}

std::array<uint8_t, kMessagePrefixBytes> EncodeMessagePrefix(const MessagePrefix& prefix) {
  std::array<uint8_t, kMessagePrefixBytes> out;
  StoreLe<uint32_t>(out.data(), prefix.head_bytes);
  StoreLe<uint32_t>(out.data() + 4, prefix.payload_bytes);
  StoreLe<uint32_t>(out.data() + 8, Crc32c(std::span<const uint8_t>(out).first(8)));
  return out;
}

absl::StatusOr<MessagePrefix> DecodeMessagePrefix(std::span<const uint8_t> bytes,
                                                  uint32_t payload_bytes_max) {
  if (bytes.size() < kMessagePrefixBytes) {
    return Wrong("message prefix", bytes.size(), "bytes, too short");
  }
  const uint32_t crc = LoadLe<uint32_t>(bytes.data() + 8);
  if (crc != Crc32c(bytes.first(8))) {
    return absl::DataLossError(absl::StrFormat("message.crc: 0x%08x does not agree", crc));
  }
  const MessagePrefix prefix = {LoadLe<uint32_t>(bytes.data()), LoadLe<uint32_t>(bytes.data() + 4)};
  if (prefix.head_bytes > kHeadBytesMax) {
    return Wrong("message.head_bytes", prefix.head_bytes,
                 absl::StrCat("passes the limit of ", kHeadBytesMax));
  }
  if (prefix.payload_bytes > payload_bytes_max) {
    return Wrong("message.payload_bytes", prefix.payload_bytes,
                 absl::StrCat("passes the limit of ", payload_bytes_max));
  }
  return prefix;
}

}  // namespace kedge
