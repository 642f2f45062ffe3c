#include "gpu/kernels/swiglu.h"

#include <cmath>

#include "gpu/kernels/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "gpu/kernels/swiglu_cpu.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "hwy/contrib/math/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kedge::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

void SwiGluRow(const float* gate, const float* up, int64_t width, float* y) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto one = hn::Set(d, 1.0f);
  // e^-v overflows below -88; silu is zero there to the last bit that matters.
  const auto lowest = hn::Set(d, -80.0f);
  int64_t i = 0;
  for (; i + lanes <= width; i += lanes) {
    const auto v = hn::LoadU(d, gate + i);
    const auto e = hn::Exp(d, hn::Neg(hn::Max(v, lowest)));
    const auto silu = hn::Div(v, hn::Add(one, e));
    hn::StoreU(hn::Mul(silu, hn::LoadU(d, up + i)), d, y + i);
  }
  for (; i < width; ++i) y[i] = gate[i] / (1.0f + std::exp(-std::fmax(gate[i], -80.0f))) * up[i];
}

}  // namespace HWY_NAMESPACE
}  // namespace kedge::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kedge::kernels {

HWY_EXPORT(SwiGluRow);

void SwiGlu(CpuDevice& device, const float* gate_up, int64_t rows, int64_t width, float* y) {
  device.ParallelFor(rows, [&](int64_t row) {
    const float* gate = gate_up + row * 2 * width;
    HWY_DYNAMIC_DISPATCH(SwiGluRow)(gate, gate + width, width, y + row * width);
  });
}

}  // namespace kedge::kernels
#endif  // HWY_ONCE
