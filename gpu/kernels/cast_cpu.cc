#include "gpu/kernels/cast.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "absl/base/internal/raw_logging.h"
#include "gpu/kernels/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "gpu/kernels/cast_cpu.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace kedge::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

float Bf16ToFloat(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

// Shifted into place, the exponent of an f16 is 112 too small, also that of a subnormal.
float F16ToFloat(uint16_t bits) {
  const uint32_t magnitude = static_cast<uint32_t>(bits & 0x7fff) << 13;
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16;
  float value = std::bit_cast<float>(magnitude) * 0x1p112f;
  if ((bits & 0x7c00) == 0x7c00) value = std::bit_cast<float>(magnitude | 0x7f800000u);
  return std::bit_cast<float>(std::bit_cast<uint32_t>(value) | sign);
}

void FromBf16(const uint16_t* source, int64_t count, float* target) {
  const hn::ScalableTag<float> d;
  const hn::RebindToUnsigned<decltype(d)> d32;
  const hn::Rebind<uint16_t, decltype(d)> d16;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto bits = hn::PromoteTo(d32, hn::LoadU(d16, source + i));
    hn::StoreU(hn::BitCast(d, hn::ShiftLeft<16>(bits)), d, target + i);
  }
  for (; i < count; ++i) target[i] = Bf16ToFloat(source[i]);
}

void FromF16(const uint16_t* source, int64_t count, float* target) {
  const hn::ScalableTag<float> d;
  const hn::RebindToUnsigned<decltype(d)> d32;
  const hn::Rebind<uint16_t, decltype(d)> d16;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto bits = hn::PromoteTo(d32, hn::LoadU(d16, source + i));
    const auto magnitude = hn::ShiftLeft<13>(hn::And(bits, hn::Set(d32, 0x7fffu)));
    const auto sign = hn::ShiftLeft<16>(hn::And(bits, hn::Set(d32, 0x8000u)));
    const auto finite = hn::BitCast(d32, hn::Mul(hn::BitCast(d, magnitude), hn::Set(d, 0x1p112f)));
    const auto special = hn::Or(magnitude, hn::Set(d32, 0x7f800000u));
    const auto exponent = hn::Set(d32, 0x7c00u);
    const auto is_special = hn::Eq(hn::And(bits, exponent), exponent);
    const auto value = hn::Or(hn::IfThenElse(is_special, special, finite), sign);
    hn::StoreU(hn::BitCast(d, value), d, target + i);
  }
  for (; i < count; ++i) target[i] = F16ToFloat(source[i]);
}

}  // namespace HWY_NAMESPACE
}  // namespace kedge::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kedge::kernels {
namespace {

HWY_EXPORT(FromBf16);
HWY_EXPORT(FromF16);

uint16_t FloatToBf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x0040);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

uint16_t FloatToF16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return sign | 0x7e00;   // NaN
  if (magnitude >= 0x477ff000u) return sign | 0x7c00;  // rounds to 65536 or more
  if (magnitude < 0x38800000u) {
    // Subnormal: adding 0.5 lets the adder round the mantissa to multiples of 2^-24.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return sign | static_cast<uint16_t>(std::bit_cast<uint32_t>(shifted) - 0x3f000000u);
  }
  const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1);
  return sign | static_cast<uint16_t>((rounded - 0x38000000u) >> 13);
}

}  // namespace

void CastToFloat(DType dtype, const void* source, int64_t count, float* target) {
  ABSL_RAW_CHECK(IsFloatDType(dtype), "CastToFloat of a type that is no float");
  if (count <= 0) return;
  if (dtype == DType::kF32) {
    std::memcpy(target, source, count * sizeof(float));
    return;
  }
  const auto convert = [dtype](const uint16_t* from, int64_t n, float* to) {
    if (dtype == DType::kBf16) {
      HWY_DYNAMIC_DISPATCH(FromBf16)(from, n, to);
    } else {
      HWY_DYNAMIC_DISPATCH(FromF16)(from, n, to);
    }
  };
  if (reinterpret_cast<uintptr_t>(source) % alignof(uint16_t) == 0) {
    return convert(static_cast<const uint16_t*>(source), count, target);
  }
  // A safetensors file may put a tensor at an odd byte. Rare: by way of an aligned copy.
  std::array<uint16_t, 1024> aligned;
  const auto* bytes = static_cast<const uint8_t*>(source);
  for (int64_t i = 0; i < count; i += static_cast<int64_t>(aligned.size())) {
    const int64_t n = std::min<int64_t>(count - i, static_cast<int64_t>(aligned.size()));
    std::memcpy(aligned.data(), bytes + i * 2, n * 2);
    convert(aligned.data(), n, target + i);
  }
}

void CastFromFloat(DType dtype, const float* source, int64_t count, void* target) {
  ABSL_RAW_CHECK(IsFloatDType(dtype), "CastFromFloat to a type that is no float");
  if (count <= 0) return;
  if (dtype == DType::kF32) {
    std::memcpy(target, source, count * sizeof(float));
    return;
  }
  uint8_t* out = static_cast<uint8_t*>(target);
  for (int64_t i = 0; i < count; ++i) {
    const uint16_t value = dtype == DType::kBf16 ? FloatToBf16(source[i]) : FloatToF16(source[i]);
    std::memcpy(out + i * 2, &value, 2);
  }
}

}  // namespace kedge::kernels
#endif  // HWY_ONCE
