// Where a codec reads a part's values and where it writes them.
//
// A part is [tokens][kv_heads * head_size]. On the way values become fp32 and keys may be turned:
// un-rotated when they are read, rotated when they are written, as kernels::Rope does it (each
// product rounded, no fused multiply-add). Behind the turning, so nearest to the codec, a Hadamard
// transform may stand (hadamard.h). Every instruction set gives the same bits.
#pragma once

#include <cstdint>

#include "gpu/kernels/rope.h"
#include "proto/kv_shape.h"

namespace kedge::codec {

struct SourceRows {
  DType dtype = DType::kF16;  // f32, f16 or bf16
  const uint8_t* data = nullptr;
  const kernels::RopeTable* rope = nullptr;  // turn back by these angles; null: as they are
  int64_t skip = 0;                          // the first tokens are not looked at
  bool hadamard = false;                     // transform each head, turned back
};

// Tokens may lie in pages: rows[t] is token t's row. Rounds to nearest, ties to even; what passes
// f16 becomes its largest value, not infinity.
struct TargetRows {
  DType dtype = DType::kF16;
  uint8_t* const* rows = nullptr;
  const kernels::RopeTable* rope = nullptr;  // turn by these angles; null: as they are
  int64_t skip = 0;                          // the first tokens are not written
  bool hadamard = false;                     // transform each head, before it is turned
};

inline constexpr float kF16Max = 65504.0f;

// The specification of reading and writing: one row of `heads` heads as fp32, turned.
void ReadRow(const SourceRows& source, int64_t token, int64_t heads, int64_t head_size, float* row);
void WriteRow(const TargetRows& target, int64_t token, int64_t heads, int64_t head_size,
              const float* row);

// The first token from source.skip on that has a NaN, an infinity or, after turning, a value that
// f16 cannot hold (above 65504); -1 when there is none.
int64_t FirstBadToken(const SourceRows& source, int64_t tokens, int64_t heads, int64_t head_size);

}  // namespace kedge::codec
