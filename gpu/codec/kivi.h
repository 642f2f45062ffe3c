// KIVI (arXiv 2402.02750, section 3): asymmetric quantization to 2, 4 or 8 bits, in groups.
//
// A group is `group` values that share a scale and a minimum, both f16. Keys have outliers in few
// channels, so a group of keys is consecutive tokens of one channel (axis kTokens); a group of
// values is consecutive channels of one token, inside a head (axis kChannels). All in fp32:
//
//     minimum = f16(min)                     maximum = max
//     scale   = f16((max - minimum) / (2^bits - 1)), not below 0
//     code    = nearest, ties to even, of (x - minimum) * (1 / scale), clamped to [0, 2^bits - 1]
//     x^      = code * scale + minimum       (one rounding: code * scale is exact)
//
// A scale of 0 makes all codes 0: a group of equal values comes back exactly where an f16 holds the
// value. Skipped tokens (SourceRows::skip) count in no minimum and have code, scale and minimum 0.
//
// Bytes, little endian, C = kv_heads * head_size channels:
//
//     axis kTokens                              axis kChannels
//     f16 scale   [tokens / group][C]           f16 scale   [tokens][C / group]
//     f16 minimum [tokens / group][C]           f16 minimum [tokens][C / group]
//     u32 codes   [tokens * bits / 32][C]       u32 codes   [tokens][C * bits / 32]
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

struct KiviLayout {
  int bits = 0;
  int64_t group = 0;
  GroupAxis axis = GroupAxis::kTokens;
  int64_t tokens = 0;
  int64_t heads = 0;
  int64_t head_size = 0;

  int64_t channels() const { return heads * head_size; }
  int64_t groups() const { return tokens * channels() / group; }
  int64_t codes_per_word() const { return 32 / bits; }
  int64_t minimums_at() const { return groups() * 2; }
  int64_t codes_at() const { return groups() * 4; }
  int64_t bytes() const { return codes_at() + tokens * channels() * bits / 8; }
};

inline constexpr int64_t kKiviGroupMax = 128;

// InvalidArgument when bits are not 2, 4 or 8, the group is not 32, 64 or 128, or it does not
// divide the tokens (axis kTokens) or the head size (kChannels): both numbers are named.
absl::StatusOr<KiviLayout> MakeKiviLayout(int bits, int64_t group, GroupAxis axis, int64_t tokens,
                                          int64_t heads, int64_t head_size);

// Writes layout.bytes() bytes. False when a value is NaN, infinite or, after turning, too large for
// f16: FirstBadToken says where, and `out` holds nothing of use.
bool KiviEncode(const KiviLayout& layout, const SourceRows& source, uint8_t* out);
bool KiviEncodeScalar(const KiviLayout& layout, const SourceRows& source, uint8_t* out);

// Whether every scale is finite and not negative and every minimum finite. All codes are valid.
// InvalidArgument names `part`, the field and the group's index.
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
