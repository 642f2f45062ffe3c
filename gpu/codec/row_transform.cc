#include "gpu/codec/row_transform.h"

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

// kRows rows of two vectors' columns from j on: sums stay in registers.
template <int kRows>
HWY_INLINE void Tile(const RowTransform& task, int64_t row, int64_t j, float* out) {
  const Tag d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto begin = [&](int64_t at) {
    return task.start == nullptr ? hn::Zero(d) : hn::LoadU(d, task.start + at);
  };
  Vector low[kRows];
  Vector high[kRows];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    low[r] = begin(j);
    high[r] = begin(j + lanes);
  }
  for (int64_t i = 0; i < task.inner; ++i) {
    const float* columns = task.matrix + i * task.width + j;
    const auto left = hn::LoadU(d, columns);
    const auto right = hn::LoadU(d, columns + lanes);
    const float* in = task.in + row * task.row_stride + i * task.inner_stride;
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const auto x = hn::Set(d, in[r * task.row_stride]);
      low[r] = hn::Add(low[r], hn::Mul(x, left));
      high[r] = hn::Add(high[r], hn::Mul(x, right));
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    float* to = out + (row + r) * task.width + j;
    hn::StoreU(low[r], d, to);
    hn::StoreU(high[r], d, to + lanes);
  }
}

void Transform(const RowTransform& task, float* out) {
  const auto step = static_cast<int64_t>(2 * hn::Lanes(Tag()));
  const int64_t whole = task.width - task.width % step;
  for (int64_t j = 0; j < whole; j += step) {
    int64_t row = 0;
    for (; row + 8 <= task.rows; row += 8) Tile<8>(task, row, j, out);
    for (; row < task.rows; ++row) Tile<1>(task, row, j, out);
  }
  for (int64_t row = 0; row < task.rows; ++row) {
    for (int64_t j = whole; j < task.width; ++j) {
      float sum = task.start == nullptr ? 0.0f : task.start[j];
      for (int64_t i = 0; i < task.inner; ++i)
        sum += task.in[row * task.row_stride + i * task.inner_stride] *
               task.matrix[i * task.width + j];
      out[row * task.width + j] = sum;
    }
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
      for (int64_t i = 0; i < task.inner; ++i)
        sum += task.in[row * task.row_stride + i * task.inner_stride] *
               task.matrix[i * task.width + j];
      out[row * task.width + j] = sum;
    }
  }
}

}  // namespace kedge::codec
#endif  // HWY_ONCE
