// One block of threads a head of a token; the head lies in shared memory.
#include <cuda_runtime.h>

#include <cmath>

#include "gpu/codec/hadamard.h"
#include "gpu/codec/rows_cuda.cuh"

namespace kedge::codec {
namespace {

// In the order of hadamard.cc: each sum has the same two operands.
__device__ void Transform(float* x, int64_t size, int64_t block, float norm) {
  for (int64_t step = 1; step < block; step *= 2) {
    __syncthreads();
    for (int64_t pair = threadIdx.x; pair < size / 2; pair += blockDim.x) {
      const int64_t low = pair / step * 2 * step + pair % step;
      const float a = x[low];
      const float b = x[low + step];
      x[low] = __fadd_rn(a, b);
      x[low + step] = __fsub_rn(a, b);
    }
  }
  __syncthreads();
  for (int64_t i = threadIdx.x; i < size; i += blockDim.x) x[i] = __fmul_rn(x[i], norm);
  __syncthreads();
}

__global__ void ReadKernel(DType dtype, const void* data, const float* cos, const float* sin,
                           int64_t heads, int64_t size, int64_t block, float norm, float* out) {
  extern __shared__ float x[];
  const int64_t token = blockIdx.x / heads;
  const int64_t first = blockIdx.x % heads * size;
  for (int64_t i = threadIdx.x; i < size; i += blockDim.x)
    x[i] = ReadTurned(dtype, data, cos, sin, token, first + i, heads * size, size);
  Transform(x, size, block, norm);
  for (int64_t i = threadIdx.x; i < size; i += blockDim.x)
    out[token * heads * size + first + i] = x[i];
}

__global__ void WriteKernel(const float* in, DType dtype, uint8_t* const* rows, const float* cos,
                            const float* sin, int64_t heads, int64_t size, int64_t block,
                            float norm, int64_t skip) {
  extern __shared__ float x[];
  const int64_t token = blockIdx.x / heads;
  const int64_t head = blockIdx.x % heads;
  if (token < skip) return;
  for (int64_t i = threadIdx.x; i < size; i += blockDim.x)
    x[i] = in[(token * heads + head) * size + i];
  Transform(x, size, block, norm);
  const auto value = [&](int64_t channel) { return x[channel - head * size]; };
  for (int64_t pair = threadIdx.x; pair < size / 2; pair += blockDim.x)
    WriteTurned(dtype, rows, cos, sin, token, head * (size / 2) + pair, size, value);
}

float NormOf(int64_t block) { return 1.0f / std::sqrt(static_cast<float>(block)); }

}  // namespace

void HadamardReadCuda(DType dtype, const void* data, const float* cos, const float* sin,
                      int64_t tokens, int64_t heads, int64_t head_size, float* out, void* stream) {
  const int64_t block = HadamardBlock(head_size);
  ReadKernel<<<static_cast<unsigned>(tokens * heads), 64, head_size * sizeof(float),
               static_cast<cudaStream_t>(stream)>>>(dtype, data, cos, sin, heads, head_size, block,
                                                    NormOf(block), out);
}

void HadamardWriteCuda(const float* in, DType dtype, uint8_t* const* rows, const float* cos,
                       const float* sin, int64_t tokens, int64_t heads, int64_t head_size,
                       int64_t skip, void* stream) {
  const int64_t block = HadamardBlock(head_size);
  WriteKernel<<<static_cast<unsigned>(tokens * heads), 64, head_size * sizeof(float),
                static_cast<cudaStream_t>(stream)>>>(in, dtype, rows, cos, sin, heads, head_size,
                                                     block, NormOf(block), skip);
}

}  // namespace kedge::codec
