// One thread a number of a product, operands through shared memory. Features are never written
// out: the first product reads base rows, the last one writes offsets of keys and of values.
#include <cuda_runtime.h>

#include "gpu/offset/linear_map.h"

namespace kedge::offset {
namespace {

constexpr int kTile = 16;

struct Features {
  const float* keys;
  const float* values;
  int64_t width;

  __device__ float operator()(int64_t token, int64_t i) const {
    if (i < width) return keys[token * width + i];
    if (i < 2 * width) return values[token * width + i - width];
    const double place = 1.0 + static_cast<double>(token);
    if (i == 2 * width) return 1.0f;
    return static_cast<float>(i == 2 * width + 1 ? 1.0 / sqrt(place) : 1.0 / place);
  }
};

struct Rows {
  const float* x;
  int64_t width;

  __device__ float operator()(int64_t row, int64_t i) const { return x[row * width + i]; }
};

struct ToRows {
  float* y;
  int64_t width;

  __device__ void operator()(int64_t row, int64_t i, float value) const {
    y[row * width + i] = value;
  }
};

struct ToOffsets {
  float* keys;
  float* values;
  int64_t width;

  __device__ void operator()(int64_t token, int64_t i, float value) const {
    (i < width ? keys[token * width + i] : values[token * width + i - width]) = value;
  }
};

// y = x w; w is [inputs][outputs]. Inputs ascend, one fused multiply-add each.
template <class Load, class Store>
__global__ void TimesKernel(Load load, const float* w, int64_t rows, int64_t inputs,
                            int64_t outputs, Store store) {
  __shared__ float x_tile[kTile][kTile + 1];
  __shared__ float w_tile[kTile][kTile + 1];
  const int64_t row = int64_t{blockIdx.x} * kTile + threadIdx.y;
  const int64_t output = int64_t{blockIdx.y} * kTile + threadIdx.x;
  float sum = 0.0f;
  for (int64_t from = 0; from < inputs; from += kTile) {
    const int64_t x_input = from + threadIdx.x;
    const int64_t w_input = from + threadIdx.y;
    x_tile[threadIdx.y][threadIdx.x] = row < rows && x_input < inputs ? load(row, x_input) : 0.0f;
    w_tile[threadIdx.y][threadIdx.x] =
        output < outputs && w_input < inputs ? w[w_input * outputs + output] : 0.0f;
    __syncthreads();
    const int count = static_cast<int>(min(int64_t{kTile}, inputs - from));
    for (int i = 0; i < count; ++i) sum = fmaf(x_tile[threadIdx.y][i], w_tile[i][threadIdx.x], sum);
    __syncthreads();
  }
  if (row < rows && output < outputs) store(row, output, sum);
}

template <class Load, class Store>
void Times(const Load& load, const float* w, int64_t rows, int64_t inputs, int64_t outputs,
           const Store& store, void* stream) {
  const dim3 blocks(static_cast<unsigned>((rows + kTile - 1) / kTile),
                    static_cast<unsigned>((outputs + kTile - 1) / kTile));
  TimesKernel<<<blocks, dim3(kTile, kTile), 0, static_cast<cudaStream_t>(stream)>>>(
      load, w, rows, inputs, outputs, store);
}

}  // namespace

void LinearMapCuda(const LinearMapArgs& args, void* stream) {
  if (args.tokens <= 0) return;
  const Features features{args.keys, args.values, args.width};
  const ToOffsets offsets{args.key_offsets, args.value_offsets, args.width};
  const int64_t inputs = 2 * args.width + kExtraFeatures;
  if (args.rank == 0) {
    Times(features, args.in, args.tokens, inputs, 2 * args.width, offsets, stream);
    return;
  }
  Times(features, args.in, args.tokens, inputs, args.rank, ToRows{args.scratch, args.rank}, stream);
  Times(Rows{args.scratch, args.rank}, args.out, args.tokens, args.rank, 2 * args.width, offsets,
        stream);
}

}  // namespace kedge::offset
