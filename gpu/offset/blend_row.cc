#include "gpu/offset/blend_row.h"

#include "gpu/kernels/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "gpu/offset/blend_row.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace kedge::offset {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

void Blend(float kept, float added, const float* from, int64_t count, float* into) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto k = hn::Set(d, kept);
  const auto a = hn::Set(d, added);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto scaled = hn::Mul(k, hn::LoadU(d, into + i));
    hn::StoreU(hn::Add(scaled, hn::Mul(a, hn::LoadU(d, from + i))), d, into + i);
  }
  for (; i < count; ++i) into[i] = kept * into[i] + added * from[i];
}

}  // namespace HWY_NAMESPACE
}  // namespace kedge::offset
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kedge::offset {

HWY_EXPORT(Blend);

void BlendRow(float kept, float added, const float* from, int64_t count, float* into) {
  HWY_DYNAMIC_DISPATCH(Blend)(kept, added, from, count, into);
}

}  // namespace kedge::offset
#endif  // HWY_ONCE
