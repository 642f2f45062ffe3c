// Encoding: one thread a group. Decoding: one thread a pair of a head's halves (head size even).
#include <cuda_runtime.h>

#include "gpu/codec/kivi.h"
#include "gpu/codec/rows_cuda.cuh"

namespace kedge::codec {
namespace {

__global__ void EncodeKernel(KiviLayout layout, int64_t groups, DType dtype, const void* data,
                             const float* cos, const float* sin, int64_t skip, uint8_t* out,
                             int* bad) {
  const int64_t index = ThreadIndex();
  if (index >= groups) return;
  const int64_t channels = layout.heads * layout.head_size;
  const bool over_tokens = layout.axis == GroupAxis::kTokens;
  const int64_t per_row = over_tokens ? channels : channels / layout.group;
  const int64_t row = index / per_row;
  const int64_t column = index % per_row;
  const auto token_of = [&](int64_t j) { return over_tokens ? row * layout.group + j : row; };
  const auto read = [&](int64_t j) {
    const int64_t channel = over_tokens ? column : column * layout.group + j;
    return ReadTurned(dtype, data, cos, sin, token_of(j), channel, channels, layout.head_size);
  };
  float lowest = INFINITY;
  float highest = -INFINITY;
  for (int64_t j = 0; j < layout.group; ++j) {
    if (token_of(j) < skip) continue;
    const float x = read(j);
    if (!(fabsf(x) <= kF16Max)) *bad = 1;
    lowest = fminf(lowest, x);
    highest = fmaxf(highest, x);
  }
  const float levels = static_cast<float>((1 << layout.bits) - 1);
  float minimum = 0.0f;
  float inverse = 0.0f;
  __half minimum16 = __float2half_rn(0.0f);
  __half scale16 = minimum16;
  if (lowest <= highest) {
    minimum16 = __float2half_rn(__fadd_rn(lowest, 0.0f));
    minimum = __half2float(minimum16);
    const float range = __fadd_rn(fmaxf(__fsub_rn(highest, minimum), 0.0f), 0.0f);
    scale16 = __float2half_rn(__fdiv_rn(range, levels));
    const float scale = __half2float(scale16);
    if (scale > 0.0f) inverse = __fdiv_rn(1.0f, scale);
  }
  reinterpret_cast<__half*>(out)[index] = scale16;
  reinterpret_cast<__half*>(out)[groups + index] = minimum16;

  const int64_t per_word = 32 / layout.bits;
  auto* words = reinterpret_cast<uint32_t*>(out + groups * 4);
  const int64_t group_words = layout.group / per_word;
  for (int64_t w = 0; w < group_words; ++w) {
    uint32_t word = 0;
    for (int64_t j = 0; j < per_word; ++j) {
      if (token_of(w * per_word + j) < skip) continue;
      const float steps = __fmul_rn(__fsub_rn(read(w * per_word + j), minimum), inverse);
      const auto code = static_cast<uint32_t>(__float2int_rn(fminf(fmaxf(steps, 0.0f), levels)));
      word |= code << (j * layout.bits);
    }
    const int64_t at =
        over_tokens ? (row * group_words + w) * channels + column : index * group_words + w;
    words[at] = word;
  }
}

__global__ void DecodeKernel(KiviLayout layout, int64_t groups, const uint8_t* in, DType dtype,
                             uint8_t* const* rows, const float* cos, const float* sin,
                             int64_t skip) {
  const int64_t channels = layout.heads * layout.head_size;
  const int64_t index = ThreadIndex();
  const int64_t token = index / (channels / 2);
  if (token >= layout.tokens || token < skip) return;
  const int64_t per_word = 32 / layout.bits;
  const bool over_tokens = layout.axis == GroupAxis::kTokens;
  const auto* halves = reinterpret_cast<const __half*>(in);
  const auto* words = reinterpret_cast<const uint32_t*>(in + groups * 4);
  const uint32_t mask = (1u << layout.bits) - 1;
  const auto value = [&](int64_t channel) {
    const int64_t group = over_tokens ? token / layout.group * channels + channel
                                      : token * (channels / layout.group) + channel / layout.group;
    const int64_t word = over_tokens ? token / per_word * channels + channel
                                     : token * (channels / per_word) + channel / per_word;
    const int shift = static_cast<int>((over_tokens ? token : channel) % per_word) * layout.bits;
    const float code = static_cast<float>(words[word] >> shift & mask);
    return __fmaf_rn(code, __half2float(halves[group]), __half2float(halves[groups + group]));
  };
  WriteTurned(dtype, rows, cos, sin, token, index % (channels / 2), layout.head_size, value);
}

}  // namespace

void KiviEncodeCuda(const KiviLayout& layout, DType dtype, const void* data, const float* cos,
                    const float* sin, int64_t skip, uint8_t* out, int* bad, void* stream) {
  EncodeKernel<<<BlocksFor(layout.groups()), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      layout, layout.groups(), dtype, data, cos, sin, skip, out, bad);
}

void KiviDecodeCuda(const KiviLayout& layout, const uint8_t* in, DType dtype, uint8_t* const* rows,
                    const float* cos, const float* sin, int64_t skip, void* stream) {
  const int64_t pairs = layout.tokens * layout.channels() / 2;
  DecodeKernel<<<BlocksFor(pairs), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      layout, layout.groups(), in, dtype, rows, cos, sin, skip);
}

}  // namespace kedge::codec
