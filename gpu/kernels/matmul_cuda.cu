// One thread an output, operands through shared memory. Each output has one accumulator and k
// ascends, so a row's bits do not depend on the other rows, as in the CPU's specification.
#include <cuda_runtime.h>

#include "gpu/kernels/matmul.h"

namespace kedge::kernels {
namespace {

constexpr int kTile = 16;

__global__ void MatMulKernel(const float* x, const float* weights, const float* bias,
                             const float* residual, float* y, int64_t rows, int64_t inputs,
                             int64_t outputs) {
  __shared__ float x_tile[kTile][kTile + 1];
  __shared__ float w_tile[kTile][kTile + 1];
  const int64_t row = static_cast<int64_t>(blockIdx.y) * kTile + threadIdx.y;
  const int64_t output = static_cast<int64_t>(blockIdx.x) * kTile + threadIdx.x;
  // The weight row that this thread brings in is not the one of its own output.
  const int64_t w_row = static_cast<int64_t>(blockIdx.x) * kTile + threadIdx.y;
  float sum = 0.0f;
  for (int64_t k0 = 0; k0 < inputs; k0 += kTile) {
    const int64_t k = k0 + threadIdx.x;
    const bool inside = k < inputs;
    x_tile[threadIdx.y][threadIdx.x] = inside && row < rows ? x[row * inputs + k] : 0.0f;
    w_tile[threadIdx.y][threadIdx.x] =
        inside && w_row < outputs ? weights[w_row * inputs + k] : 0.0f;
    __syncthreads();
    const int count = static_cast<int>(min(static_cast<int64_t>(kTile), inputs - k0));
    for (int i = 0; i < count; ++i) {
      sum = fmaf(x_tile[threadIdx.y][i], w_tile[threadIdx.x][i], sum);
    }
    __syncthreads();
  }
  if (row >= rows || output >= outputs) return;
  if (bias != nullptr) sum += bias[output];
  if (residual != nullptr) sum += residual[row * outputs + output];
  y[row * outputs + output] = sum;
}

}  // namespace

void MatMulCuda(const float* x, const float* weights, const float* bias, const float* residual,
                float* y, int64_t rows, int64_t inputs, int64_t outputs, void* stream) {
  if (rows <= 0 || outputs <= 0) return;
  const dim3 threads(kTile, kTile);
  const dim3 blocks(static_cast<unsigned>((outputs + kTile - 1) / kTile),
                    static_cast<unsigned>((rows + kTile - 1) / kTile));
  MatMulKernel<<<blocks, threads, 0, static_cast<cudaStream_t>(stream)>>>(
      x, weights, bias, residual, y, rows, inputs, outputs);
}

}  // namespace kedge::kernels
