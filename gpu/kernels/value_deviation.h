// How far fresh values are from those a cache holds, one number a row: what CacheBlend (arXiv
// 2405.16444, section 4) chooses the tokens by that are computed anew.
//
// For row r the sum over i of |fresh[r][i] - cached[positions[r]][i]|, in fp32, where fresh values
// have first been rounded to the cache's dtype: zero where nothing changed. The CPU adds in
// ascending order, the CUDA twin lane by lane; it agrees within 1e-5, relative.
#pragma once

#include <cstdint>

#include "proto/kv_shape.h"

namespace kedge::kernels {

struct ValueDeviationArgs {
  DType dtype = DType::kF16;           // of the cache: f32, f16 or bf16
  const float* fresh = nullptr;        // row r: `width` values from fresh + r * fresh_stride on
  int64_t fresh_stride = 0;            // in floats
  const void* cached = nullptr;        // [tokens][width]
  const int32_t* positions = nullptr;  // [rows]; each inside the cache
  int64_t rows = 0;
  int64_t width = 0;           // kv_heads * head_size
  float* deviation = nullptr;  // [rows]
};

void ValueDeviation(const ValueDeviationArgs& args);
// All pointers are device memory; queued on `stream` (a cudaStream_t).
void ValueDeviationCuda(const ValueDeviationArgs& args, void* stream);

}  // namespace kedge::kernels
