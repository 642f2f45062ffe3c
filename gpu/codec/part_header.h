// The 16 bytes before every lossy part: what the bytes behind them are.
//
//     at  bytes  field
//      0   u8    method       1 kivi, 2 fp8, 3 archive, 4 kivi + rANS
//      1   u8    version      1
//      2   u8    component    1 k, 2 v (proto/kv_shape.h)
//      3   u8    flags        bit 0: the first 4 tokens lie raw at the end; bit 1: Hadamard
//      rotated;
//                          bit 2: two-level scales
//      4   u16   tokens
//      6   u16   kv_heads
//      8   u16   head_size
//     10   u8    dtype        of the raw tokens, and what the part was encoded from
//     11   u8    bits         of one value: 2, 4 or 8; archive: 0
//     12   u32   detail       kivi: the group; fp8: the scale, an f32; archive and rANS: which
//     tables of
//                             the profile, their CRC-32C (archive.h, kivi_rans.h)
//
// Little endian. All of it but the first flag and a free `detail` (fp8's scale) follows from the
// chain and the shape, and is compared with them: a part of another shape is an error, never a
// wrong tensor.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "proto/kv_shape.h"

namespace kedge::codec {

inline constexpr uint32_t kPartHeaderBytes = 16;
// Sinks ruin a quantization group: the first tokens of a sequence are kept as the engine gave them.
inline constexpr int64_t kRawTokens = 4;

enum class Method : uint8_t { kKivi = 1, kFp8 = 2, kArchive = 3, kKiviRans = 4 };

struct PartHeader {
  Method method = Method::kKivi;
  Component component = Component::kK;
  bool raw_tokens = false;
  bool hadamard = false;
  bool two_level = false;
  uint16_t tokens = 0;
  uint16_t kv_heads = 0;
  uint16_t head_size = 0;
  DType dtype = DType::kF16;
  uint8_t bits = 0;
  uint32_t detail = 0;
  bool detail_is_free = false;  // the method's own business; otherwise it follows from the chain
};

void EncodePartHeader(const PartHeader& header, std::span<uint8_t, kPartHeaderBytes> out);

// Reads hostile bytes into `header`, which comes with what is expected. Takes `raw_tokens` from the
// bytes, and `detail` where that is free; everything else must be equal. The error names `part`
// ("layer 3 k"), field and both values.
absl::Status DecodePartHeader(const std::string& part, std::span<const uint8_t> bytes,
                              PartHeader& header);

}  // namespace kedge::codec
