// The inner loop of matmul and attention: a tile of rows times a stripe of columns.
//
// Included once per instruction set by the .cc files that use it (Highway's -inl convention), hence
// the guard that lets it through again for each one, instead of #pragma once.
#if defined(KEDGE_GPU_KERNELS_ROW_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KEDGE_GPU_KERNELS_ROW_TILE_INL_H_
#undef KEDGE_GPU_KERNELS_ROW_TILE_INL_H_
#else
#define KEDGE_GPU_KERNELS_ROW_TILE_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace kedge::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using TileTag = hn::CappedTag<float, 16>;
using TileVec = hn::Vec<TileTag>;

// Vectors side by side in one stripe: two, so that a broadcast of x serves two products.
inline constexpr int kStripeVectors = 2;
// 12 x 2 accumulators and a few operands fill the 32 registers of AVX-512, 6 x 2 the 16 of others.
inline constexpr int kTileRows = HWY_TARGET <= HWY_AVX3 ? 12 : 6;

HWY_INLINE int64_t StripeColumns() {
  return kStripeVectors * static_cast<int64_t>(hn::Lanes(TileTag()));
}

// Memory that a tile brings into the L2 cache while it computes: `step` floats further with every
// k.
struct Ahead {
  const float* from = nullptr;
  int64_t step = 0;
};

// c[r][j] += sum over k ascending of a[k * kStepK + r * kStepRow] * b[k * b_stride + j]
// for r < kRows and the columns j of one stripe. One accumulator an output, one fused
// multiply-add a step: see the contract in matmul.h.
template <int kRows, int kStepK, int kStepRow, bool kPrefetch = false>
HWY_INLINE void TileTimesStripe(const float* HWY_RESTRICT a, const float* HWY_RESTRICT b,
                                int64_t b_stride, int64_t inputs, float* HWY_RESTRICT c,
                                int64_t c_stride, Ahead ahead = {}) {
  const TileTag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  TileVec acc0[kRows];
  TileVec acc1[kRows];
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) {
    acc0[r] = hn::LoadU(d, c + r * c_stride);
    acc1[r] = hn::LoadU(d, c + r * c_stride + lanes);
  }
  for (int64_t k = 0; k < inputs; ++k) {
    const TileVec b0 = hn::LoadU(d, b);
    const TileVec b1 = hn::LoadU(d, b + lanes);
    if (kPrefetch) {
      __builtin_prefetch(ahead.from, /*rw=*/0, /*locality=*/2);
      ahead.from += ahead.step;
    }
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      const TileVec x = hn::Set(d, a[r * kStepRow]);
      acc0[r] = hn::MulAdd(x, b0, acc0[r]);
      acc1[r] = hn::MulAdd(x, b1, acc1[r]);
    }
    a += kStepK;
    b += b_stride;
  }
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) {
    hn::StoreU(acc0[r], d, c + r * c_stride);
    hn::StoreU(acc1[r], d, c + r * c_stride + lanes);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kedge::kernels
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
