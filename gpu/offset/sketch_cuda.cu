// One block 16 tokens, one thread a number of a sketch; values and matrix go through shared memory.
#include <cuda_runtime.h>

#include "gpu/offset/sketch.h"

namespace kedge::offset {
namespace {

constexpr int kColumns = kSketchSize;
constexpr int kRows = 16;  // tokens of a block
constexpr int kTile = 32;  // values of a token at a time

__global__ void SketchKernel(const float* values, const float* matrix, int64_t tokens,
                             int64_t width, float* sketch) {
  __shared__ float x[kRows][kTile + 1];
  __shared__ float m[kTile][kColumns];
  const int64_t first = int64_t{blockIdx.x} * kRows;
  const int thread = static_cast<int>(threadIdx.y * kColumns + threadIdx.x);
  float sum = 0.0f;
  for (int64_t from = 0; from < width; from += kTile) {
    for (int i = thread; i < kRows * kTile; i += kRows * kColumns) {
      const int64_t token = first + i / kTile;
      const int64_t channel = from + i % kTile;
      const bool inside = token < tokens && channel < width;
      x[i / kTile][i % kTile] = inside ? values[token * width + channel] : 0.0f;
    }
    for (int i = thread; i < kTile * kColumns; i += kRows * kColumns) {
      const int64_t at = from * kColumns + i;
      m[i / kColumns][i % kColumns] = at < width * kColumns ? matrix[at] : 0.0f;
    }
    __syncthreads();
    const int count = static_cast<int>(min(int64_t{kTile}, width - from));
    for (int i = 0; i < count; ++i) sum = fmaf(x[threadIdx.y][i], m[i][threadIdx.x], sum);
    __syncthreads();
  }
  const int64_t token = first + threadIdx.y;
  if (token < tokens) sketch[token * kColumns + threadIdx.x] = sum;
}

}  // namespace

void SketchCuda(const float* values, const float* matrix, int64_t tokens, int64_t width,
                float* sketch, void* stream) {
  if (tokens <= 0) return;
  SketchKernel<<<static_cast<unsigned>((tokens + kRows - 1) / kRows), dim3(kColumns, kRows), 0,
                 static_cast<cudaStream_t>(stream)>>>(values, matrix, tokens, width, sketch);
}

}  // namespace kedge::offset
