// How two processes meet, and how messages travel over a byte stream.
//
// Each side of a new connection sends one greeting: which wire carries the messages, how much it
// takes in one of them, and where its memory queue is when that wire is shared memory. Over TCP the
// same socket then carries messages, each behind a prefix with its two lengths. proto/README.md has
// each byte.
//
// The port is open to strangers: whatever does not begin with a greeting ends the connection and
// nothing else.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace kedge {

inline constexpr uint16_t kStreamVersion = 1;
inline constexpr uint32_t kGreetingHeaderBytes = 24;
inline constexpr uint32_t kGreetingAddressBytesMax = 4096;
inline constexpr uint32_t kMessagePrefixBytes = 12;

enum class StreamWire : uint8_t { kTcp = 1, kShm = 2 };
const char* StreamWireName(StreamWire wire);  // "tcp", "shm"

// What the accepting side says of a greeting that it read. The connecting side says kOk.
enum class GreetingStatus : uint8_t { kOk = 0, kOtherVersion = 1, kOtherWire = 2, kRefused = 3 };

struct Greeting {
  StreamWire wire = StreamWire::kTcp;
  GreetingStatus status = GreetingStatus::kOk;
  uint32_t payload_bytes_max = 0;    // of one message that this side takes
  std::span<const uint8_t> address;  // UCX worker address (kShm); empty for kTcp
};

// `out` has kGreetingHeaderBytes + address.size() bytes; aborts otherwise, or when the address
// passes its limit.
void EncodeGreeting(const Greeting& greeting, std::span<uint8_t> out);

// How many bytes the whole greeting has, from its first kGreetingHeaderBytes. InvalidArgument
// (magic, lengths) or Unimplemented (version), naming field and value.
absl::StatusOr<uint32_t> GreetingBytes(std::span<const uint8_t> header);

// Parses hostile bytes: exactly one greeting, whose address is a part of `bytes`. Errors as
// GreetingBytes, and DataLoss (CRC).
absl::StatusOr<Greeting> DecodeGreeting(std::span<const uint8_t> bytes);

// In front of every message over TCP.
struct MessagePrefix {
  uint32_t head_bytes = 0;
  uint32_t payload_bytes = 0;

  uint64_t message_bytes() const {
    return uint64_t{kMessagePrefixBytes} + head_bytes + payload_bytes;
  }
};
std::array<uint8_t, kMessagePrefixBytes> EncodeMessagePrefix(const MessagePrefix& prefix);

// Of at least kMessagePrefixBytes. InvalidArgument for a head past kHeadBytesMax or a payload past
// `payload_bytes_max`, DataLoss for a CRC that does not agree, naming field and value.
absl::StatusOr<MessagePrefix> DecodeMessagePrefix(std::span<const uint8_t> bytes,
                                                  uint32_t payload_bytes_max);

}  // namespace kedge
