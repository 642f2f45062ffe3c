#include "gpu/codec/row_transform.h"

#include <algorithm>

#include "gpu/kernels/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "gpu/codec/row_transform.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace kedge::codec {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Tag = hn::CappedTag<float, 16>;
using Vector = hn::Vec<Tag>;

// kRows rows of two vectors' columns: sums stay in registers. `matrix` and `start` begin at the
// first of these columns, a row of the matrix is a panel's; `out` has rows of `stride`.
template <int kRows>
HWY_INLINE void Tile(const RowTransform& task, int64_t row, const float* matrix, const float* start,
                     float* out, int64_t stride) {
  const Tag d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  Vector low[kRows];
  Vector high[kRows];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    low[r] = hn::LoadU(d, start);
    high[r] = hn::LoadU(d, start + lanes);
  }
  const float* in = task.in + row * task.row_stride;
  for (int64_t i = 0; i < task.inner; ++i) {
    const auto left = hn::LoadU(d, matrix);
    const auto right = hn::LoadU(d, matrix + lanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const auto x = hn::Set(d, in[r * task.row_stride]);
      low[r] = hn::Add(low[r], hn::Mul(x, left));
      high[r] = hn::Add(high[r], hn::Mul(x, right));
    }
    matrix += kPanelColumns;
    in += task.inner_stride;
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    hn::StoreU(low[r], d, out + r * stride);
    hn::StoreU(high[r], d, out + r * stride + lanes);
  }
}

template <int kRows>
HWY_INLINE void Rows(const RowTransform& task, int64_t row, int64_t j, const float* start,
                     float* out) {
  const auto step = static_cast<int64_t>(2 * hn::Lanes(Tag()));
  const float* matrix = task.matrix + j / kPanelColumns * task.inner * kPanelColumns;
  const int64_t columns = std::min(task.width - j, kPanelColumns);
  if (columns == kPanelColumns) {
    float* to = out + row * task.width + j;
    for (int64_t c = 0; c < kPanelColumns; c += step)
      Tile<kRows>(task, row, matrix + c, start + c, to + c, task.width);
    return;
  }
  float some[kRows * kPanelColumns];
  for (int64_t c = 0; c < columns; c += step)
    Tile<kRows>(task, row, matrix + c, start + c, some + c, kPanelColumns);
  for (int r = 0; r < kRows; ++r)
    std::copy_n(some + r * kPanelColumns, columns, out + (row + r) * task.width + j);
}

void Transform(const RowTransform& task, float* out) {
  // A panel of the matrix stays in the second cache while all rows pass.
  for (int64_t j = 0; j < task.width; j += kPanelColumns) {
    float start[kPanelColumns] = {};
    if (task.start != nullptr)
      std::copy_n(task.start + j, std::min(task.width - j, kPanelColumns), start);
    int64_t row = 0;
    for (; row + 8 <= task.rows; row += 8) Rows<8>(task, row, j, start, out);
    for (; row < task.rows; ++row) Rows<1>(task, row, j, start, out);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kedge::codec
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kedge::codec {

HWY_EXPORT(Transform);

void TransformRows(const RowTransform& task, float* out) {
  HWY_DYNAMIC_DISPATCH(Transform)(task, out);
}

void TransformRowsScalar(const RowTransform& task, float* out) {
  for (int64_t row = 0; row < task.rows; ++row) {
    for (int64_t j = 0; j < task.width; ++j) {
      float sum = task.start == nullptr ? 0.0f : task.start[j];
      for (int64_t i = 0; i < task.inner; ++i) {
        sum += task.in[row * task.row_stride + i * task.inner_stride] *
               task.matrix[PanelIndex(task.inner, i, j)];
      }
      out[row * task.width + j] = sum;
    }
  }
}

}  // namespace kedge::codec
#endif  // HWY_ONCE
