// One block a token and kThreads of its numbers, one thread a number; a token's weights lie in
// shared memory.
#include <cuda_runtime.h>

#include "gpu/offset/mixture.h"

namespace kedge::offset {
namespace {

constexpr int kThreads = 256;

// The largest logit is known before the first offset is read, so nothing is scaled again, as it is
// where anchors come one by one.
__global__ void MixKernel(MixRowsArgs args, int64_t pieces) {
  extern __shared__ float weights[];  // [anchors]
  const int64_t token = blockIdx.x / pieces;
  const int64_t piece = blockIdx.x % pieces;
  float most = args.anchors > 0 ? args.logits[token] : 0.0f;
  for (int64_t a = 1; a < args.anchors; ++a)
    most = fmaxf(most, args.logits[a * args.tokens + token]);
  for (int64_t a = threadIdx.x; a < args.anchors; a += kThreads)
    weights[a] = expf(args.logits[a * args.tokens + token] - most);
  __syncthreads();
  float e = 0.0f;
  for (int64_t a = 0; a < args.anchors; ++a) e += weights[a];
  const int64_t channel = piece * kThreads + threadIdx.x;
  if (channel < args.width) {
    const int64_t at = token * args.width + channel;
    float sum = 0.0f;
    for (int64_t a = 0; a < args.anchors; ++a) sum = fmaf(weights[a], args.offsets[a][at], sum);
    args.rows[at] = args.mean && e > 0.0f ? sum * (1.0f / e) : sum;
  }
  if (channel != 0) return;
  if (args.max_logit != nullptr) args.max_logit[token] = most;
  if (args.e != nullptr) args.e[token] = e;
}

}  // namespace

void MixRowsCuda(const MixRowsArgs& args, void* stream) {
  if (args.tokens <= 0 || args.width <= 0) return;
  const int64_t pieces = (args.width + kThreads - 1) / kThreads;
  MixKernel<<<static_cast<unsigned>(args.tokens * pieces), kThreads, args.anchors * sizeof(float),
              static_cast<cudaStream_t>(stream)>>>(args, pieces);
}

}  // namespace kedge::offset
