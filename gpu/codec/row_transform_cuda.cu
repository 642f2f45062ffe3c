// A block of threads gives 64 rows of 64 columns, each thread 16 numbers of them; operands come
// through shared memory. Each number has one sum, i ascends, and products and sums are rounded
// apart, so that the bits are the CPU's.
#include <cuda_runtime.h>

#include "gpu/codec/row_transform.h"

namespace kedge::codec {
namespace {

constexpr int kTile = 64;  // rows, and columns
constexpr int kInner = 16;
constexpr int kSide = 16;  // of the square of threads
constexpr int kEach = kTile / kSide;
static_assert(kTile % kPanelColumns == 0);

struct Tiles {
  float in[kInner][kTile + 1];
  float matrix[kInner][kTile];
};

// Zeros where the task has nothing.
__device__ void Load(const RowTransform& task, int64_t row, int64_t column, int64_t from,
                     Tiles& tiles) {
  const int thread = static_cast<int>(threadIdx.y) * kSide + static_cast<int>(threadIdx.x);
  // Neighbouring threads read neighbouring numbers, whichever way they lie.
  const bool along_rows = task.row_stride == 1;
  for (int n = thread; n < kInner * kTile; n += kSide * kSide) {
    const int r = along_rows ? n % kTile : n / kInner;
    const int i = along_rows ? n / kTile : n % kInner;
    const bool inside = row + r < task.rows && from + i < task.inner;
    tiles.in[i][r] =
        inside ? task.in[(row + r) * task.row_stride + (from + i) * task.inner_stride] : 0.0f;
  }
  for (int n = thread; n < kInner * kTile; n += kSide * kSide) {
    const int64_t i = from + n / kTile;
    const int64_t j = column + n % kTile;
    const int64_t panel = j / kPanelColumns * task.inner;
    const bool inside = i < task.inner && j < task.width;
    tiles.matrix[n / kTile][n % kTile] =
        inside ? task.matrix[(panel + i) * kPanelColumns + j % kPanelColumns] : 0.0f;
  }
}

__global__ void __launch_bounds__(kSide* kSide) TransformKernel(RowTransform task, float* out) {
  __shared__ Tiles tiles;
  const int64_t row = int64_t{blockIdx.x} * kTile;
  const int64_t column = int64_t{blockIdx.y} * kTile;
  float sums[kEach][kEach];
  for (int c = 0; c < kEach; ++c) {
    const int64_t j = column + threadIdx.x + c * kSide;
    const float start = task.start != nullptr && j < task.width ? task.start[j] : 0.0f;
    for (int r = 0; r < kEach; ++r) sums[r][c] = start;
  }
  for (int64_t from = 0; from < task.inner; from += kInner) {
    Load(task, row, column, from, tiles);
    __syncthreads();
    // No further: a zero that is added turns -0 to 0.
    const int count = static_cast<int>(min(int64_t{kInner}, task.inner - from));
    for (int i = 0; i < count; ++i) {
      float matrix[kEach];
      for (int c = 0; c < kEach; ++c) matrix[c] = tiles.matrix[i][threadIdx.x + c * kSide];
      for (int r = 0; r < kEach; ++r) {
        const float x = tiles.in[i][threadIdx.y + r * kSide];
        for (int c = 0; c < kEach; ++c) sums[r][c] = __fadd_rn(sums[r][c], __fmul_rn(x, matrix[c]));
      }
    }
    __syncthreads();
  }
  for (int r = 0; r < kEach; ++r) {
    const int64_t at = row + threadIdx.y + r * kSide;
    for (int c = 0; c < kEach; ++c) {
      const int64_t j = column + threadIdx.x + c * kSide;
      if (at < task.rows && j < task.width) out[at * task.width + j] = sums[r][c];
    }
  }
}

}  // namespace

void TransformRowsCuda(const RowTransform& task, float* out, void* stream) {
  if (task.rows <= 0 || task.width <= 0) return;
  const dim3 blocks(static_cast<unsigned>((task.rows + kTile - 1) / kTile),
                    static_cast<unsigned>((task.width + kTile - 1) / kTile));
  TransformKernel<<<blocks, dim3(kSide, kSide), 0, static_cast<cudaStream_t>(stream)>>>(task, out);
}

}  // namespace kedge::codec
