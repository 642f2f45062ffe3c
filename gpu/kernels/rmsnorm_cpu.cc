#include "gpu/kernels/rmsnorm.h"

#include <cmath>

#include "gpu/kernels/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "gpu/kernels/rmsnorm_cpu.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace kedge::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

void RmsNormRow(const float* x, const float* weight, float epsilon, int64_t width, float* y) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto sums = hn::Zero(d);
  int64_t i = 0;
  for (; i + lanes <= width; i += lanes) {
    const auto v = hn::LoadU(d, x + i);
    sums = hn::MulAdd(v, v, sums);
  }
  float sum = hn::GetLane(hn::SumOfLanes(d, sums));
  for (; i < width; ++i) sum += x[i] * x[i];

  const float scale = 1.0f / std::sqrt(sum / static_cast<float>(width) + epsilon);
  for (i = 0; i + lanes <= width; i += lanes) {
    const auto v = hn::Mul(hn::LoadU(d, x + i), hn::Set(d, scale));
    hn::StoreU(hn::Mul(v, hn::LoadU(d, weight + i)), d, y + i);
  }
  for (; i < width; ++i) y[i] = x[i] * scale * weight[i];
}

}  // namespace HWY_NAMESPACE
}  // namespace kedge::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kedge::kernels {

HWY_EXPORT(RmsNormRow);

void RmsNorm(CpuDevice& device, const float* x, const float* weight, float epsilon, int64_t rows,
             int64_t width, float* y) {
  device.ParallelFor(rows, [&](int64_t row) {
    HWY_DYNAMIC_DISPATCH(RmsNormRow)(x + row * width, weight, epsilon, width, y + row * width);
  });
}

}  // namespace kedge::kernels
#endif  // HWY_ONCE
