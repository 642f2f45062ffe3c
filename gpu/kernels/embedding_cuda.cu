// One block a row.
#include <cuda_runtime.h>

#include "gpu/kernels/embedding.h"

namespace kedge::kernels {
namespace {

constexpr int kThreads = 256;

__global__ void EmbeddingKernel(const float* table, const int32_t* tokens, int64_t width,
                                float* out) {
  const int64_t row = blockIdx.x;
  const float* from = table + static_cast<int64_t>(tokens[row]) * width;
  for (int64_t i = threadIdx.x; i < width; i += kThreads) out[row * width + i] = from[i];
}

}  // namespace

void EmbeddingCuda(const float* table, const int32_t* tokens, int64_t rows, int64_t width,
                   float* out, void* stream) {
  if (rows <= 0) return;
  EmbeddingKernel<<<static_cast<unsigned>(rows), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      table, tokens, width, out);
}

}  // namespace kedge::kernels
