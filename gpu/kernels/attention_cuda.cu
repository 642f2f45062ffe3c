// One block a query head of a row; the running softmax over the key tiles of the CPU's
// specification.
#include <cuda_runtime.h>

#include "gpu/kernels/attention.h"
#include "gpu/kernels/load_float.cuh"

namespace kedge::kernels {
namespace {

constexpr int kThreads = kKeyTile;  // one thread a key of the tile

// Folds `value` of all threads in a fixed order; every thread gets the result.
template <typename Fold>
__device__ float FoldThreads(float value, float* memory, Fold fold) {
  memory[threadIdx.x] = value;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) {
      memory[threadIdx.x] = fold(memory[threadIdx.x], memory[threadIdx.x + half]);
    }
    __syncthreads();
  }
  const float result = memory[0];
  __syncthreads();
  return result;
}

__global__ void AttentionKernel(AttentionArgs args) {
  extern __shared__ float shared[];
  float* query = shared;                   // [head_size], scaled
  float* sums = query + args.head_size;    // [head_size]
  float* weights = sums + args.head_size;  // [kKeyTile]
  float* memory = weights + kKeyTile;      // [kThreads]
  const int64_t row = blockIdx.x;
  const int64_t head = blockIdx.y;
  const int64_t kv_head = head / (args.heads / args.kv_heads);
  const int64_t keys =
      (args.positions == nullptr ? args.first_position + row : args.positions[row]) + 1;
  const int64_t token_stride = args.kv_heads * args.head_size;
  const int64_t head_offset = kv_head * args.head_size;
  const uint8_t* visible =
      args.visible == nullptr ? nullptr : args.visible + row * (args.first_position + args.rows);

  for (int64_t i = threadIdx.x; i < args.head_size; i += kThreads) {
    query[i] = args.q[row * args.q_stride + head * args.head_size + i] * args.scale;
    sums[i] = 0.0f;
  }
  __syncthreads();

  float maximum = -INFINITY;
  float total = 0.0f;
  for (int64_t first_key = 0; first_key < keys; first_key += kKeyTile) {
    const int64_t key = first_key + threadIdx.x;
    float score = -INFINITY;
    const bool seen = key < keys && (visible == nullptr || visible[key] != 0);
    if (seen) {
      score = 0.0f;
      for (int64_t i = 0; i < args.head_size; ++i) {
        const float k = LoadFloat(args.kv_dtype, args.k, key * token_stride + head_offset + i);
        score = fmaf(query[i], k, score);
      }
    }
    const float tile_maximum =
        FoldThreads(score, memory, [](float a, float b) { return fmaxf(a, b); });
    const float new_maximum = fmaxf(maximum, tile_maximum);
    // 0 at the first tile; while nothing was seen yet there is nothing to shrink.
    const float shrink = maximum == new_maximum ? 1.0f : expf(maximum - new_maximum);
    const float weight = seen ? expf(score - new_maximum) : 0.0f;
    weights[threadIdx.x] = weight;
    // The fold's barriers also make all weights visible.
    total = total * shrink + FoldThreads(weight, memory, [](float a, float b) { return a + b; });
    maximum = new_maximum;
    const int64_t count = min(static_cast<int64_t>(kKeyTile), keys - first_key);
    for (int64_t i = threadIdx.x; i < args.head_size; i += kThreads) {
      float sum = sums[i] * shrink;
      for (int64_t j = 0; j < count; ++j) {
        const int64_t at = (first_key + j) * token_stride + head_offset + i;
        sum = fmaf(weights[j], LoadFloat(args.kv_dtype, args.v, at), sum);
      }
      sums[i] = sum;
    }
    __syncthreads();  // before the next tile writes `weights`
  }
  float* out = args.out + (row * args.heads + head) * args.head_size;
  for (int64_t i = threadIdx.x; i < args.head_size; i += kThreads) out[i] = sums[i] / total;
  if (args.log_sum_exp != nullptr && threadIdx.x == 0)
    args.log_sum_exp[row * args.heads + head] = maximum + logf(total);
}

}  // namespace

void AttentionCuda(const AttentionArgs& args, void* stream) {
  if (args.rows <= 0) return;
  const dim3 blocks(static_cast<unsigned>(args.rows), static_cast<unsigned>(args.heads));
  const size_t shared_bytes = (2 * args.head_size + kKeyTile + kThreads) * sizeof(float);
  AttentionKernel<<<blocks, kThreads, shared_bytes, static_cast<cudaStream_t>(stream)>>>(args);
}

}  // namespace kedge::kernels
