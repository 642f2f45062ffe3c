// Vectors of fp32 from and to a part's dtype. Included once per instruction set (Highway's -inl
// convention), hence the guard that lets it through again for each one.
#if defined(KEDGE_GPU_CODEC_LANES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KEDGE_GPU_CODEC_LANES_INL_H_
#undef KEDGE_GPU_CODEC_LANES_INL_H_
#else
#define KEDGE_GPU_CODEC_LANES_INL_H_
#endif

#include <cstdint>

#include "gpu/codec/part_rows.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace kedge::codec {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Whether the instruction set converts f16 itself, rounding to nearest even.
inline constexpr bool kHasF16 = HWY_TARGET <= HWY_AVX2;

template <class D>
HWY_INLINE hn::Vec<D> FromF16Bits(D d, const uint16_t* from) {
  const hn::RebindToUnsigned<D> d32;
  if constexpr (kHasF16) {
    const hn::Rebind<hwy::float16_t, D> d16;
    return hn::PromoteTo(d, hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(from)));
  } else {
    const hn::Rebind<uint16_t, D> d16;
    const auto bits = hn::PromoteTo(d32, hn::LoadU(d16, from));
    const auto magnitude = hn::ShiftLeft<13>(hn::And(bits, hn::Set(d32, 0x7fffu)));
    const auto sign = hn::ShiftLeft<16>(hn::And(bits, hn::Set(d32, 0x8000u)));
    const auto finite = hn::BitCast(d32, hn::Mul(hn::BitCast(d, magnitude), hn::Set(d, 0x1p112f)));
    const auto exponent = hn::Set(d32, 0x7c00u);
    const auto is_special = hn::Eq(hn::And(bits, exponent), exponent);
    const auto special = hn::Or(magnitude, hn::Set(d32, 0x7f800000u));
    return hn::BitCast(d, hn::Or(hn::IfThenElse(is_special, special, finite), sign));
  }
}

// Of values in [-65504, 65504].
template <class D>
HWY_INLINE void ToF16Bits(D d, hn::Vec<D> value, uint16_t* to) {
  const hn::RebindToUnsigned<D> d32;
  if constexpr (kHasF16) {
    const hn::Rebind<hwy::float16_t, D> d16;
    hn::StoreU(hn::DemoteTo(d16, value), d16, reinterpret_cast<hwy::float16_t*>(to));
  } else {
    const hn::Rebind<uint16_t, D> d16;
    const auto bits = hn::BitCast(d32, value);
    const auto magnitude = hn::And(bits, hn::Set(d32, 0x7fffffffu));
    const auto sign = hn::And(hn::ShiftRight<16>(bits), hn::Set(d32, 0x8000u));
    // Adding 0.5 lets the adder round a subnormal to multiples of 2^-24.
    const auto shifted = hn::Add(hn::BitCast(d, magnitude), hn::Set(d, 0.5f));
    const auto tiny = hn::Sub(hn::BitCast(d32, shifted), hn::Set(d32, 0x3f000000u));
    const auto odd = hn::And(hn::ShiftRight<13>(magnitude), hn::Set(d32, 1u));
    const auto rounded = hn::Add(hn::Add(magnitude, hn::Set(d32, 0xfffu)), odd);
    const auto normal = hn::ShiftRight<13>(hn::Sub(rounded, hn::Set(d32, 0x38000000u)));
    const auto is_tiny = hn::Lt(hn::BitCast(d, magnitude), hn::Set(d, 0x1p-14f));
    const auto is_tiny_bits = hn::RebindMask(d32, is_tiny);
    const auto half = hn::Or(hn::IfThenElse(is_tiny_bits, tiny, normal), sign);
    const hn::RebindToSigned<decltype(d32)> di32;
    hn::StoreU(hn::DemoteTo(d16, hn::BitCast(di32, half)), d16, to);
  }
}

template <DType kType, class D>
HWY_INLINE hn::Vec<D> LoadLanes(D d, const uint8_t* row, int64_t index) {
  if constexpr (kType == DType::kF32) {
    return hn::LoadU(d, reinterpret_cast<const float*>(row) + index);
  } else if constexpr (kType == DType::kF16) {
    return FromF16Bits(d, reinterpret_cast<const uint16_t*>(row) + index);
  } else {
    const hn::RebindToUnsigned<D> d32;
    const hn::Rebind<uint16_t, D> d16;
    const auto bits = hn::LoadU(d16, reinterpret_cast<const uint16_t*>(row) + index);
    return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(d32, bits)));
  }
}

template <DType kType, class D>
HWY_INLINE void StoreLanes(D d, hn::Vec<D> value, uint8_t* row, int64_t index) {
  if constexpr (kType == DType::kF32) {
    hn::StoreU(value, d, reinterpret_cast<float*>(row) + index);
  } else if constexpr (kType == DType::kF16) {
    value = hn::Min(hn::Max(value, hn::Set(d, -kF16Max)), hn::Set(d, kF16Max));
    ToF16Bits(d, value, reinterpret_cast<uint16_t*>(row) + index);
  } else {
    const hn::RebindToUnsigned<D> d32;
    const hn::Rebind<uint16_t, D> d16;
    const auto bits = hn::BitCast(d32, value);
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(d32, 1u));
    const auto rounded = hn::Add(hn::Add(bits, hn::Set(d32, 0x7fffu)), odd);
    const hn::RebindToSigned<decltype(d32)> di32;
    const auto upper = hn::BitCast(di32, hn::ShiftRight<16>(rounded));
    hn::StoreU(hn::DemoteTo(d16, upper), d16, reinterpret_cast<uint16_t*>(row) + index);
  }
}

// A pair of a head's halves turned by its angle, or back.
template <class V>
HWY_INLINE void TurnLanes(V cos, V sin, V& low, V& high) {
  const V a = low;
  const V b = high;
  low = hn::Sub(hn::Mul(a, cos), hn::Mul(b, sin));
  high = hn::Add(hn::Mul(b, cos), hn::Mul(a, sin));
}
template <class V>
HWY_INLINE void TurnLanesBack(V cos, V sin, V& low, V& high) {
  const V a = low;
  const V b = high;
  low = hn::Add(hn::Mul(a, cos), hn::Mul(b, sin));
  high = hn::Sub(hn::Mul(b, cos), hn::Mul(a, sin));
}

}  // namespace HWY_NAMESPACE
}  // namespace kedge::codec
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
