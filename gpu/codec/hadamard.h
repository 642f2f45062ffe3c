// The Walsh-Hadamard transform of each head: it spreads a channel's outliers over all channels, so
// that few bits lose less (QuaRot, arXiv 2404.00456, section 4).
//
// Orthonormal, in natural order, over the largest power-of-two blocks that divide the head size
// (128: one block of 128; 96: three of 32). It is its own inverse, up to rounding. fp32; sums in a
// fixed order, so every machine gives the same bits.
#pragma once

#include <cstdint>

namespace kedge::codec {

// The largest power of two that divides head_size.
int64_t HadamardBlock(int64_t head_size);

// In place; x is [rows][head_size].
void Hadamard(int64_t rows, int64_t head_size, float* x);

}  // namespace kedge::codec
