// One thread a pair of a head's halves: both numbers are read, corrected, turned and written once.
#include <cuda_runtime.h>

#include "gpu/kernels/load_float.cuh"
#include "gpu/offset/kv_rows.h"

namespace kedge::offset {
namespace {

constexpr int kThreads = 256;

// As kernels::CastFromFloat: what is too large for f16 becomes infinity.
__device__ void Store(DType dtype, uint8_t* row, int64_t channel, float value) {
  if (dtype == DType::kF32) {
    reinterpret_cast<float*>(row)[channel] = value;
  } else if (dtype == DType::kF16) {
    reinterpret_cast<__half*>(row)[channel] = __float2half_rn(value);
  } else {
    reinterpret_cast<__nv_bfloat16*>(row)[channel] = __float2bfloat16_rn(value);
  }
}

__device__ float Corrected(const PlaceRowsArgs& args, int64_t at) {
  const float base = kernels::LoadFloat(args.dtype, args.base, at);
  return args.offset == nullptr ? base : __fadd_rn(base, args.offset[at]);
}

__global__ void PlaceKernel(PlaceRowsArgs args, int64_t pairs) {
  const int64_t pair = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (pair >= pairs) return;
  const int64_t half = args.head_size / 2;
  const int64_t i = pair % half;
  const int64_t token = pair / half / args.heads;
  const int64_t low = pair / half % args.heads * args.head_size + i;
  const int64_t row = token * args.heads * args.head_size;
  float a = Corrected(args, row + low);
  float b = Corrected(args, row + low + half);
  if (args.cos != nullptr) {
    const float c = args.cos[token * half + i];
    const float s = args.sin[token * half + i];
    const float turned = __fsub_rn(__fmul_rn(a, c), __fmul_rn(b, s));
    b = __fadd_rn(__fmul_rn(b, c), __fmul_rn(a, s));
    a = turned;
  }
  Store(args.dtype, args.rows[token], low, a);
  Store(args.dtype, args.rows[token], low + half, b);
}

}  // namespace

void PlaceRowsCuda(const PlaceRowsArgs& args, void* stream) {
  const int64_t pairs = args.tokens * args.heads * (args.head_size / 2);
  if (pairs <= 0) return;
  PlaceKernel<<<static_cast<unsigned>((pairs + kThreads - 1) / kThreads), kThreads, 0,
                static_cast<cudaStream_t>(stream)>>>(args, pairs);
}

}  // namespace kedge::offset
