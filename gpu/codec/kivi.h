// KIVI (arXiv 2402.02750, section 3): asymmetric quantization to 2, 4 or 8 bits, in groups.
//
// A group is `group` values that share a scale and a minimum, both f16. Keys have outliers in few
// channels, so a group of keys is consecutive tokens of one channel (axis kTokens); a group of
// values is consecutive channels of one token, inside a head (axis kChannels). All in fp32:
//
//     minimum = f16(min)                     maximum = max
//     scale   = f16((max - minimum) / (2^bits - 1)), not below 0
//     code    = nearest, ties to even, of (x - minimum) * (1 / scale), clamped to [0, 2^bits - 1]
//     x^      = code * scale + minimum       (the product rounded, then the sum)
//
// A scale of 0 makes all codes 0: a group of equal values comes back exactly where an f16 holds the
// value. Skipped tokens (SourceRows::skip) count in no minimum and have code, scale and minimum 0.
//
// Two-level scales (ours, not KIVI's) halve what a group takes beside its codes: 8 bits for the
// scale and 8 for the minimum, in units of two f16 that `head_size` consecutive groups share (for
// keys: the channels of one head). Codes are squared, since one outlier channel must not leave the
// others a handful of steps:
//
//     minimum = m * n|n| / 2^14    m = f16, rounded up, of the largest |min|     n in [-128, 127]
//     scale   = s * c^2 / 2^16     s = f16, rounded up, of 65536/65025 of the    c in [1, 255]
//                                      largest scale wanted
//
// n is rounded down and c up, so that a group's values stay inside what its codes reach. c = 0
// marks a group of equal values; that value is an f16 in the first 16 bits of the group's codes.
//
// Bytes, little endian, C = kv_heads * head_size channels, G groups of which head_size share:
//
//     f16 scales                axis kTokens               axis kChannels
//       f16 scale   [G]           [tokens / group][C]        [tokens][C / group]
//       f16 minimum [G]           the same                   the same
//       u32 codes                 [tokens * bits / 32][C]    [tokens][C * bits / 32]
//     two-level
//       f16 s [G / head_size], f16 m [the same, rounded up], u8 c [G], i8 n [G], u32 codes
//
// A word holds the codes of 32 / bits consecutive tokens (channels), the first in the lowest bits.
// That is the authors' packing; the order of words is ours, so that neighbours in memory are
// neighbours in a vector register.
//
// Scalar code is the specification; KiviEncode and KiviDecode use vectors where the shape lets them
// and give the same bits. The CUDA twin does too. Functions keep no state; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gpu/codec/part_rows.h"

namespace kedge::codec {

enum class GroupAxis { kTokens, kChannels };
enum class GroupScales { kF16, kTwoLevel };

struct KiviLayout {
  int bits = 0;
  int64_t group = 0;
  GroupAxis axis = GroupAxis::kTokens;
  int64_t tokens = 0;
  int64_t heads = 0;
  int64_t head_size = 0;
  GroupScales scales = GroupScales::kF16;

  bool two_level() const { return scales == GroupScales::kTwoLevel; }
  int64_t channels() const { return heads * head_size; }
  int64_t groups() const { return tokens * channels() / group; }
  // Groups that share s and m; two-level only.
  int64_t unions() const { return (groups() + head_size - 1) / head_size; }
  int64_t codes_per_word() const { return 32 / bits; }
  // Where minimums, or for two-level m, c and n, begin.
  int64_t minimums_at() const { return two_level() ? unions() * 2 : groups() * 2; }
  int64_t scale_codes_at() const { return unions() * 4; }
  int64_t minimum_codes_at() const { return scale_codes_at() + groups(); }
  int64_t codes_at() const { return two_level() ? unions() * 4 + groups() * 2 : groups() * 4; }
  // The first word of a group's codes.
  int64_t word_of_group(int64_t index) const {
    const int64_t words = group / codes_per_word();
    if (axis == GroupAxis::kChannels) return index * words;
    return index / channels() * words * channels() + index % channels();
  }
  int64_t bytes() const { return codes_at() + tokens * channels() * bits / 8; }
};

// 65536 / 65025: c = 255 reaches the largest scale.
inline constexpr float kKiviScaleMargin = 65536.0f / 65025.0f;

// InvalidArgument when bits are not 2, 4 or 8, the group is not 32, 64 or 128, or it does not
// divide the tokens (axis kTokens) or the head size (kChannels): both numbers are named.
absl::StatusOr<KiviLayout> MakeKiviLayout(int bits, int64_t group, GroupAxis axis, int64_t tokens,
                                          int64_t heads, int64_t head_size,
                                          GroupScales scales = GroupScales::kF16);

// Writes layout.bytes() bytes. False when a value is NaN, infinite or, after turning, too large for
// f16: FirstBadToken says where, and `out` holds nothing of use.
bool KiviEncode(const KiviLayout& layout, const SourceRows& source, uint8_t* out);
bool KiviEncodeScalar(const KiviLayout& layout, const SourceRows& source, uint8_t* out);

// Whether every scale is finite and not negative and every minimum (also of a group of equal
// values) finite. All codes are valid. InvalidArgument names `part`, the field and the index.
absl::Status KiviCheck(const KiviLayout& layout, const std::string& part, const uint8_t* in);

// Reads layout.bytes() bytes that KiviCheck has passed; dequantizes, turns and scatters in one
// pass.
void KiviDecode(const KiviLayout& layout, const uint8_t* in, const TargetRows& target);
void KiviDecodeScalar(const KiviLayout& layout, const uint8_t* in, const TargetRows& target);

// On the GPU: all pointers are device memory; `data` is the part and `rows` the array of rows. cos
// and sin are [tokens, head_size / 2], or null. `bad` is an int that becomes 1 where KiviEncode
// would answer false, and is otherwise left.
void KiviEncodeCuda(const KiviLayout& layout, DType dtype, const void* data, const float* cos,
                    const float* sin, int64_t skip, uint8_t* out, int* bad, void* stream);
void KiviDecodeCuda(const KiviLayout& layout, const uint8_t* in, DType dtype, uint8_t* const* rows,
                    const float* cos, const float* sin, int64_t skip, void* stream);

}  // namespace kedge::codec
