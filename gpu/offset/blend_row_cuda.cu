// One thread a number.
#include <cuda_runtime.h>

#include "gpu/offset/blend_row.h"

namespace kedge::offset {
namespace {

constexpr int kThreads = 256;

__global__ void BlendKernel(const float* kept, const float* added, const float* from, int64_t count,
                            int64_t width, float* into) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  const int64_t row = i / width;
  into[i] = __fadd_rn(__fmul_rn(kept[row], into[i]), __fmul_rn(added[row], from[i]));
}

}  // namespace

void BlendRowsCuda(const float* kept, const float* added, const float* from, int64_t rows,
                   int64_t width, float* into, void* stream) {
  const int64_t count = rows * width;
  if (count <= 0) return;
  BlendKernel<<<static_cast<unsigned>((count + kThreads - 1) / kThreads), kThreads, 0,
                static_cast<cudaStream_t>(stream)>>>(kept, added, from, count, width, into);
}

}  // namespace kedge::offset
