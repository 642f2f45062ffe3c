// into = kept * into + added * from, with vectors: what mixing consists of.
//
// Each number is two products and a sum, each rounded by itself: the file is compiled without fused
// multiply-add, so that every instruction set, and with it every node and client, gets the same
// bits. The CUDA twin is written to give them too.
#pragma once

#include <cstdint>

namespace kedge::offset {

// Rows do not overlap, or are the same.
void BlendRow(float kept, float added, const float* from, int64_t count, float* into);

// Many rows at once, each with factors of its own: from and into are [rows][width], kept and added
// [rows]; all device memory. Queued on `stream` (a cudaStream_t).
void BlendRowsCuda(const float* kept, const float* added, const float* from, int64_t rows,
                   int64_t width, float* into, void* stream);

}  // namespace kedge::offset
