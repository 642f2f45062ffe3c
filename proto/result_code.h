// What happened to one block of a batch. Crosses the wire (one byte) and the C ABI: values never
// change meaning.
#pragma once

#include <cstdint>

#include "absl/status/status.h"

namespace kedge {

enum class ResultCode : uint8_t {
  kOk = 0,
  kAbsent = 1,     // never seen here, or forgotten long ago
  kEvicted = 2,    // recorded eviction
  kRemoved = 3,    // recorded removal
  kNoVariant = 4,  // the key is held, but in none of the accepted variants
  kCorrupt = 5,    // a copy was found damaged and was dropped
  kExists = 6,     // put: these bytes are already held (a success)
  kExhausted = 7,  // no room or a queue is full; try later
  kDeadline = 8,   // the deadline passed first
  kCancelled = 9,
  kUnavailable = 10,  // node away, draining or restarting
  kInvalid = 11,      // the request contradicts itself
  kTooSmall = 12,     // the landing buffer is smaller than the block
  kMismatch = 13,     // put: bytes do not match the digest, or other bytes are held under that name
  kStaleEpoch = 14,   // the member list was an old one; the answer carries the new one
  kDenied = 15,       // another tenant's session, or a call the session may not make
  kInternal = 16,
};
inline constexpr uint8_t kResultCodeMax = 16;

const char* ResultCodeName(ResultCode code);  // "ok", "absent", ...
bool IsSuccess(ResultCode code);              // kOk, kExists
absl::StatusCode ToStatusCode(ResultCode code);
ResultCode FromStatus(const absl::Status& status);

enum class TierId : uint8_t { kNone = 0, kGpu = 1, kHost = 2, kSsd = 3 };
const char* TierName(TierId tier);

}  // namespace kedge
