// One thread a value.
#include <cuda_runtime.h>

#include "gpu/kernels/cast.h"
#include "gpu/kernels/load_float.cuh"

namespace kedge::kernels {
namespace {

constexpr int kThreads = 256;

__global__ void ToFloatKernel(DType dtype, const void* source, int64_t count, float* target) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count) target[i] = LoadFloat(dtype, source, i);
}

__global__ void FromFloatKernel(DType dtype, const float* source, int64_t count, void* target) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  if (dtype == DType::kF32) {
    static_cast<float*>(target)[i] = source[i];
  } else if (dtype == DType::kF16) {
    static_cast<__half*>(target)[i] = __float2half_rn(source[i]);
  } else {
    static_cast<__nv_bfloat16*>(target)[i] = __float2bfloat16_rn(source[i]);
  }
}

unsigned Blocks(int64_t count) { return static_cast<unsigned>((count + kThreads - 1) / kThreads); }

}  // namespace

void CastToFloatCuda(DType dtype, const void* source, int64_t count, float* target, void* stream) {
  if (count <= 0) return;
  ToFloatKernel<<<Blocks(count), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(dtype, source,
                                                                                   count, target);
}

void CastFromFloatCuda(DType dtype, const float* source, int64_t count, void* target,
                       void* stream) {
  if (count <= 0) return;
  FromFloatKernel<<<Blocks(count), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(dtype, source,
                                                                                     count, target);
}

}  // namespace kedge::kernels
