// Matrix product y = x W^T (+ bias) (+ residual) with row-invariant bits.
//
// Contract. For row r and output n
//     y[r][n] = (((x[r][0] w[n][0]) + x[r][1] w[n][1]) + ... ) (+ bias[n]) (+ residual[r][n])
// in fp32, k ascending, one fused multiply-add a step. Each output has one accumulator, and
// blocking over k stores and reloads it unchanged. So the bits of a row depend on that row and on W
// only: not on how many rows are computed with it, nor on their tiles, threads, or where the row
// stands. A prefill that resumes at a block border hence gives the same bits as one from the start.
// (The SSE build has no fused multiply-add and rounds twice a step; the bits then differ from those
// of an AVX2 or AVX-512 machine, but are row-invariant all the same.)
//
// Weights are packed once, at load: panels of kPanelColumns outputs, in each the inputs in order,
// in each the outputs side by side, the last panel filled up with zeros.
//
// All pointers are memory of the device. Tolerance of the CUDA twin: 1e-4 relative to
// sum over k of |x w|; it has row-invariant bits of its own.
#pragma once

#include <cstdint>

#include "gpu/device/device_cpu.h"

namespace kedge::kernels {

inline constexpr int64_t kPanelColumns = 32;

// Floats of the packed form of a weight matrix [outputs, inputs].
inline int64_t PackedFloats(int64_t outputs, int64_t inputs) {
  return (outputs + kPanelColumns - 1) / kPanelColumns * kPanelColumns * inputs;
}

// Packs rows [first_output, first_output + outputs) of a matrix that has `total_outputs`; `weights`
// is [outputs, inputs], row-major. Several matrices with the same input can so share one packed
// matrix, and one product. Rows never packed must be zeroed by the caller (see ZeroPadding).
void PackWeights(CpuDevice& device, const float* weights, int64_t first_output, int64_t outputs,
                 int64_t inputs, float* packed);

// Multiplies the weights of one output by `factor`: the output itself, exactly so when the factor
// is a power of two.
void ScaleOutput(int64_t output, int64_t inputs, float factor, float* packed);

// Zeroes what fills up the last panel.
void ZeroPadding(int64_t outputs, int64_t inputs, float* packed);

struct MatMulArgs {
  const float* x = nullptr;         // [rows, inputs]
  const float* packed = nullptr;    // PackedFloats(outputs, inputs)
  const float* bias = nullptr;      // [outputs], or null
  const float* residual = nullptr;  // [rows, outputs], or null; may be `y` itself
  float* y = nullptr;               // [rows, outputs]; must not overlap x
  float* scratch = nullptr;         // MatMulScratchFloats(rows, inputs)
  int64_t rows = 0;
  int64_t inputs = 0;
  int64_t outputs = 0;
};

inline int64_t MatMulScratchFloats(int64_t rows, int64_t inputs) { return rows * inputs; }

void MatMul(CpuDevice& device, const MatMulArgs& args);

// The twin: `weights` is the plain row-major [outputs, inputs]. Queued on `stream`
// (a cudaStream_t). Built with --config=cuda.
void MatMulCuda(const float* x, const float* weights, const float* bias, const float* residual,
                float* y, int64_t rows, int64_t inputs, int64_t outputs, void* stream);

}  // namespace kedge::kernels
