// One block a tile of keys of a query head, one thread a key: it adds the rows in ascending order.
#include <cuda_runtime.h>

#include "gpu/kernels/column_mass.h"
#include "gpu/kernels/load_float.cuh"

namespace kedge::kernels {
namespace {

constexpr int kThreads = 128;

__global__ void ColumnMassKernel(AttentionArgs args, int64_t first_row, int64_t stride,
                                 float* mass) {
  const int64_t key = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int64_t head = blockIdx.y;
  if (key >= args.first_position + args.rows) return;
  const int64_t kv_head = head / (args.heads / args.kv_heads);
  const int64_t key_at = (key * args.kv_heads + kv_head) * args.head_size;
  float sum = mass[head * stride + key];
  for (int64_t row = first_row; row < args.rows; ++row) {
    if (key > args.first_position + row) continue;
    const float* q = args.q + row * args.q_stride + head * args.head_size;
    float score = 0.0f;
    for (int64_t i = 0; i < args.head_size; ++i)
      score = fmaf(q[i] * args.scale, LoadFloat(args.kv_dtype, args.k, key_at + i), score);
    sum += expf(score - args.log_sum_exp[row * args.heads + head]);
  }
  mass[head * stride + key] = sum;
}

}  // namespace

void ColumnMassCuda(const AttentionArgs& args, int64_t first_row, int64_t stride, float* mass,
                    void* stream) {
  if (first_row >= args.rows) return;
  const int64_t keys = args.first_position + args.rows;
  const dim3 blocks(static_cast<unsigned>((keys + kThreads - 1) / kThreads),
                    static_cast<unsigned>(args.heads));
  ColumnMassKernel<<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(args, first_row,
                                                                               stride, mass);
}

}  // namespace kedge::kernels
