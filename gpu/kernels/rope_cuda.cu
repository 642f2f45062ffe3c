// One thread a pair of values.
#include <cuda_runtime.h>

#include "gpu/kernels/rope.h"

namespace kedge::kernels {
namespace {

constexpr int kThreads = 256;

__global__ void RopeKernel(const float* cos, const float* sin, int64_t pairs, int64_t heads,
                           int64_t half, int64_t row_stride, float* x) {
  const int64_t pair = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (pair >= pairs) return;
  const int64_t i = pair % half;
  const int64_t head = pair / half % heads;
  const int64_t row = pair / half / heads;
  const float c = cos[row * half + i];
  const float s = sin[row * half + i];
  float* low = x + row * row_stride + head * 2 * half + i;
  float* high = low + half;
  const float a = *low;
  const float b = *high;
  *low = a * c - b * s;
  *high = b * c + a * s;
}

}  // namespace

void RopeCuda(const float* cos, const float* sin, int64_t rows, int64_t heads, int64_t head_size,
              int64_t row_stride, float* x, void* stream) {
  const int64_t pairs = rows * heads * (head_size / 2);
  if (pairs <= 0) return;
  const unsigned blocks = static_cast<unsigned>((pairs + kThreads - 1) / kThreads);
  RopeKernel<<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      cos, sin, pairs, heads, head_size / 2, row_stride, x);
}

}  // namespace kedge::kernels
