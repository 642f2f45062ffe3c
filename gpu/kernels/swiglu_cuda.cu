// One thread a value.
#include <cuda_runtime.h>

#include "gpu/kernels/swiglu.h"

namespace kedge::kernels {
namespace {

constexpr int kThreads = 256;

__global__ void SwiGluKernel(const float* gate_up, int64_t values, int64_t width, float* y) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= values) return;
  const float* row = gate_up + at / width * 2 * width;
  const float gate = row[at % width];
  const float up = row[width + at % width];
  y[at] = gate / (1.0f + expf(-fmaxf(gate, -80.0f))) * up;
}

}  // namespace

void SwiGluCuda(const float* gate_up, int64_t rows, int64_t width, float* y, void* stream) {
  const int64_t values = rows * width;
  if (values <= 0) return;
  const unsigned blocks = static_cast<unsigned>((values + kThreads - 1) / kThreads);
  SwiGluKernel<<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(gate_up, values, width,
                                                                           y);
}

}  // namespace kedge::kernels
