// The Walsh-Hadamard transform of each head: it spreads a channel's outliers over all channels, so
// that few bits lose less (QuaRot, arXiv 2404.00456, section 4).
//
// Orthonormal, in natural order, over the largest power-of-two blocks that divide the head size
// (128: one block of 128; 96: three of 32). It is its own inverse, up to rounding. fp32; sums in a
// fixed order, so every machine gives the same bits.
#pragma once

#include <cstdint>

#include "proto/kv_shape.h"

namespace kedge::codec {

// The largest power of two that divides head_size.
constexpr int64_t HadamardBlock(int64_t head_size) { return head_size & -head_size; }

// In place; x is [rows][head_size].
void Hadamard(int64_t rows, int64_t head_size, float* x);

// On the GPU, for codecs that then read or have written f32: a part's heads turned back and
// transformed; transformed, turned and written. Device memory, as KiviEncodeCuda's; `out` and `in`
// are [tokens][heads * head_size]. Head size even.
void HadamardReadCuda(DType dtype, const void* data, const float* cos, const float* sin,
                      int64_t tokens, int64_t heads, int64_t head_size, float* out, void* stream);
void HadamardWriteCuda(const float* in, DType dtype, uint8_t* const* rows, const float* cos,
                       const float* sin, int64_t tokens, int64_t heads, int64_t head_size,
                       int64_t skip, void* stream);

}  // namespace kedge::codec
