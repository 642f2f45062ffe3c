// One block a row; the sum of squares is folded in shared memory in a fixed order.
#include <cuda_runtime.h>

#include "gpu/kernels/rmsnorm.h"

namespace kedge::kernels {
namespace {

constexpr int kThreads = 256;

__global__ void RmsNormKernel(const float* x, const float* weight, float epsilon, int64_t width,
                              float* y) {
  __shared__ float sums[kThreads];
  const float* row = x + static_cast<int64_t>(blockIdx.x) * width;
  float* out = y + static_cast<int64_t>(blockIdx.x) * width;
  float sum = 0.0f;
  for (int64_t i = threadIdx.x; i < width; i += kThreads) sum = fmaf(row[i], row[i], sum);
  sums[threadIdx.x] = sum;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    __syncthreads();
  }
  const float scale = 1.0f / sqrtf(sums[0] / static_cast<float>(width) + epsilon);
  for (int64_t i = threadIdx.x; i < width; i += kThreads) out[i] = row[i] * scale * weight[i];
}

}  // namespace

void RmsNormCuda(const float* x, const float* weight, float epsilon, int64_t rows, int64_t width,
                 float* y, void* stream) {
  if (rows <= 0) return;
  RmsNormKernel<<<static_cast<unsigned>(rows), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      x, weight, epsilon, width, y);
}

}  // namespace kedge::kernels
