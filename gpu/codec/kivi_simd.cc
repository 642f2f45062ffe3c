// KIVI with vectors: the same bits as kivi.cc, many channels at a time.
#include <algorithm>
#include <bit>
#include <cstring>

#include "gpu/codec/kivi.h"
#include "gpu/kernels/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "gpu/codec/kivi_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "gpu/codec/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kedge::codec {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using KeyTag = hn::CappedTag<float, 16>;

template <class D>
struct Quantizer {
  hn::Vec<D> minimum;
  hn::Vec<D> inverse;
  hn::Vec<D> levels;

  HWY_INLINE hn::Vec<hn::RebindToSigned<D>> Code(D d, hn::Vec<D> x) const {
    const auto steps = hn::Mul(hn::Sub(x, minimum), inverse);
    return hn::NearestInt(hn::Min(hn::Max(steps, hn::Zero(d)), levels));
  }
};

// Rounds scale and minimum of one group a lane.
template <class D>
HWY_INLINE Quantizer<D> MakeQuantizer(D d, hn::Vec<D> lowest, hn::Vec<D> highest, float levels,
                                      uint16_t* scale16, uint16_t* minimum16) {
  Quantizer<D> q;
  q.levels = hn::Set(d, levels);
  const auto zero = hn::Zero(d);
  ToF16Bits(d, hn::Add(lowest, zero), minimum16);
  q.minimum = FromF16Bits(d, minimum16);
  const auto range = hn::Add(hn::Max(hn::Sub(highest, q.minimum), zero), zero);
  ToF16Bits(d, hn::Div(range, q.levels), scale16);
  const auto scale = FromF16Bits(d, scale16);
  const auto inverse = hn::Div(hn::Set(d, 1.0f), scale);
  q.inverse = hn::IfThenElseZero(hn::Gt(scale, zero), inverse);
  return q;
}

// What the values of a group, one a lane, have been so far. `nan` sums x * 0.
template <class D>
struct Extent {
  hn::Vec<D> lowest;
  hn::Vec<D> highest;
  hn::Vec<D> nan;

  explicit HWY_INLINE Extent(D d)
      : lowest(hn::Set(d, 3.0e38f)), highest(hn::Set(d, -3.0e38f)), nan(hn::Zero(d)) {}
  HWY_INLINE void Add(D d, hn::Vec<D> x) {
    lowest = hn::Min(lowest, x);
    highest = hn::Max(highest, x);
    nan = hn::Add(nan, hn::Mul(x, hn::Zero(d)));
  }
  HWY_INLINE bool Fits(D d) const {
    const auto low = hn::Ge(lowest, hn::Set(d, -kF16Max));
    const auto high = hn::Le(highest, hn::Set(d, kF16Max));
    return hn::AllTrue(d, hn::And(hn::And(low, high), hn::Eq(nan, nan)));
  }
};

// One group of tokens of as many channels as a vector has lanes; x is [group][lanes].
HWY_INLINE bool EncodeColumns(const KiviLayout& layout, const Extent<KeyTag>& extent,
                              const float* x, int64_t group_index, int64_t begin, int64_t channel,
                              uint8_t* out) {
  const KeyTag d;
  const hn::RebindToUnsigned<KeyTag> d32;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  if (!extent.Fits(d)) return false;
  const int64_t channels = layout.channels();
  const int64_t at = group_index * channels + channel;
  const float levels = static_cast<float>((1 << layout.bits) - 1);
  const Quantizer<KeyTag> q =
      MakeQuantizer(d, extent.lowest, extent.highest, levels, reinterpret_cast<uint16_t*>(out) + at,
                    reinterpret_cast<uint16_t*>(out + layout.minimums_at()) + at);
  const int64_t per_word = layout.codes_per_word();
  auto* words = reinterpret_cast<uint32_t*>(out + layout.codes_at());
  words += group_index * layout.group / per_word * channels + channel;
  for (int64_t first = 0; first < layout.group; first += per_word, words += channels) {
    auto word = hn::Zero(d32);
    for (int64_t j = std::max<int64_t>(begin - first, 0); j < per_word; ++j) {
      const auto code = hn::BitCast(d32, q.Code(d, hn::Load(d, x + (first + j) * lanes)));
      word = hn::Or(word, hn::ShiftLeftSame(code, static_cast<int>(j) * layout.bits));
    }
    hn::StoreU(word, d32, words);
  }
  return true;
}

template <DType kType>
bool EncodeOverTokens(const KiviLayout& layout, const SourceRows& source, uint8_t* out) {
  const KeyTag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t half = layout.head_size / 2;
  const int64_t row_bytes = layout.channels() * DTypeBytes(kType);
  const float* cos = source.rope == nullptr ? nullptr : source.rope->cos.data();
  const float* sin = source.rope == nullptr ? nullptr : source.rope->sin.data();
  HWY_ALIGN float low[kKiviGroupMax * 16];
  HWY_ALIGN float high[kKiviGroupMax * 16];
  for (int64_t group = 0; group < layout.tokens / layout.group; ++group) {
    const int64_t first = group * layout.group;
    const int64_t begin = std::max<int64_t>(source.skip - first, 0);
    for (int64_t head = 0; head < layout.heads; ++head) {
      for (int64_t i = 0; i < half; i += lanes) {
        const int64_t channel = head * layout.head_size + i;
        Extent<KeyTag> low_extent(d);
        Extent<KeyTag> high_extent(d);
        for (int64_t t = begin; t < layout.group; ++t) {
          const uint8_t* row = source.data + (first + t) * row_bytes;
          // Columns are read against the grain: the hardware does not guess the next group.
          const uint8_t* ahead = row + layout.group * row_bytes + channel * DTypeBytes(kType);
          __builtin_prefetch(ahead, /*rw=*/0, /*locality=*/2);
          __builtin_prefetch(ahead + half * DTypeBytes(kType), /*rw=*/0, /*locality=*/2);
          auto a = LoadLanes<kType>(d, row, channel);
          auto b = LoadLanes<kType>(d, row, channel + half);
          if (cos != nullptr) {
            const int64_t angle = (first + t) * half + i;
            TurnLanesBack(hn::LoadU(d, cos + angle), hn::LoadU(d, sin + angle), a, b);
          }
          low_extent.Add(d, a);
          high_extent.Add(d, b);
          hn::Store(a, d, low + t * lanes);
          hn::Store(b, d, high + t * lanes);
        }
        if (!EncodeColumns(layout, low_extent, low, group, begin, channel, out)) return false;
        if (!EncodeColumns(layout, high_extent, high, group, begin, channel + half, out))
          return false;
      }
    }
  }
  return true;
}

template <DType kType>
void DecodeOverTokens(const KiviLayout& layout, const uint8_t* in, const TargetRows& target) {
  const KeyTag d;
  const hn::RebindToUnsigned<KeyTag> d32;
  const hn::RebindToSigned<KeyTag> di32;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t half = layout.head_size / 2;
  const int64_t channels = layout.channels();
  const int64_t per_word = layout.codes_per_word();
  const auto* scales = reinterpret_cast<const uint16_t*>(in);
  const auto* minimums = reinterpret_cast<const uint16_t*>(in + layout.minimums_at());
  const auto* words = reinterpret_cast<const uint32_t*>(in + layout.codes_at());
  const float* cos = target.rope == nullptr ? nullptr : target.rope->cos.data();
  const float* sin = target.rope == nullptr ? nullptr : target.rope->sin.data();
  const auto mask = hn::Set(d32, (1u << layout.bits) - 1);
  for (int64_t first = 0; first < layout.tokens; first += per_word) {
    const int64_t begin = std::max<int64_t>(target.skip - first, 0);
    for (int64_t head = 0; head < layout.heads; ++head) {
      for (int64_t i = 0; i < half; i += lanes) {
        const int64_t channel = head * layout.head_size + i;
        const int64_t group = first / layout.group * channels + channel;
        const int64_t word = first / per_word * channels + channel;
        const auto low_scale = FromF16Bits(d, scales + group);
        const auto low_minimum = FromF16Bits(d, minimums + group);
        const auto low_word = hn::LoadU(d32, words + word);
        const auto high_scale = FromF16Bits(d, scales + group + half);
        const auto high_minimum = FromF16Bits(d, minimums + group + half);
        const auto high_word = hn::LoadU(d32, words + word + half);
        for (int64_t j = begin; j < per_word; ++j) {
          const int shift = static_cast<int>(j) * layout.bits;
          const auto low_code = hn::And(hn::ShiftRightSame(low_word, shift), mask);
          const auto high_code = hn::And(hn::ShiftRightSame(high_word, shift), mask);
          auto a =
              hn::MulAdd(hn::ConvertTo(d, hn::BitCast(di32, low_code)), low_scale, low_minimum);
          auto b =
              hn::MulAdd(hn::ConvertTo(d, hn::BitCast(di32, high_code)), high_scale, high_minimum);
          if (cos != nullptr) {
            const int64_t angle = (first + j) * half + i;
            TurnLanes(hn::LoadU(d, cos + angle), hn::LoadU(d, sin + angle), a, b);
          }
          StoreLanes<kType>(d, a, target.rows[first + j], channel);
          StoreLanes<kType>(d, b, target.rows[first + j], channel + half);
        }
      }
    }
  }
}

// Vectors whose codes fit one word; bytes need no packing.
template <int kBits>
using ValueTag = hn::CappedTag<float, kBits == 4 ? 8 : 16>;

template <DType kType, int kBits>
bool EncodeOverChannels(const KiviLayout& layout, const SourceRows& source, uint8_t* out) {
  const ValueTag<kBits> d;
  const hn::RebindToUnsigned<decltype(d)> d32;
  const hn::Rebind<uint8_t, decltype(d)> d8;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t channels = layout.channels();
  const int64_t groups = channels / layout.group;
  const int64_t code_bytes = lanes * kBits / 8;
  const auto shifts = hn::Mul(hn::Iota(d32, 0), hn::Set(d32, uint32_t{kBits}));
  uint8_t* scales = out;
  uint8_t* minimums = out + layout.minimums_at();
  uint8_t* codes = out + layout.codes_at();
  std::memset(scales, 0, source.skip * groups * 2);
  std::memset(minimums, 0, source.skip * groups * 2);
  std::memset(codes, 0, source.skip * channels * kBits / 8);
  // Divisions are dear: the quantizers of as many groups at once as a vector has lanes.
  HWY_ALIGN float extent[2][16] = {};
  HWY_ALIGN float quantizer[2][16];
  HWY_ALIGN uint16_t rounded[2][16];
  for (int64_t token = source.skip; token < layout.tokens; ++token) {
    const uint8_t* row = source.data + token * channels * DTypeBytes(kType);
    uint8_t* to = codes + token * channels * kBits / 8;
    for (int64_t first = 0; first < groups; first += lanes) {
      const int64_t count = std::min(lanes, groups - first);
      auto nan = hn::Zero(d);
      for (int64_t g = 0; g < count; ++g) {
        Extent<decltype(d)> one(d);
        for (int64_t i = 0; i < layout.group; i += lanes)
          one.Add(d, LoadLanes<kType>(d, row, (first + g) * layout.group + i));
        nan = hn::Add(nan, one.nan);
        extent[0][g] = hn::GetLane(hn::MinOfLanes(d, one.lowest));
        extent[1][g] = hn::GetLane(hn::MaxOfLanes(d, one.highest));
      }
      Extent<decltype(d)> all(d);
      all.lowest = hn::Load(d, extent[0]);
      all.highest = hn::Load(d, extent[1]);
      all.nan = nan;
      if (!all.Fits(d)) return false;
      auto q = MakeQuantizer(d, all.lowest, all.highest, (1 << kBits) - 1, rounded[0], rounded[1]);
      std::memcpy(scales + (token * groups + first) * 2, rounded[0], count * 2);
      std::memcpy(minimums + (token * groups + first) * 2, rounded[1], count * 2);
      hn::Store(q.minimum, d, quantizer[0]);
      hn::Store(q.inverse, d, quantizer[1]);
      for (int64_t g = 0; g < count; ++g) {
        q.minimum = hn::Set(d, quantizer[0][g]);
        q.inverse = hn::Set(d, quantizer[1][g]);
        for (int64_t i = 0; i < layout.group; i += lanes, to += code_bytes) {
          const auto x = LoadLanes<kType>(d, row, (first + g) * layout.group + i);
          const auto code = q.Code(d, x);
          if constexpr (kBits == 8) {
            hn::StoreU(hn::DemoteTo(d8, code), d8, to);
          } else {
            // The bits of the lanes are apart: their sum is their union.
            const auto apart = hn::Shl(hn::BitCast(d32, code), shifts);
            const uint32_t word = hn::GetLane(hn::SumOfLanes(d32, apart));
            std::memcpy(to, &word, code_bytes);
          }
        }
      }
    }
  }
  return true;
}

template <DType kType, int kBits>
void DecodeOverChannels(const KiviLayout& layout, const uint8_t* in, const TargetRows& target) {
  const ValueTag<kBits> d;
  const hn::RebindToUnsigned<decltype(d)> d32;
  const hn::RebindToSigned<decltype(d)> di32;
  const hn::Rebind<uint8_t, decltype(d)> d8;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t channels = layout.channels();
  const int64_t groups = channels / layout.group;
  const int64_t code_bytes = lanes * kBits / 8;
  const auto shifts = hn::Mul(hn::Iota(d32, 0), hn::Set(d32, uint32_t{kBits}));
  const auto mask = hn::Set(d32, (1u << kBits) - 1);
  const uint8_t* minimums = in + layout.minimums_at();
  HWY_ALIGN uint16_t half[2][16] = {};
  HWY_ALIGN float full[2][16];
  for (int64_t token = target.skip; token < layout.tokens; ++token) {
    const uint8_t* from = in + layout.codes_at() + token * channels * kBits / 8;
    uint8_t* row = target.rows[token];
    for (int64_t group = 0; group < groups; ++group) {
      // As many groups' scales at once as a vector has lanes.
      const int64_t lane = group % lanes;
      if (lane == 0) {
        const int64_t count = std::min(lanes, groups - group);
        std::memcpy(half[0], in + (token * groups + group) * 2, count * 2);
        std::memcpy(half[1], minimums + (token * groups + group) * 2, count * 2);
        hn::Store(FromF16Bits(d, half[0]), d, full[0]);
        hn::Store(FromF16Bits(d, half[1]), d, full[1]);
      }
      const auto scale = hn::Set(d, full[0][lane]);
      const auto minimum = hn::Set(d, full[1][lane]);
      const int64_t channel = group * layout.group;
      for (int64_t i = 0; i < layout.group; i += lanes, from += code_bytes) {
        auto code = hn::Zero(di32);
        if constexpr (kBits == 8) {
          code = hn::PromoteTo(di32, hn::LoadU(d8, from));
        } else {
          uint32_t word = 0;
          std::memcpy(&word, from, code_bytes);
          code = hn::BitCast(di32, hn::And(hn::Shr(hn::Set(d32, word), shifts), mask));
        }
        StoreLanes<kType>(d, hn::MulAdd(hn::ConvertTo(d, code), scale, minimum), row, channel + i);
      }
    }
  }
}

// Whether the vectors of this instruction set fit the layout.
bool Fits(const KiviLayout& layout, bool turned) {
  // A vector's codes must fill whole bytes: four lanes of 2 bits do, Highway's one-lane target not.
  if (layout.axis == GroupAxis::kChannels) return !turned && hn::Lanes(ValueTag<4>()) >= 4;
  const KeyTag d;
  return layout.head_size % 2 == 0 &&
         layout.head_size / 2 % static_cast<int64_t>(hn::Lanes(d)) == 0;
}

template <DType kType>
bool EncodeOf(const KiviLayout& layout, const SourceRows& source, uint8_t* out) {
  if (layout.axis == GroupAxis::kTokens) return EncodeOverTokens<kType>(layout, source, out);
  if (layout.bits == 2) return EncodeOverChannels<kType, 2>(layout, source, out);
  if (layout.bits == 4) return EncodeOverChannels<kType, 4>(layout, source, out);
  return EncodeOverChannels<kType, 8>(layout, source, out);
}

template <DType kType>
void DecodeOf(const KiviLayout& layout, const uint8_t* in, const TargetRows& target) {
  if (layout.axis == GroupAxis::kTokens) return DecodeOverTokens<kType>(layout, in, target);
  if (layout.bits == 2) return DecodeOverChannels<kType, 2>(layout, in, target);
  if (layout.bits == 4) return DecodeOverChannels<kType, 4>(layout, in, target);
  DecodeOverChannels<kType, 8>(layout, in, target);
}

bool Encode(const KiviLayout& layout, const SourceRows& source, uint8_t* out) {
  if (!Fits(layout, source.rope != nullptr)) return KiviEncodeScalar(layout, source, out);
  if (source.dtype == DType::kF32) return EncodeOf<DType::kF32>(layout, source, out);
  if (source.dtype == DType::kF16) return EncodeOf<DType::kF16>(layout, source, out);
  return EncodeOf<DType::kBf16>(layout, source, out);
}

void Decode(const KiviLayout& layout, const uint8_t* in, const TargetRows& target) {
  if (!Fits(layout, target.rope != nullptr)) return KiviDecodeScalar(layout, in, target);
  if (target.dtype == DType::kF32) return DecodeOf<DType::kF32>(layout, in, target);
  if (target.dtype == DType::kF16) return DecodeOf<DType::kF16>(layout, in, target);
  DecodeOf<DType::kBf16>(layout, in, target);
}

}  // namespace HWY_NAMESPACE
}  // namespace kedge::codec
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kedge::codec {

HWY_EXPORT(Encode);
HWY_EXPORT(Decode);

bool KiviEncode(const KiviLayout& layout, const SourceRows& source, uint8_t* out) {
  return HWY_DYNAMIC_DISPATCH(Encode)(layout, source, out);
}

void KiviDecode(const KiviLayout& layout, const uint8_t* in, const TargetRows& target) {
  HWY_DYNAMIC_DISPATCH(Decode)(layout, in, target);
}

}  // namespace kedge::codec
#endif  // HWY_ONCE
