// Reads one value of a storage type as fp32, on the GPU.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "proto/kv_shape.h"

namespace kedge::kernels {

__device__ inline float LoadFloat(DType dtype, const void* source, int64_t index) {
  if (dtype == DType::kF32) return static_cast<const float*>(source)[index];
  if (dtype == DType::kF16) return __half2float(static_cast<const __half*>(source)[index]);
  return __bfloat162float(static_cast<const __nv_bfloat16*>(source)[index]);
}

}  // namespace kedge::kernels
