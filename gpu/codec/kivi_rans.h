// KIVI's bytes through an entropy coder: `kivi2g32+rans` is `kivi2g32`, smaller and lossless over
// its codes.
//
// Codes are not uniform (a group's lowest and highest value are codes 0 and 2^bits - 1, the others
// lie between), and the upper bytes of scales and minimums hardly vary. The body of the KIVI part
// (kivi.h) is cut into five streams of bytes, in this order, each with a table of its own for each
// layer and component:
//
//     f16 scales   low bytes of scales, high bytes; low bytes of minimums, high bytes; codes
//     two-level    low bytes of s and m, high bytes; c; n; codes
//
// A byte of codes holds 2 (4 bits) or 4 (2 bits) neighbouring codes and is one symbol: what they
// tell of each other is in the table too, and one step of the decoder gives them all.
//
// Section `entropy/CHAIN`, little endian:
//
//     u16 version 1, u16 layers; for each layer, k then v, for each stream: u16 shares [256]
//
// Shares are at least 1 and their sum is 4096. A part carries the section's CRC-32C.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gpu/codec/kivi.h"
#include "gpu/codec/rans.h"

namespace kedge::codec {

inline constexpr int kKiviStreams = 5;

// Bytes at, at + stride, ... of a KIVI body.
struct KiviStream {
  int64_t at = 0;
  int64_t stride = 1;
  int64_t count = 0;
};
std::array<KiviStream, kKiviStreams> KiviStreamsOf(const KiviLayout& layout);

using KiviTables = std::array<RansTable, kKiviStreams>;

// What bytes occurred: [layers][k, v][stream].
using KiviCounts = std::vector<std::array<std::array<uint64_t, 256>, kKiviStreams>>;

// Adds a body's bytes.
void CountKivi(const KiviLayout& layout, std::span<const uint8_t> body,
               std::array<std::array<uint64_t, 256>, kKiviStreams>& counts);
// The section's bytes from what was counted.
std::vector<uint8_t> EncodeKiviTables(const KiviCounts& counts);
// InvalidArgument or Unimplemented name the section `name` and the field. [layers][k, v].
absl::StatusOr<std::vector<KiviTables>> ParseKiviTables(const std::string& name,
                                                        std::span<const uint8_t> section);

int64_t KiviRansBytesMax(const KiviLayout& layout);
// Gives the bytes written at the front of `out`, which has KiviRansBytesMax.
int64_t KiviRansEncode(const KiviLayout& layout, const KiviTables& tables, const uint8_t* body,
                       std::span<uint8_t> out);
// The KIVI body from all of `in`, which may be hostile; InvalidArgument says what is wrong.
absl::Status KiviRansDecode(const KiviLayout& layout, const KiviTables& tables,
                            std::span<const uint8_t> in, uint8_t* body);

}  // namespace kedge::codec
