// Rows times a matrix, with the same bits on every instruction set.
//
//     out[r][j] = start[j] + sum over i of in[r * row_stride + i * inner_stride] * matrix[i][j]
//
// in ascending order of i, every product and every sum rounded to fp32 (no fused multiply-add). So
// what an archived part decodes to depends on its bytes and the profile only. Vectors run along j.
// Scalar code is the specification. Any thread.
//
// The matrix lies in panels of 32 columns, [width / 32, rounded up][inner][32], zeros behind the
// last column: a tile of the result reads it from end to end.
#pragma once

#include <cstdint>

namespace kedge::codec {

inline constexpr int64_t kPanelColumns = 32;

// Floats of a matrix in panels, and where [i][j] lies in it.
inline int64_t PanelFloats(int64_t inner, int64_t width) {
  return (width + kPanelColumns - 1) / kPanelColumns * inner * kPanelColumns;
}
inline int64_t PanelIndex(int64_t inner, int64_t i, int64_t j) {
  return (j / kPanelColumns * inner + i) * kPanelColumns + j % kPanelColumns;
}

struct RowTransform {
  const float* in = nullptr;
  int64_t row_stride = 0;
  int64_t inner_stride = 1;
  int64_t rows = 0;
  int64_t inner = 0;
  const float* matrix = nullptr;  // [inner][width], in panels
  int64_t width = 0;
  const float* start = nullptr;  // [width]; null: zeros
};

void TransformRows(const RowTransform& task, float* out);
void TransformRowsScalar(const RowTransform& task, float* out);
// On the GPU: all pointers are device memory. Rows of all blocks of one part of a model may pass
// together.
void TransformRowsCuda(const RowTransform& task, float* out, void* stream);

}  // namespace kedge::codec
