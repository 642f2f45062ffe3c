// One warp a row.
#include <cuda_runtime.h>

#include "gpu/kernels/load_float.cuh"
#include "gpu/kernels/value_deviation.h"

namespace kedge::kernels {
namespace {

constexpr int kLanes = 32;
constexpr int kRowsOfBlock = 8;

// As the cache would have it.
__device__ float Rounded(DType dtype, float value) {
  if (dtype == DType::kF16) return __half2float(__float2half_rn(value));
  if (dtype == DType::kBf16) return __bfloat162float(__float2bfloat16_rn(value));
  return value;
}

__global__ void ValueDeviationKernel(ValueDeviationArgs args) {
  const int64_t row = int64_t{blockIdx.x} * kRowsOfBlock + threadIdx.y;
  if (row >= args.rows) return;  // a whole warp
  const float* fresh = args.fresh + row * args.fresh_stride;
  const int64_t cached = args.positions[row] * args.width;
  float sum = 0.0f;
  for (int64_t i = threadIdx.x; i < args.width; i += kLanes) {
    const float there = LoadFloat(args.dtype, args.cached, cached + i);
    sum += fabsf(Rounded(args.dtype, fresh[i]) - there);
  }
  for (int step = kLanes / 2; step > 0; step /= 2) sum += __shfl_down_sync(~0u, sum, step);
  if (threadIdx.x == 0) args.deviation[row] = sum;
}

}  // namespace

void ValueDeviationCuda(const ValueDeviationArgs& args, void* stream) {
  if (args.rows <= 0) return;
  const auto blocks = static_cast<unsigned>((args.rows + kRowsOfBlock - 1) / kRowsOfBlock);
  ValueDeviationKernel<<<blocks, dim3(kLanes, kRowsOfBlock), 0,
                         static_cast<cudaStream_t>(stream)>>>(args);
}

}  // namespace kedge::kernels
