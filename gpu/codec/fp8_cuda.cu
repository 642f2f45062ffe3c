// One thread a value for the largest and for encoding, one a pair for decoding (head size even).
#include <cuda_runtime.h>

#include "gpu/codec/fp8.h"
#include "gpu/codec/rows_cuda.cuh"

namespace kedge::codec {
namespace {

__device__ uint8_t ToE4m3(float value) {
  const uint32_t bits = __float_as_uint(value);
  const uint32_t sign = bits >> 24 & 0x80;
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude < 0x3c800000) {
    const float steps = __fmul_rn(__uint_as_float(magnitude), 512.0f);
    return static_cast<uint8_t>(sign | static_cast<uint32_t>(__float2int_rn(steps)));
  }
  const uint32_t rounded = magnitude + 0x7ffff + (magnitude >> 20 & 1);
  return static_cast<uint8_t>(sign | (rounded - 0x3c000000) >> 20);
}

__device__ float FromE4m3(uint8_t code) {
  const uint32_t magnitude = static_cast<uint32_t>(code & 0x7f) << 20;
  const float value = __fmul_rn(__uint_as_float(magnitude), 0x1p120f);
  return (code & 0x80) != 0 ? -value : value;
}

// The largest |x| goes to *scale: floats that are not negative are ordered as their bits.
__global__ void LargestKernel(Fp8Layout layout, DType dtype, const void* data, const float* cos,
                              const float* sin, int64_t skip, float* scale, int* bad) {
  const int64_t channels = layout.heads * layout.head_size;
  const int64_t index = ThreadIndex();
  const int64_t token = index / channels;
  if (token >= layout.tokens || token < skip) return;
  const float x =
      fabsf(ReadTurned(dtype, data, cos, sin, token, index % channels, channels, layout.head_size));
  if (x <= kF16Max) {
    atomicMax(reinterpret_cast<unsigned*>(scale), __float_as_uint(x));
  } else {
    *bad = 1;
  }
}

__global__ void DivideKernel(float* scale) { *scale = __fdiv_rn(*scale, kE4m3Max); }

__global__ void EncodeKernel(Fp8Layout layout, DType dtype, const void* data, const float* cos,
                             const float* sin, int64_t skip, const float* scale, uint8_t* out) {
  const int64_t channels = layout.heads * layout.head_size;
  const int64_t index = ThreadIndex();
  const int64_t token = index / channels;
  if (token >= layout.tokens) return;
  if (token < skip) {
    out[index] = 0;
    return;
  }
  const float inverse = *scale > 0.0f ? __fdiv_rn(1.0f, *scale) : 0.0f;
  const float x =
      ReadTurned(dtype, data, cos, sin, token, index % channels, channels, layout.head_size);
  out[index] = ToE4m3(fminf(fmaxf(__fmul_rn(x, inverse), -kE4m3Max), kE4m3Max));
}

__global__ void DecodeKernel(Fp8Layout layout, const float* scale, const uint8_t* in, DType dtype,
                             uint8_t* const* rows, const float* cos, const float* sin,
                             int64_t skip) {
  const int64_t channels = layout.heads * layout.head_size;
  const int64_t index = ThreadIndex();
  const int64_t token = index / (channels / 2);
  if (token >= layout.tokens || token < skip) return;
  const auto value = [&](int64_t channel) {
    return __fmul_rn(FromE4m3(in[token * channels + channel]), *scale);
  };
  WriteTurned(dtype, rows, cos, sin, token, index % (channels / 2), layout.head_size, value);
}

}  // namespace

void Fp8EncodeCuda(const Fp8Layout& layout, DType dtype, const void* data, const float* cos,
                   const float* sin, int64_t skip, float* scale, uint8_t* out, int* bad,
                   void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  const unsigned blocks = BlocksFor(layout.bytes());
  LargestKernel<<<blocks, kThreads, 0, on>>>(layout, dtype, data, cos, sin, skip, scale, bad);
  DivideKernel<<<1, 1, 0, on>>>(scale);
  EncodeKernel<<<blocks, kThreads, 0, on>>>(layout, dtype, data, cos, sin, skip, scale, out);
}

void Fp8DecodeCuda(const Fp8Layout& layout, const float* scale, const uint8_t* in, DType dtype,
                   uint8_t* const* rows, const float* cos, const float* sin, int64_t skip,
                   void* stream) {
  DecodeKernel<<<BlocksFor(layout.bytes() / 2), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      layout, scale, in, dtype, rows, cos, sin, skip);
}

}  // namespace kedge::codec
