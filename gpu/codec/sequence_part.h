// One part (a layer's keys or values) of a pruned sequence: which positions it holds, and their
// rows in segments that a codec chain has encoded.
//
// Bytes, little endian:
//
//     at  bytes  field
//      0   u8    method     0x50, "P": no part_header.h has it
//      1   u8    version    1
//      2   u8    component  1 k, 2 v
//      3   u8    coding     of the positions: 0 none (values), 1 bitmap, 2 gaps
//      4   u32   layer      inside the model
//      8   u32   tokens     of the sequence
//     12   u32   rows       that are kept, 1 to tokens
//     16   u32   positions_bytes
//     20   u32   positions_crc  CRC-32C of the rows' positions, each a u32
//     24         positions
//                segments: u32 bytes, then the bytes; as many as rows and the chain say
//
// Positions travel with the keys; values name the same ones by their CRC. Bitmap: bit t % 8 of byte
// t / 8 for position t. Gaps: of each position from the one before it, less one (the first from
// -1), as LEB128 without needless bytes. An encoder takes the shorter one, the bitmap where they
// are even; a reader takes either.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/kv_shape.h"

namespace kedge::codec {

inline constexpr uint32_t kSequencePartHeaderBytes = 24;
inline constexpr uint32_t kSequenceTokensMax = 1 << 20;

struct SequencePart {
  Component component = Component::kK;
  uint32_t layer = 0;
  uint32_t tokens = 0;
  uint32_t rows = 0;
  uint32_t positions_crc = 0;
  std::vector<int32_t> positions;     // of a part of keys; empty for values
  std::span<const uint8_t> segments;  // what follows the positions; points into the input
};

uint32_t PositionsCrc(std::span<const int32_t> positions);
// The shorter coding of ascending positions inside [0, tokens).
std::vector<uint8_t> EncodePositions(std::span<const int32_t> positions, uint32_t tokens,
                                     uint8_t* coding);

// Appends header and positions. `positions` ascend inside [0, tokens).
void AppendSequenceHeader(Component component, uint32_t layer, uint32_t tokens,
                          std::span<const int32_t> positions, std::vector<uint8_t>& out);

// Reads hostile bytes up to the segments, and believes nothing but what `component`, `layer` and
// `tokens` say. InvalidArgument, Unimplemented (another version) or DataLoss (the CRC) name part,
// field and value.
absl::StatusOr<SequencePart> ReadSequencePart(Component component, uint32_t layer, uint32_t tokens,
                                              std::span<const uint8_t> bytes);

}  // namespace kedge::codec
