#include "gpu/codec/fp8.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gpu/kernels/simd_targets.h"
#include "proto/wire.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "gpu/codec/fp8.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "gpu/codec/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kedge::codec {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Tag = hn::CappedTag<float, 16>;
using Bytes = hn::Rebind<uint8_t, Tag>;
using Vec = hn::Vec<Tag>;

HWY_INLINE void StoreE4m3(Vec value, uint8_t* to) {
  const Tag d;
  const hn::RebindToUnsigned<Tag> d32;
  const hn::RebindToSigned<Tag> di32;
  const auto bits = hn::BitCast(d32, value);
  const auto sign = hn::And(hn::ShiftRight<24>(bits), hn::Set(d32, 0x80u));
  const auto magnitude = hn::And(bits, hn::Set(d32, 0x7fffffffu));
  // Adding 2^14 lets the adder round a subnormal to multiples of 2^-9.
  const auto shifted = hn::Add(hn::BitCast(d, magnitude), hn::Set(d, 0x1p14f));
  const auto tiny = hn::Sub(hn::BitCast(d32, shifted), hn::Set(d32, 0x46800000u));
  const auto odd = hn::And(hn::ShiftRight<20>(magnitude), hn::Set(d32, 1u));
  const auto rounded = hn::Add(hn::Add(magnitude, hn::Set(d32, 0x7ffffu)), odd);
  const auto normal = hn::ShiftRight<20>(hn::Sub(rounded, hn::Set(d32, 0x3c000000u)));
  const auto is_tiny = hn::RebindMask(d32, hn::Lt(hn::BitCast(d, magnitude), hn::Set(d, 0x1p-6f)));
  const auto code = hn::Or(hn::IfThenElse(is_tiny, tiny, normal), sign);
  hn::StoreU(hn::DemoteTo(Bytes(), hn::BitCast(di32, code)), Bytes(), to);
}

HWY_INLINE Vec LoadE4m3(const uint8_t* from) {
  const Tag d;
  const hn::RebindToUnsigned<Tag> d32;
  const auto code = hn::PromoteTo(d32, hn::LoadU(Bytes(), from));
  const auto magnitude = hn::ShiftLeft<20>(hn::And(code, hn::Set(d32, 0x7fu)));
  const auto sign = hn::ShiftLeft<24>(hn::And(code, hn::Set(d32, 0x80u)));
  const auto value = hn::Mul(hn::BitCast(d, magnitude), hn::Set(d, 0x1p120f));
  return hn::BitCast(d, hn::Or(hn::BitCast(d32, value), sign));
}

// Reads all pairs of a head's halves, turned back, and hands them to `use(low, high, index)`.
template <DType kType, class Use>
HWY_INLINE void ForPairs(const Fp8Layout& layout, const SourceRows& source, const Use& use) {
  const Tag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t half = layout.head_size / 2;
  const int64_t channels = layout.channels();
  const float* cos = source.rope == nullptr ? nullptr : source.rope->cos.data();
  const float* sin = source.rope == nullptr ? nullptr : source.rope->sin.data();
  for (int64_t token = source.skip; token < layout.tokens; ++token) {
    const uint8_t* row = source.data + token * channels * DTypeBytes(kType);
    for (int64_t head = 0; head < layout.heads; ++head) {
      for (int64_t i = 0; i < half; i += lanes) {
        const int64_t channel = head * layout.head_size + i;
        auto low = LoadLanes<kType>(d, row, channel);
        auto high = LoadLanes<kType>(d, row, channel + half);
        if (cos != nullptr) {
          const int64_t angle = token * half + i;
          TurnLanesBack(hn::LoadU(d, cos + angle), hn::LoadU(d, sin + angle), low, high);
        }
        use(low, high, token * channels + channel);
      }
    }
  }
}

template <DType kType>
bool EncodeOf(const Fp8Layout& layout, const SourceRows& source, float* scale, uint8_t* out) {
  const Tag d;
  const int64_t half = layout.head_size / 2;
  auto largest = hn::Zero(d);
  auto nan = hn::Zero(d);
  ForPairs<kType>(layout, source, [&](Vec low, Vec high, int64_t) {
    largest = hn::Max(largest, hn::Max(hn::Abs(low), hn::Abs(high)));
    nan = hn::Add(nan, hn::Mul(hn::Add(low, high), hn::Zero(d)));
  });
  const float most = hn::GetLane(hn::MaxOfLanes(d, largest));
  if (!hn::AllTrue(d, hn::Eq(nan, nan)) || !(most <= kF16Max)) return false;
  *scale = most / kE4m3Max;
  const auto inverse = hn::Set(d, *scale > 0.0f ? 1.0f / *scale : 0.0f);
  const auto top = hn::Set(d, kE4m3Max);
  const auto bottom = hn::Set(d, -kE4m3Max);
  std::memset(out, 0, source.skip * layout.channels());
  ForPairs<kType>(layout, source, [&](Vec low, Vec high, int64_t index) {
    StoreE4m3(hn::Min(hn::Max(hn::Mul(low, inverse), bottom), top), out + index);
    StoreE4m3(hn::Min(hn::Max(hn::Mul(high, inverse), bottom), top), out + index + half);
  });
  return true;
}

template <DType kType>
void DecodeOf(const Fp8Layout& layout, float scale, const uint8_t* in, const TargetRows& target) {
  const Tag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t half = layout.head_size / 2;
  const int64_t channels = layout.channels();
  const float* cos = target.rope == nullptr ? nullptr : target.rope->cos.data();
  const float* sin = target.rope == nullptr ? nullptr : target.rope->sin.data();
  const auto factor = hn::Set(d, scale);
  for (int64_t token = target.skip; token < layout.tokens; ++token) {
    const uint8_t* codes = in + token * channels;
    for (int64_t head = 0; head < layout.heads; ++head) {
      for (int64_t i = 0; i < half; i += lanes) {
        const int64_t channel = head * layout.head_size + i;
        auto low = hn::Mul(LoadE4m3(codes + channel), factor);
        auto high = hn::Mul(LoadE4m3(codes + channel + half), factor);
        if (cos != nullptr) {
          const int64_t angle = token * half + i;
          TurnLanes(hn::LoadU(d, cos + angle), hn::LoadU(d, sin + angle), low, high);
        }
        StoreLanes<kType>(d, low, target.rows[token], channel);
        StoreLanes<kType>(d, high, target.rows[token], channel + half);
      }
    }
  }
}

bool Fits(const Fp8Layout& layout, bool hadamard) {
  return !hadamard && HeadFits(Tag(), layout.head_size, false);
}

bool Encode(const Fp8Layout& layout, const SourceRows& source, float* scale, uint8_t* out) {
  if (!Fits(layout, source.hadamard)) return Fp8EncodeScalar(layout, source, scale, out);
  if (source.dtype == DType::kF32) return EncodeOf<DType::kF32>(layout, source, scale, out);
  if (source.dtype == DType::kF16) return EncodeOf<DType::kF16>(layout, source, scale, out);
  return EncodeOf<DType::kBf16>(layout, source, scale, out);
}

void Decode(const Fp8Layout& layout, float scale, const uint8_t* in, const TargetRows& target) {
  if (!Fits(layout, target.hadamard)) return Fp8DecodeScalar(layout, scale, in, target);
  if (target.dtype == DType::kF32) return DecodeOf<DType::kF32>(layout, scale, in, target);
  if (target.dtype == DType::kF16) return DecodeOf<DType::kF16>(layout, scale, in, target);
  DecodeOf<DType::kBf16>(layout, scale, in, target);
}

}  // namespace HWY_NAMESPACE
}  // namespace kedge::codec
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kedge::codec {

HWY_EXPORT(Encode);
HWY_EXPORT(Decode);

uint8_t FloatToE4m3(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = bits >> 24 & 0x80;
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude < 0x3c800000) {  // below 2^-6: a multiple of 2^-9
    return static_cast<uint8_t>(
        sign | static_cast<uint32_t>(std::nearbyint(std::bit_cast<float>(magnitude) * 0x1p9f)));
  }
  const uint32_t rounded = magnitude + 0x7ffff + (magnitude >> 20 & 1);
  return static_cast<uint8_t>(sign | (rounded - 0x3c000000) >> 20);
}

float E4m3ToFloat(uint8_t code) {
  const int exponent = code >> 3 & 15;
  const int mantissa = code & 7;
  float value = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                              : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  if ((code & 0x7f) == 0x7f) value = std::numeric_limits<float>::quiet_NaN();
  return (code & 0x80) != 0 ? -value : value;
}

bool Fp8EncodeScalar(const Fp8Layout& layout, const SourceRows& source, float* scale,
                     uint8_t* out) {
  std::vector<float> row(layout.channels());
  float largest = 0.0f;
  for (int64_t token = source.skip; token < layout.tokens; ++token) {
    ReadRow(source, token, layout.heads, layout.head_size, row.data());
    for (float value : row) {
      if (!(std::abs(value) <= kF16Max)) return false;
      largest = std::max(largest, std::abs(value));
    }
  }
  *scale = largest / kE4m3Max;
  const float inverse = *scale > 0.0f ? 1.0f / *scale : 0.0f;
  std::memset(out, 0, source.skip * layout.channels());
  for (int64_t token = source.skip; token < layout.tokens; ++token) {
    ReadRow(source, token, layout.heads, layout.head_size, row.data());
    for (int64_t i = 0; i < layout.channels(); ++i) {
      const float value = std::clamp(row[i] * inverse, -kE4m3Max, kE4m3Max);
      out[token * layout.channels() + i] = FloatToE4m3(value);
    }
  }
  return true;
}

absl::Status Fp8Check(const Fp8Layout& layout, const std::string& part, float scale,
                      const uint8_t* in) {
  if (!(scale >= 0.0f && scale <= kFp8ScaleMax) || std::signbit(scale)) {
    return absl::InvalidArgumentError(
        absl::StrCat("part ", part, ": scale: ", scale, " is not in [0, 146.2]"));
  }
  // Eight at a time; adding 1 carries only 0x7f into the sign's place.
  constexpr uint64_t kSigns = 0x8080808080808080u;
  constexpr uint64_t kOnes = 0x0101010101010101u;
  uint64_t bad = 0;
  int64_t i = 0;
  for (; i + 8 <= layout.bytes(); i += 8) bad |= (LoadLe<uint64_t>(in + i) & ~kSigns) + kOnes;
  if ((bad & kSigns) == 0 && i == layout.bytes()) return absl::OkStatus();
  for (i = 0; i < layout.bytes(); ++i) {
    if ((in[i] & 0x7f) != 0x7f) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("part ", part, ": code of value ", i, ": ", in[i], " is not a number"));
  }
  return absl::OkStatus();
}

void Fp8DecodeScalar(const Fp8Layout& layout, float scale, const uint8_t* in,
                     const TargetRows& target) {
  std::vector<float> row(layout.channels());
  for (int64_t token = target.skip; token < layout.tokens; ++token) {
    for (int64_t i = 0; i < layout.channels(); ++i)
      row[i] = E4m3ToFloat(in[token * layout.channels() + i]) * scale;
    WriteRow(target, token, layout.heads, layout.head_size, row.data());
  }
}

bool Fp8Encode(const Fp8Layout& layout, const SourceRows& source, float* scale, uint8_t* out) {
  return HWY_DYNAMIC_DISPATCH(Encode)(layout, source, scale, out);
}

void Fp8Decode(const Fp8Layout& layout, float scale, const uint8_t* in, const TargetRows& target) {
  HWY_DYNAMIC_DISPATCH(Decode)(layout, scale, in, target);
}

}  // namespace kedge::codec
#endif  // HWY_ONCE
