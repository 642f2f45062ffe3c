// Conversion between fp32 and the storage types of weights and KV: f32, f16, bf16.
//
// To fp32 is exact. From fp32 rounds to nearest, ties to even; what is too large for f16 becomes
// infinity, and NaN stays NaN. Shapes do not matter: `count` elements, tightly packed, any
// alignment. Any other DType aborts: callers have checked with IsFloatDType.
// The CUDA twin agrees bit for bit, but for the payload of NaNs.
#pragma once

#include <cstdint>

#include "proto/kv_shape.h"

namespace kedge::kernels {

inline bool IsFloatDType(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBf16;
}

// Bytes of one element of a float type.
inline int64_t FloatBytes(DType dtype) { return dtype == DType::kF32 ? 4 : 2; }

void CastToFloat(DType dtype, const void* source, int64_t count, float* target);
void CastFromFloat(DType dtype, const float* source, int64_t count, void* target);

void CastToFloatCuda(DType dtype, const void* source, int64_t count, float* target, void* stream);
void CastFromFloatCuda(DType dtype, const float* source, int64_t count, void* target, void* stream);

}  // namespace kedge::kernels
