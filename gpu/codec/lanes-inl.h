// Vectors of fp32 from and to a part's dtype, and whole heads: the vectors of part_rows.h and
// hadamard.h, bit for bit. Included once per instruction set (Highway's -inl
// convention), hence the guard that lets it through again for each one.
#if defined(KEDGE_GPU_CODEC_LANES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KEDGE_GPU_CODEC_LANES_INL_H_
#undef KEDGE_GPU_CODEC_LANES_INL_H_
#else
#define KEDGE_GPU_CODEC_LANES_INL_H_
#endif

#include <cmath>
#include <cstdint>

#include "gpu/codec/hadamard.h"
#include "gpu/codec/part_rows.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace kedge::codec {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <DType kType>
inline constexpr int64_t kBytesOf = kType == DType::kF32 ? 4 : 2;

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

// The lanes i and i ^ kStep of a vector exchanged.
template <int kStep, class D>
HWY_INLINE hn::Vec<D> SwapLanes(D d, hn::Vec<D> x) {
  (void)d;
#if HWY_TARGET == HWY_SCALAR
  return x;  // has one lane
#else
  if constexpr (kStep == 1) return hn::Shuffle2301(x);
  if constexpr (kStep == 2) return hn::Shuffle1032(x);
  if constexpr (kStep == 4) return hn::SwapAdjacentBlocks(x);
  if constexpr (kStep == 8) return hn::ConcatLowerUpper(d, x, x);
#endif
}

// 1, and -1 for the lanes that have bit kStep: what a step of the Hadamard transform inside a
// vector multiplies by before it adds the lanes' partners. The products are exact.
template <int kStep>
struct StepSigns {
  alignas(64) float of[16];
  constexpr StepSigns() : of() {
    for (int i = 0; i < 16; ++i) of[i] = (i & kStep) != 0 ? -1.0f : 1.0f;
  }
};
template <int kStep>
inline constexpr StepSigns<kStep> kStepSigns;

template <int kStep, class D>
HWY_INLINE hn::Vec<D> AddAndSubtractLanes(D d, hn::Vec<D> x) {
  if constexpr (kStep < hn::MaxLanes(D())) {
    return hn::MulAdd(x, hn::Load(d, kStepSigns<kStep>.of), SwapLanes<kStep>(d, x));
  } else {
    return x;
  }
}

// One step of the transform across vectors. A template for each step: a loop over steps would not
// be unrolled, and keep the vectors in memory.
template <int kVectors, int kStep, class V>
HWY_INLINE void AddAndSubtractVectors(V* v) {
  if constexpr (kStep < kVectors) {
#pragma GCC unroll 16
    for (int i = 0; i < kVectors; ++i) {
      if ((i & kStep) != 0) continue;
      const V a = v[i];
      const V b = v[i + kStep];
      v[i] = hn::Add(a, b);
      v[i + kStep] = hn::Sub(a, b);
    }
  }
}

// Hadamard (hadamard.h) of as many values as kVectors vectors hold, in place.
template <int kVectors, class D>
HWY_INLINE void HadamardVectors(D d, hn::Vec<D>* v) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
#pragma GCC unroll 16
  for (int i = 0; i < kVectors; ++i) {
    v[i] = AddAndSubtractLanes<1>(d, v[i]);
    v[i] = AddAndSubtractLanes<2>(d, v[i]);
    v[i] = AddAndSubtractLanes<4>(d, v[i]);
    v[i] = AddAndSubtractLanes<8>(d, v[i]);
  }
  AddAndSubtractVectors<kVectors, 1>(v);
  AddAndSubtractVectors<kVectors, 2>(v);
  AddAndSubtractVectors<kVectors, 4>(v);
  AddAndSubtractVectors<kVectors, 8>(v);
  const auto norm =
      hn::Set(d, 1.0f / std::sqrt(static_cast<float>(kVectors) * static_cast<float>(lanes)));
#pragma GCC unroll 16
  for (int i = 0; i < kVectors; ++i) v[i] = hn::Mul(v[i], norm);
}

// The same in memory.
template <int kVectors, class D>
HWY_INLINE void HadamardInMemory(D d, float* x) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  hn::Vec<D> v[kVectors];
#pragma GCC unroll 16
  for (int i = 0; i < kVectors; ++i) v[i] = hn::Load(d, x + i * lanes);
  HadamardVectors<kVectors>(d, v);
#pragma GCC unroll 16
  for (int i = 0; i < kVectors; ++i) hn::Store(v[i], d, x + i * lanes);
}

// Whether HadamardLanes can: blocks of one to 16 whole vectors.
template <class D>
bool HadamardFits(D d, int64_t head_size) {
  const int64_t vectors = HadamardBlock(head_size) / static_cast<int64_t>(hn::Lanes(d));
  return vectors >= 1 && vectors <= 16;
}

// The same bits as Hadamard; x is aligned.
template <class D>
HWY_NOINLINE void HadamardLanes(D d, int64_t head_size, float* x) {
  const int64_t block = HadamardBlock(head_size);
  const int64_t vectors = block / static_cast<int64_t>(hn::Lanes(d));
  for (float* end = x + head_size; x < end; x += block) {
    if (vectors == 1) HadamardInMemory<1>(d, x);
    if (vectors == 2) HadamardInMemory<2>(d, x);
    if (vectors == 4) HadamardInMemory<4>(d, x);
    if (vectors == 8) HadamardInMemory<8>(d, x);
    if (vectors == 16) HadamardInMemory<16>(d, x);
  }
}

// Heads that are one block of the Hadamard transform and fit the registers of 32 or 16: they are
// read or written in one pass, without a stop in memory. 0: this head is not one of them.
template <class D>
HWY_INLINE int64_t VectorsInRegisters(D d, int64_t head_size) {
  const auto vectors = head_size / static_cast<int64_t>(hn::Lanes(d));
  const bool fits = HadamardBlock(head_size) == head_size && (vectors == 4 || vectors == 8);
  return fits ? vectors : 0;
}

template <DType kType, int kVectors, class D>
HWY_INLINE void ReadHeadInRegisters(D d, const SourceRows& source, int64_t token,
                                    const uint8_t* row, float* to) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  constexpr int kHalf = kVectors / 2;
  hn::Vec<D> v[kVectors];
#pragma GCC unroll 16
  for (int i = 0; i < kVectors; ++i) v[i] = LoadLanes<kType>(d, row, i * lanes);
  if (source.rope != nullptr) {
    const float* cos = source.rope->cos.data() + token * kHalf * lanes;
    const float* sin = source.rope->sin.data() + token * kHalf * lanes;
#pragma GCC unroll 8
    for (int i = 0; i < kHalf; ++i)
      TurnLanesBack(hn::LoadU(d, cos + i * lanes), hn::LoadU(d, sin + i * lanes), v[i],
                    v[i + kHalf]);
  }
  HadamardVectors<kVectors>(d, v);
#pragma GCC unroll 16
  for (int i = 0; i < kVectors; ++i) hn::Store(v[i], d, to + i * lanes);
}

// One head of a part, as ReadRow reads it. `channel` is its first in the row; `to` is aligned.
template <DType kType, class D>
HWY_INLINE void ReadHead(D d, const SourceRows& source, int64_t token, int64_t channel,
                         int64_t channels, int64_t head_size, float* to) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const uint8_t* row = source.data + (token * channels + channel) * kBytesOf<kType>;
  if (source.hadamard) {
    const int64_t vectors = VectorsInRegisters(d, head_size);
    if (vectors == 4) return ReadHeadInRegisters<kType, 4>(d, source, token, row, to);
    if (vectors == 8) return ReadHeadInRegisters<kType, 8>(d, source, token, row, to);
  }
  if (source.rope == nullptr) {
    for (int64_t i = 0; i < head_size; i += lanes)
      hn::Store(LoadLanes<kType>(d, row, i), d, to + i);
  } else {
    const int64_t half = head_size / 2;
    const float* cos = source.rope->cos.data() + token * half;
    const float* sin = source.rope->sin.data() + token * half;
    for (int64_t i = 0; i < half; i += lanes) {
      auto low = LoadLanes<kType>(d, row, i);
      auto high = LoadLanes<kType>(d, row, i + half);
      TurnLanesBack(hn::LoadU(d, cos + i), hn::LoadU(d, sin + i), low, high);
      hn::Store(low, d, to + i);
      hn::Store(high, d, to + i + half);
    }
  }
  if (source.hadamard) HadamardLanes(d, head_size, to);
}

// Turns and stores one head; `value(i)` gives its values from i on. Functors come by value, so that
// the compiler sees that no store changes them.
template <DType kType, class D, class Value>
HWY_INLINE void TurnAndStore(D d, const TargetRows& target, int64_t token, int64_t channel,
                             int64_t head_size, const Value value) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  uint8_t* const row = target.rows[token] + channel * kBytesOf<kType>;
  if (target.rope == nullptr) {
    for (int64_t i = 0; i < head_size; i += lanes) StoreLanes<kType>(d, value(i), row, i);
    return;
  }
  const int64_t half = head_size / 2;
  const float* const cos = target.rope->cos.data() + token * half;
  const float* const sin = target.rope->sin.data() + token * half;
  for (int64_t i = 0; i < half; i += lanes) {
    auto low = value(i);
    auto high = value(i + half);
    TurnLanes(hn::LoadU(d, cos + i), hn::LoadU(d, sin + i), low, high);
    StoreLanes<kType>(d, low, row, i);
    StoreLanes<kType>(d, high, row, i + half);
  }
}

template <DType kType, int kVectors, class D, class Value>
HWY_INLINE void WriteHeadInRegisters(D d, const TargetRows& target, int64_t token, int64_t channel,
                                     const Value value) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  constexpr int kHalf = kVectors / 2;
  hn::Vec<D> v[kVectors];
#pragma GCC unroll 16
  for (int i = 0; i < kVectors; ++i) v[i] = value(i * lanes);
  HadamardVectors<kVectors>(d, v);
  if (target.rope != nullptr) {
    const float* const cos = target.rope->cos.data() + token * kHalf * lanes;
    const float* const sin = target.rope->sin.data() + token * kHalf * lanes;
#pragma GCC unroll 8
    for (int i = 0; i < kHalf; ++i)
      TurnLanes(hn::LoadU(d, cos + i * lanes), hn::LoadU(d, sin + i * lanes), v[i], v[i + kHalf]);
  }
  uint8_t* const row = target.rows[token] + channel * kBytesOf<kType>;
#pragma GCC unroll 16
  for (int i = 0; i < kVectors; ++i) StoreLanes<kType>(d, v[i], row, i * lanes);
}

// Lines of a page that will be written soon: otherwise each store waits for memory.
template <DType kType>
HWY_INLINE void FetchForWriting(const uint8_t* row, int64_t channel, int64_t head_size) {
  const uint8_t* const begin = row + channel * kBytesOf<kType>;
  for (int64_t at = 0; at < head_size * kBytesOf<kType>; at += 64)
    __builtin_prefetch(begin + at, /*rw=*/1, /*locality=*/3);
}

template <class D>
struct LoadFrom {
  const float* from;
  HWY_INLINE hn::Vec<D> operator()(int64_t i) const { return hn::Load(D(), from + i); }
};

// One head of a part, as WriteRow writes it. `scratch` is aligned and has room for a head.
template <DType kType, class D, class Value>
HWY_INLINE void WriteHead(D d, const TargetRows& target, int64_t token, int64_t channel,
                          int64_t head_size, float* scratch, const Value value) {
  if (!target.hadamard) {
    TurnAndStore<kType>(d, target, token, channel, head_size, value);
    return;
  }
  const int64_t vectors = VectorsInRegisters(d, head_size);
  if (vectors == 4) return WriteHeadInRegisters<kType, 4>(d, target, token, channel, value);
  if (vectors == 8) return WriteHeadInRegisters<kType, 8>(d, target, token, channel, value);
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t i = 0; i < head_size; i += lanes) hn::Store(value(i), d, scratch + i);
  HadamardLanes(d, head_size, scratch);
  TurnAndStore<kType>(d, target, token, channel, head_size, LoadFrom<D>{scratch});
}

// Whether ReadHead and WriteHead can.
template <class D>
bool HeadFits(D d, int64_t head_size, bool hadamard) {
  return head_size % 2 == 0 && head_size / 2 % static_cast<int64_t>(hn::Lanes(d)) == 0 &&
         (!hadamard || HadamardFits(d, head_size));
}

}  // namespace HWY_NAMESPACE
}  // namespace kedge::codec
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
