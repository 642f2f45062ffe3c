// Encoding: one thread a group; with two-level scales one block of threads a union. Decoding: one
// thread a pair of a head's halves (head size even).
#include <cuda_runtime.h>

#include "gpu/codec/kivi.h"
#include "gpu/codec/rows_cuda.cuh"

namespace kedge::codec {
namespace {

// One part as its groups see it. KiviLayout's own functions are the host's.
struct Part {
  KiviLayout layout;
  int64_t groups;
  int64_t codes_at;
  DType dtype;
  const void* data;
  const float* cos;
  const float* sin;
  int64_t skip;

  __device__ int64_t channels() const { return layout.heads * layout.head_size; }
  __device__ bool over_tokens() const { return layout.axis == GroupAxis::kTokens; }
  __device__ int64_t row(int64_t group) const { return group / per_row(); }
  __device__ int64_t column(int64_t group) const { return group % per_row(); }
  __device__ int64_t per_row() const {
    return over_tokens() ? channels() : channels() / layout.group;
  }
  __device__ int64_t token(int64_t group, int64_t j) const {
    return over_tokens() ? row(group) * layout.group + j : row(group);
  }
  __device__ float value(int64_t group, int64_t j) const {
    const int64_t channel = over_tokens() ? column(group) : column(group) * layout.group + j;
    return ReadTurned(dtype, data, cos, sin, token(group, j), channel, channels(),
                      layout.head_size);
  }
  // Word w of a group's codes.
  __device__ int64_t word(int64_t group, int64_t w) const {
    const int64_t words = layout.group * layout.bits / 32;
    if (!over_tokens()) return group * words + w;
    return (row(group) * words + w) * channels() + column(group);
  }
};

__device__ void ExtentOf(const Part& part, int64_t group, float* lowest, float* highest, int* bad) {
  *lowest = INFINITY;
  *highest = -INFINITY;
  for (int64_t j = 0; j < part.layout.group; ++j) {
    if (part.token(group, j) < part.skip) continue;
    const float x = part.value(group, j);
    if (!(fabsf(x) <= kF16Max)) *bad = 1;
    *lowest = fminf(*lowest, x);
    *highest = fmaxf(*highest, x);
  }
}

__device__ void WriteCodes(const Part& part, int64_t group, float minimum, float inverse,
                           uint32_t* words) {
  const float levels = static_cast<float>((1 << part.layout.bits) - 1);
  const int64_t per_word = 32 / part.layout.bits;
  for (int64_t w = 0; w < part.layout.group / per_word; ++w) {
    uint32_t word = 0;
    for (int64_t j = 0; j < per_word; ++j) {
      if (part.token(group, w * per_word + j) < part.skip) continue;
      const float x = part.value(group, w * per_word + j);
      const float steps = __fmul_rn(__fsub_rn(x, minimum), inverse);
      const auto code = static_cast<uint32_t>(__float2int_rn(fminf(fmaxf(steps, 0.0f), levels)));
      word |= code << (j * part.layout.bits);
    }
    words[part.word(group, w)] = word;
  }
}

__device__ float InverseOf(float scale) { return scale > 0.0f ? __fdiv_rn(1.0f, scale) : 0.0f; }

__global__ void EncodeKernel(Part part, uint8_t* out, int* bad) {
  const int64_t group = ThreadIndex();
  if (group >= part.groups) return;
  float lowest;
  float highest;
  ExtentOf(part, group, &lowest, &highest, bad);
  const float levels = static_cast<float>((1 << part.layout.bits) - 1);
  float minimum = 0.0f;
  float inverse = 0.0f;
  __half minimum16 = __float2half_rn(0.0f);
  __half scale16 = minimum16;
  if (lowest <= highest) {
    minimum16 = __float2half_rn(__fadd_rn(lowest, 0.0f));
    minimum = __half2float(minimum16);
    const float range = __fadd_rn(fmaxf(__fsub_rn(highest, minimum), 0.0f), 0.0f);
    scale16 = __float2half_rn(__fdiv_rn(range, levels));
    inverse = InverseOf(__half2float(scale16));
  }
  reinterpret_cast<__half*>(out)[group] = scale16;
  reinterpret_cast<__half*>(out)[part.groups + group] = minimum16;
  WriteCodes(part, group, minimum, inverse, reinterpret_cast<uint32_t*>(out + part.codes_at));
}

// The least f16 that is not below `value`, at least 0.
__device__ float RoundedUpToF16(float value, uint8_t* to) {
  uint16_t bits = __half_as_ushort(__float2half_rn(value));
  if (__half2float(__ushort_as_half(bits)) < value) ++bits;
  to[0] = static_cast<uint8_t>(bits);
  to[1] = static_cast<uint8_t>(bits >> 8);
  return __half2float(__ushort_as_half(bits));
}

// c * c / 2^16 and n * |n| / 2^14 of their units.
__device__ float ScaleOf(float unit, float c) {
  return __fmul_rn(unit, __fmul_rn(__fmul_rn(c, c), 0x1p-16f));
}
__device__ float MinimumOf(float unit, float n) {
  return __fmul_rn(unit, __fmul_rn(__fmul_rn(n, fabsf(n)), 0x1p-14f));
}

// Where the pieces of two-level scales begin.
struct UnionPlaces {
  int64_t minimums;
  int64_t scale_codes;
  int64_t minimum_codes;
};

// A block of threads for the groups [first, end) of one union. Floats that are not negative are
// ordered as their bits are, so the largest is found among integers.
__global__ void EncodeUnionKernel(Part part, UnionPlaces at, uint8_t* out, int* bad) {
  extern __shared__ float extents[];  // [2][head_size]
  __shared__ int largest;
  __shared__ int widest;
  __shared__ float m;
  __shared__ float s;
  const int64_t size = part.layout.head_size;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * size;
  const int64_t count = min(size, part.groups - first);
  float* lowest = extents;
  float* highest = extents + size;
  if (threadIdx.x == 0) largest = widest = 0;
  __syncthreads();
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) {
    ExtentOf(part, first + i, &lowest[i], &highest[i], bad);
    if (lowest[i] < highest[i]) atomicMax(&largest, __float_as_int(fabsf(lowest[i])));
  }
  __syncthreads();
  if (threadIdx.x == 0)
    m = RoundedUpToF16(__int_as_float(largest), out + at.minimums + blockIdx.x * 2);
  __syncthreads();
  const auto n_of = [&](int64_t i) {
    const float low = lowest[i];
    const float root = m > 0.0f ? __fmul_rn(__fsqrt_rn(__fdiv_rn(fabsf(low), m)), 128.0f) : 0.0f;
    return low < 0.0f ? fmaxf(-ceilf(root), -128.0f) : fminf(floorf(root), 127.0f);
  };
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) {
    if (!(lowest[i] < highest[i])) continue;
    const float range = __fsub_rn(highest[i], MinimumOf(m, n_of(i)));
    atomicMax(&widest, __float_as_int(fmaxf(range, 0.0f)));
  }
  __syncthreads();
  const float levels = static_cast<float>((1 << part.layout.bits) - 1);
  if (threadIdx.x == 0) {
    const float wanted = __fmul_rn(__fdiv_rn(__int_as_float(widest), levels), kKiviScaleMargin);
    s = RoundedUpToF16(wanted, out + blockIdx.x * 2);
  }
  __syncthreads();
  auto* words = reinterpret_cast<uint32_t*>(out + part.codes_at);
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) {
    float c = 0.0f;
    float n = 0.0f;
    float minimum = 0.0f;
    float inverse = 0.0f;
    uint16_t equal = 0;
    if (lowest[i] < highest[i]) {
      n = n_of(i);
      minimum = MinimumOf(m, n);
      const float wanted = __fdiv_rn(fmaxf(__fsub_rn(highest[i], minimum), 0.0f), levels);
      const float root = s > 0.0f ? __fmul_rn(__fsqrt_rn(__fdiv_rn(wanted, s)), 256.0f) : 0.0f;
      c = fminf(fmaxf(ceilf(root), 1.0f), 255.0f);
      inverse = InverseOf(ScaleOf(s, c));
    } else if (lowest[i] <= highest[i]) {
      const __half value = __float2half_rn(__fadd_rn(lowest[i], 0.0f));
      equal = __half_as_ushort(value);
      minimum = __half2float(value);
    }
    out[at.scale_codes + first + i] = static_cast<uint8_t>(c);
    out[at.minimum_codes + first + i] = static_cast<uint8_t>(static_cast<int8_t>(n));
    WriteCodes(part, first + i, minimum, inverse, words);
    words[part.word(first + i, 0)] |= equal;
  }
}

__global__ void DecodeKernel(Part part, UnionPlaces at, const uint8_t* in, uint8_t* const* rows) {
  const int64_t channels = part.channels();
  const int64_t index = ThreadIndex();
  const int64_t token = index / (channels / 2);
  const KiviLayout& layout = part.layout;
  if (token >= layout.tokens || token < part.skip) return;
  const int64_t per_word = 32 / layout.bits;
  const auto* halves = reinterpret_cast<const __half*>(in);
  const auto* words = reinterpret_cast<const uint32_t*>(in + part.codes_at);
  const uint32_t mask = (1u << layout.bits) - 1;
  const auto value = [&](int64_t channel) {
    const int64_t along = part.over_tokens() ? token : channel;
    const int64_t group = part.over_tokens()
                              ? token / layout.group * channels + channel
                              : token * (channels / layout.group) + channel / layout.group;
    const uint32_t word = words[part.word(group, along % layout.group / per_word)];
    const auto code = static_cast<float>(word >> along % per_word * layout.bits & mask);
    float scale;
    float minimum;
    if (layout.scales == GroupScales::kF16) {
      scale = __half2float(halves[group]);
      minimum = __half2float(halves[part.groups + group]);
    } else if (in[at.scale_codes + group] == 0) {
      scale = 0.0f;
      minimum = __half2float(__ushort_as_half(static_cast<uint16_t>(words[part.word(group, 0)])));
    } else {
      const int64_t index_of_union = group / layout.head_size;
      scale = ScaleOf(__half2float(halves[index_of_union]), in[at.scale_codes + group]);
      minimum = MinimumOf(__half2float(halves[at.minimums / 2 + index_of_union]),
                          static_cast<int8_t>(in[at.minimum_codes + group]));
    }
    return __fadd_rn(__fmul_rn(code, scale), minimum);
  };
  WriteTurned(part.dtype, rows, part.cos, part.sin, token, index % (channels / 2), layout.head_size,
              value);
}

UnionPlaces PlacesOf(const KiviLayout& layout) {
  return {layout.minimums_at(), layout.scale_codes_at(), layout.minimum_codes_at()};
}

}  // namespace

void KiviEncodeCuda(const KiviLayout& layout, DType dtype, const void* data, const float* cos,
                    const float* sin, int64_t skip, uint8_t* out, int* bad, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  const Part part{layout, layout.groups(), layout.codes_at(), dtype, data, cos, sin, skip};
  if (!layout.two_level()) {
    EncodeKernel<<<BlocksFor(layout.groups()), kThreads, 0, on>>>(part, out, bad);
    return;
  }
  const size_t shared = 2 * layout.head_size * sizeof(float);
  EncodeUnionKernel<<<static_cast<unsigned>(layout.unions()), kThreads, shared, on>>>(
      part, PlacesOf(layout), out, bad);
}

void KiviDecodeCuda(const KiviLayout& layout, const uint8_t* in, DType dtype, uint8_t* const* rows,
                    const float* cos, const float* sin, int64_t skip, void* stream) {
  const int64_t pairs = layout.tokens * layout.channels() / 2;
  const Part part{layout, layout.groups(), layout.codes_at(), dtype, nullptr, cos, sin, skip};
  DecodeKernel<<<BlocksFor(pairs), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      part, PlacesOf(layout), in, rows);
}

}  // namespace kedge::codec
