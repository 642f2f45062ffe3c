// A filling's sketch: what a node compares fillings by, small enough to travel with each request.
//
// For each token the V of layer 1, the first that depends on context, of the filling's base KV,
// multiplied by a fixed random matrix to 16 numbers (Johnson and Lindenstrauss: distances stay, to
// about a quarter). KVCOMM's code compares the base KV of all layers instead: 2 * layers * width
// numbers a token.
#pragma once

#include <cstdint>
#include <vector>

#include "gpu/offset/kv_rows.h"

namespace kedge::offset {

inline constexpr int64_t kSketchSize = 16;

struct Sketch {
  int64_t tokens = 0;
  std::vector<float> values;  // [tokens][kSketchSize]
};

// [width][kSketchSize], of 1/4 and -1/4; on every machine the same.
std::vector<float> SketchMatrix(int64_t width);

// Layer 1 where there is one, else layer 0. The matrix depends on the width alone; on every machine
// the same bits.
Sketch SketchOf(const KvRows& base);
// The twin: `values` are that layer's [tokens][width], `sketch` becomes [tokens][kSketchSize]; all
// device memory, `matrix` SketchMatrix(width). Queued on `stream` (a cudaStream_t). The same bits:
// products with 1/4 are exact, and each sum is taken in the same order.
void SketchCuda(const float* values, const float* matrix, int64_t tokens, int64_t width,
                float* sketch, void* stream);

// Euclidean, mean over the first `tokens` tokens; `token` alone for one of them. Aborts when either
// is shorter.
double Distance(const Sketch& a, const Sketch& b, int64_t tokens);
double TokenDistance(const Sketch& a, const Sketch& b, int64_t token);

}  // namespace kedge::offset
