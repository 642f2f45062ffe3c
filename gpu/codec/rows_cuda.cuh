// Reading and writing a part's values on the GPU, turned as part_rows.h says: each product and sum
// rounded apart, so that the bits are the CPU's.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "gpu/codec/part_rows.h"
#include "gpu/kernels/load_float.cuh"
#include "proto/kv_shape.h"

namespace kedge::codec {

inline constexpr int kThreads = 256;

inline unsigned BlocksFor(int64_t count) {
  return static_cast<unsigned>((count + kThreads - 1) / kThreads);
}

__device__ inline int64_t ThreadIndex() {
  return static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
}

// One value of a row, turned back. `channel` counts through all heads.
__device__ inline float ReadTurned(DType dtype, const void* data, const float* cos,
                                   const float* sin, int64_t token, int64_t channel,
                                   int64_t channels, int64_t head_size) {
  const float x = kernels::LoadFloat(dtype, data, token * channels + channel);
  if (cos == nullptr) return x;
  const int64_t half = head_size / 2;
  const int64_t in_head = channel % head_size;
  const bool low = in_head < half;
  const int64_t other = low ? channel + half : channel - half;
  const float y = kernels::LoadFloat(dtype, data, token * channels + other);
  const int64_t angle = token * half + in_head % half;
  const float along = __fmul_rn(x, cos[angle]);
  const float across = __fmul_rn(y, sin[angle]);
  return low ? __fadd_rn(along, across) : __fsub_rn(along, across);
}

__device__ inline void StoreValue(DType dtype, uint8_t* row, int64_t channel, float value) {
  if (dtype == DType::kF32) {
    reinterpret_cast<float*>(row)[channel] = value;
  } else if (dtype == DType::kF16) {
    value = fminf(fmaxf(value, -kF16Max), kF16Max);
    reinterpret_cast<__half*>(row)[channel] = __float2half_rn(value);
  } else {
    reinterpret_cast<__nv_bfloat16*>(row)[channel] = __float2bfloat16_rn(value);
  }
}

// `value(channel)` gives decoded values; `pair` counts pairs of a head's halves in all rows.
template <class Value>
__device__ inline void WriteTurned(DType dtype, uint8_t* const* rows, const float* cos,
                                   const float* sin, int64_t token, int64_t pair, int64_t head_size,
                                   const Value& value) {
  const int64_t half = head_size / 2;
  const int64_t low = pair / half * head_size + pair % half;
  float a = value(low);
  float b = value(low + half);
  if (cos != nullptr) {
    const float c = cos[token * half + pair % half];
    const float s = sin[token * half + pair % half];
    const float turned = __fsub_rn(__fmul_rn(a, c), __fmul_rn(b, s));
    b = __fadd_rn(__fmul_rn(b, c), __fmul_rn(a, s));
    a = turned;
  }
  StoreValue(dtype, rows[token], low, a);
  StoreValue(dtype, rows[token], low + half, b);
}

}  // namespace kedge::codec
