// into = kept * into + added * from, with vectors: what mixing consists of.
//
// Each number is two products and a sum, each rounded by itself: the file is compiled without fused
// multiply-add, so that every instruction set, and with it every node and client, gets the same
// bits.
#pragma once

#include <cstdint>

namespace kedge::offset {

// Rows do not overlap, or are the same.
void BlendRow(float kept, float added, const float* from, int64_t count, float* into);

}  // namespace kedge::offset
