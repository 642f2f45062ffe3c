// KIVI with vectors: the same bits as kivi.cc, many channels at a time.
//
// Encoding goes by *batches* of head_size consecutive groups: for keys the channels of one head
// over a group of tokens, for values as many whole heads as a group has values. A batch's values
// are read into a tile of [group][head_size] fp32 that stays in the first cache. Decoding goes row
// by row, so that pages are written in order.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <new>

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

using Tag = hn::CappedTag<float, 16>;
using Vec = hn::Vec<Tag>;

HWY_INLINE int64_t Lanes() { return static_cast<int64_t>(hn::Lanes(Tag())); }

// Aligned floats, not initialized. Lives as long as one call.
class Scratch {
 public:
  explicit Scratch(int64_t count)
      : memory_(static_cast<float*>(::operator new(count * sizeof(float), kAlign))) {}
  ~Scratch() { ::operator delete(memory_, kAlign); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  float* get() const { return memory_; }

 private:
  static constexpr std::align_val_t kAlign{64};

  float* const memory_;
};

// One batch's groups: their extent, then what codes are made with.
struct Batch {
  explicit Batch(int64_t head_size)
      : memory(4 * head_size),
        lowest(memory.get()),
        highest(lowest + head_size),
        minimum(highest + head_size),
        inverse(minimum + head_size) {}

  Scratch memory;
  float* lowest;
  float* highest;
  float* minimum;
  float* inverse;  // 1 / scale, or 0
};

// What the values of a group, one a lane, have been so far. Magnitudes are compared as integers:
// NaN is above infinity.
struct Extent {
  Vec lowest;
  Vec highest;
  hn::Vec<hn::RebindToUnsigned<Tag>> magnitude;

  HWY_INLINE Extent()
      : lowest(hn::Set(Tag(), 3.0e38f)),
        highest(hn::Set(Tag(), -3.0e38f)),
        magnitude(hn::Zero(hn::RebindToUnsigned<Tag>())) {}

  HWY_INLINE void Add(Vec x) {
    const hn::RebindToUnsigned<Tag> d32;
    lowest = hn::Min(lowest, x);
    highest = hn::Max(highest, x);
    magnitude = hn::Max(magnitude, hn::And(hn::BitCast(d32, x), hn::Set(d32, 0x7fffffffu)));
  }
  // Over all lanes. Both at once: the largest of one half and, negated, the least of the other.
  HWY_INLINE void Reduce(float* least, float* largest) const {
#if HWY_TARGET == HWY_SCALAR
    *least = hn::GetLane(lowest);
    *largest = hn::GetLane(highest);
#else
    const Tag d;
    constexpr int kHalf = hn::MaxLanes(Tag()) / 2;
    const auto negated = hn::Neg(lowest);
    auto most = hn::Max(hn::ConcatLowerLower(d, negated, highest),
                        hn::ConcatUpperUpper(d, negated, highest));
    if constexpr (kHalf > 4) most = hn::Max(most, SwapLanes<4>(d, most));
    if constexpr (kHalf > 2) most = hn::Max(most, SwapLanes<2>(d, most));
    most = hn::Max(most, SwapLanes<1>(d, most));
    *largest = hn::GetLane(most);
    *least = -hn::GetLane(hn::ConcatUpperUpper(d, most, most));
#endif
  }
  HWY_INLINE bool Fits() const {
    const hn::RebindToSigned<Tag> di32;
    const auto most = hn::Set(di32, std::bit_cast<int32_t>(kF16Max));
    return hn::AllFalse(di32, hn::Gt(hn::BitCast(di32, magnitude), most));
  }
};

HWY_INLINE float LargestOf(Vec x) { return hn::GetLane(hn::MaxOfLanes(Tag(), x)); }

HWY_INLINE float RoundedUpToF16(float value, uint8_t* to) {
  const hn::CappedTag<float, 1> d1;
  uint16_t bits;
  ToF16Bits(d1, hn::Set(d1, value), &bits);
  if (hn::GetLane(FromF16Bits(d1, &bits)) < value) ++bits;
  std::memcpy(to, &bits, sizeof bits);
  return hn::GetLane(FromF16Bits(d1, &bits));
}

// Bits of as many lanes as there are groups left, at most a vector's.
HWY_INLINE void StoreHalves(Vec value, int64_t count, uint8_t* to) {
  HWY_ALIGN uint16_t bits[16];
  ToF16Bits(Tag(), value, bits);
  std::memcpy(to, bits, std::min(count, Lanes()) * 2);
}

HWY_INLINE Vec RoundedHalves(Vec value) {
  HWY_ALIGN uint16_t bits[16];
  ToF16Bits(Tag(), value, bits);
  return FromF16Bits(Tag(), bits);
}

HWY_INLINE void StoreBytes(Vec value, int64_t count, uint8_t* to) {
  const hn::Rebind<uint8_t, Tag> d8;
  const hn::RebindToSigned<Tag> di32;
  HWY_ALIGN uint8_t bytes[16];
  const auto low = hn::And(hn::ConvertTo(di32, value), hn::Set(di32, 0xff));
  hn::StoreU(hn::DemoteTo(d8, low), d8, bytes);
  std::memcpy(to, bytes, std::min(count, Lanes()));
}

HWY_INLINE Vec InverseOf(Vec scale) {
  const Tag d;
  return hn::IfThenElseZero(hn::Gt(scale, hn::Zero(d)), hn::Div(hn::Set(d, 1.0f), scale));
}

// f16 scales and minimums of `count` groups from `first` on.
HWY_INLINE void RoundToF16(const KiviLayout& layout, int64_t first, int64_t count, Batch& batch,
                           uint8_t* out) {
  const Tag d;
  const auto zero = hn::Zero(d);
  const auto levels = hn::Set(d, static_cast<float>((1 << layout.bits) - 1));
  for (int64_t i = 0; i < count; i += Lanes()) {
    const auto lowest = hn::Add(hn::Load(d, batch.lowest + i), zero);
    StoreHalves(lowest, count - i, out + layout.minimums_at() + (first + i) * 2);
    const auto minimum = RoundedHalves(lowest);
    const auto range =
        hn::Add(hn::Max(hn::Sub(hn::Load(d, batch.highest + i), minimum), zero), zero);
    const auto wanted = hn::Div(range, levels);
    StoreHalves(wanted, count - i, out + (first + i) * 2);
    hn::Store(minimum, d, batch.minimum + i);
    hn::Store(InverseOf(RoundedHalves(wanted)), d, batch.inverse + i);
  }
}

// Two-level scales of one union, which a batch is.
HWY_INLINE void RoundToUnion(const KiviLayout& layout, int64_t first, int64_t count, Batch& batch,
                             uint8_t* out) {
  const Tag d;
  const auto zero = hn::Zero(d);
  const int64_t index = first / layout.head_size;
  const float levels = static_cast<float>((1 << layout.bits) - 1);
  auto largest = zero;
  for (int64_t i = 0; i < count; i += Lanes()) {
    const auto lowest = hn::Load(d, batch.lowest + i);
    const auto uneven = hn::Lt(lowest, hn::Load(d, batch.highest + i));
    largest = hn::Max(largest, hn::IfThenElseZero(uneven, hn::Abs(lowest)));
  }
  const float m = RoundedUpToF16(LargestOf(largest), out + layout.minimums_at() + index * 2);
  auto widest = zero;
  for (int64_t i = 0; i < count; i += Lanes()) {
    const auto lowest = hn::Load(d, batch.lowest + i);
    const auto highest = hn::Load(d, batch.highest + i);
    const auto uneven = hn::Lt(lowest, highest);
    auto root = hn::Mul(hn::Sqrt(hn::Div(hn::Abs(lowest), hn::Set(d, m))), hn::Set(d, 128.0f));
    if (!(m > 0.0f)) root = zero;
    const auto below = hn::Max(hn::Neg(hn::Ceil(root)), hn::Set(d, -128.0f));
    const auto above = hn::Min(hn::Floor(root), hn::Set(d, 127.0f));
    auto n = hn::IfThenElse(hn::Lt(lowest, zero), below, above);
    n = hn::IfThenElseZero(uneven, n);
    StoreBytes(n, count - i, out + layout.minimum_codes_at() + first + i);
    const auto squared = hn::Mul(hn::Mul(n, hn::Abs(n)), hn::Set(d, 0x1p-14f));
    const auto minimum = hn::Mul(hn::Set(d, m), squared);
    widest = hn::Max(widest, hn::IfThenElseZero(uneven, hn::Sub(highest, minimum)));
    const auto equal = RoundedHalves(hn::Add(lowest, zero));
    hn::Store(hn::IfThenElse(uneven, minimum, equal), d, batch.minimum + i);
  }
  const float s = RoundedUpToF16(LargestOf(widest) / levels * kKiviScaleMargin, out + index * 2);
  for (int64_t i = 0; i < count; i += Lanes()) {
    const auto highest = hn::Load(d, batch.highest + i);
    const auto uneven = hn::Lt(hn::Load(d, batch.lowest + i), highest);
    const auto range = hn::Max(hn::Sub(highest, hn::Load(d, batch.minimum + i)), zero);
    const auto wanted = hn::Div(range, hn::Set(d, levels));
    auto root = hn::Mul(hn::Sqrt(hn::Div(wanted, hn::Set(d, s))), hn::Set(d, 256.0f));
    if (!(s > 0.0f)) root = zero;
    auto c = hn::Min(hn::Max(hn::Ceil(root), hn::Set(d, 1.0f)), hn::Set(d, 255.0f));
    c = hn::IfThenElseZero(uneven, c);
    StoreBytes(c, count - i, out + layout.scale_codes_at() + first + i);
    const auto scale = hn::Mul(hn::Set(d, s), hn::Mul(hn::Mul(c, c), hn::Set(d, 0x1p-16f)));
    hn::Store(InverseOf(scale), d, batch.inverse + i);
  }
}

HWY_INLINE void Round(const KiviLayout& layout, int64_t first, int64_t count, Batch& batch,
                      uint8_t* out) {
  if (layout.two_level()) {
    RoundToUnion(layout, first, count, batch, out);
  } else {
    RoundToF16(layout, first, count, batch, out);
  }
}

// After the codes, which are 0 in such groups.
HWY_INLINE void KeepEqualValues(const KiviLayout& layout, int64_t first, int64_t count,
                                const Batch& batch, uint8_t* out) {
  if (!layout.two_level()) return;
  const uint8_t* codes = out + layout.scale_codes_at() + first;
  if (std::find(codes, codes + count, 0) == codes + count) return;
  const hn::CappedTag<float, 1> d1;
  for (int64_t g = 0; g < count; ++g) {
    if (codes[g] != 0) continue;
    uint16_t bits;
    ToF16Bits(d1, hn::Set(d1, batch.minimum[g]), &bits);
    std::memcpy(out + layout.codes_at() + layout.word_of_group(first + g) * 4, &bits, sizeof bits);
  }
}

HWY_INLINE hn::Vec<hn::RebindToSigned<Tag>> CodeOf(Vec x, Vec minimum, Vec inverse, Vec levels) {
  const auto steps = hn::Mul(hn::Sub(x, minimum), inverse);
  return hn::NearestInt(hn::Min(hn::Max(steps, hn::Zero(Tag())), levels));
}

// The words of one head's channels over a group of tokens; x is [group][head_size].
HWY_INLINE void CodeColumns(const KiviLayout& layout, const Batch& batch, const float* x,
                            int64_t begin, uint32_t* words) {
  const Tag d;
  const hn::RebindToUnsigned<Tag> d32;
  const int64_t per_word = layout.codes_per_word();
  const auto levels = hn::Set(d, static_cast<float>((1 << layout.bits) - 1));
  for (int64_t i = 0; i < layout.head_size; i += Lanes()) {
    const auto minimum = hn::Load(d, batch.minimum + i);
    const auto inverse = hn::Load(d, batch.inverse + i);
    uint32_t* to = words + i;
    for (int64_t first = 0; first < layout.group; first += per_word, to += layout.channels()) {
      auto word = hn::Zero(d32);
      for (int64_t j = std::max<int64_t>(begin - first, 0); j < per_word; ++j) {
        const auto value = hn::Load(d, x + (first + j) * layout.head_size + i);
        const auto code = hn::BitCast(d32, CodeOf(value, minimum, inverse, levels));
        word = hn::Or(word, hn::ShiftLeftSame(code, static_cast<int>(j) * layout.bits));
      }
      hn::StoreU(word, d32, to);
    }
  }
}

template <DType kType>
bool EncodeOverTokens(const KiviLayout& layout, const SourceRows& source, uint8_t* out) {
  const Tag d;
  const int64_t channels = layout.channels();
  const int64_t size = layout.head_size;
  const Scratch tile(layout.group * size);
  Batch batch(size);
  float* x = tile.get();
  for (int64_t first = 0; first < layout.tokens; first += layout.group) {
    const int64_t begin = std::max<int64_t>(source.skip - first, 0);
    for (int64_t head = 0; head < layout.heads; ++head) {
      for (int64_t t = begin; t < layout.group; ++t) {
        // The next head's values: the hardware does not guess them.
        const uint8_t* next =
            source.data + ((first + t) * channels + (head + 1) * size) * kBytesOf<kType>;
        for (int64_t at = 0; at < size * kBytesOf<kType>; at += 64)
          __builtin_prefetch(next + at, /*rw=*/0, /*locality=*/3);
        ReadHead<kType>(d, source, first + t, head * size, channels, size, x + t * size);
      }
      for (int64_t i = 0; i < size; i += Lanes()) {
        Extent extent;
        for (int64_t t = begin; t < layout.group; ++t) extent.Add(hn::Load(d, x + t * size + i));
        if (!extent.Fits()) return false;
        hn::Store(extent.lowest, d, batch.lowest + i);
        hn::Store(extent.highest, d, batch.highest + i);
      }
      const int64_t group = first / layout.group * channels + head * size;
      Round(layout, group, size, batch, out);
      auto* words = reinterpret_cast<uint32_t*>(out + layout.codes_at());
      CodeColumns(layout, batch, x, begin, words + layout.word_of_group(group));
      KeepEqualValues(layout, group, size, batch, out);
    }
  }
  return true;
}

// Vectors whose codes fit one word; bytes need no packing.
template <int kBits>
using ValueTag = hn::CappedTag<float, kBits == 4 ? 8 : 16>;

// The codes of `count` groups of neighbours.
template <int kBits>
HWY_INLINE void CodeRows(const KiviLayout& layout, const Batch& batch, const float* x,
                         int64_t count, uint8_t* to) {
  const ValueTag<kBits> d;
  const hn::RebindToUnsigned<decltype(d)> d32;
  const hn::Rebind<uint8_t, decltype(d)> d8;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t code_bytes = lanes * kBits / 8;
  const auto shifts = hn::Mul(hn::Iota(d32, 0), hn::Set(d32, uint32_t{kBits}));
  const auto levels = hn::Set(d, static_cast<float>((1 << kBits) - 1));
  for (int64_t g = 0; g < count; ++g) {
    const auto minimum = hn::Set(d, batch.minimum[g]);
    const auto inverse = hn::Set(d, batch.inverse[g]);
    for (int64_t i = 0; i < layout.group; i += lanes, to += code_bytes) {
      const auto steps = hn::Mul(hn::Sub(hn::Load(d, x + g * layout.group + i), minimum), inverse);
      const auto code = hn::NearestInt(hn::Min(hn::Max(steps, hn::Zero(d)), levels));
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

template <DType kType, int kBits>
bool EncodeOverChannels(const KiviLayout& layout, const SourceRows& source, uint8_t* out) {
  const Tag d;
  const int64_t size = layout.head_size;
  const int64_t per_head = size / layout.group;
  const Scratch tile(layout.group * size);
  Batch batch(size);
  float* x = tile.get();
  // Heads of all tokens, one after the other: a batch is `group` of them.
  const int64_t rows = layout.tokens * layout.heads;
  for (int64_t first = 0; first < rows; first += layout.group) {
    const int64_t count = std::min(layout.group, rows - first);
    for (int64_t r = 0; r < count; ++r) {
      const int64_t token = (first + r) / layout.heads;
      const int64_t head = (first + r) % layout.heads;
      if (token < source.skip) {
        std::fill_n(x + r * size, size, 0.0f);
      } else {
        ReadHead<kType>(d, source, token, head * size, layout.channels(), size, x + r * size);
      }
    }
    const int64_t groups = count * per_head;
    Extent all;
    for (int64_t g = 0; g < groups; ++g) {
      Extent extent;
      for (int64_t i = 0; i < layout.group; i += Lanes())
        extent.Add(hn::Load(d, x + g * layout.group + i));
      extent.Reduce(&batch.lowest[g], &batch.highest[g]);
      all.magnitude = hn::Max(all.magnitude, extent.magnitude);
    }
    if (!all.Fits()) return false;
    for (int64_t g = groups; g < size; ++g) batch.lowest[g] = batch.highest[g] = 0.0f;
    Round(layout, first * per_head, groups, batch, out);
    CodeRows<kBits>(layout, batch, x, groups, out + layout.codes_at() + first * size * kBits / 8);
    KeepEqualValues(layout, first * per_head, groups, batch, out);
  }
  return true;
}

// Scales and minimums of groups from `first` on, `count` of them rounded up to vectors.
HWY_INLINE void LoadScales(const KiviLayout& layout, const uint8_t* in, int64_t first,
                           int64_t count, float* scale, float* minimum) {
  const Tag d;
  HWY_ALIGN uint16_t halves[2][16] = {};
  for (int64_t i = 0; i < count; i += Lanes()) {
    const int64_t some = std::min(count - i, Lanes());
    std::memcpy(halves[0], in + (first + i) * 2, some * 2);
    std::memcpy(halves[1], in + layout.minimums_at() + (first + i) * 2, some * 2);
    hn::Store(FromF16Bits(d, halves[0]), d, scale + i);
    hn::Store(FromF16Bits(d, halves[1]), d, minimum + i);
  }
}

// The same of one union, which begins at `first`.
HWY_INLINE void LoadUnion(const KiviLayout& layout, const uint8_t* in, int64_t first, int64_t count,
                          float* scale, float* minimum) {
  const Tag d;
  const hn::CappedTag<float, 1> d1;
  const hn::Rebind<uint8_t, Tag> d8;
  const hn::Rebind<int8_t, Tag> di8;
  const hn::RebindToSigned<Tag> di32;
  HWY_ALIGN uint8_t bytes[2][16] = {};
  uint16_t halves[2];
  std::memcpy(&halves[0], in + first / layout.head_size * 2, 2);
  std::memcpy(&halves[1], in + layout.minimums_at() + first / layout.head_size * 2, 2);
  const auto s = hn::Set(d, hn::GetLane(FromF16Bits(d1, &halves[0])));
  const auto m = hn::Set(d, hn::GetLane(FromF16Bits(d1, &halves[1])));
  const uint8_t* codes = in + layout.scale_codes_at() + first;
  for (int64_t i = 0; i < count; i += Lanes()) {
    const int64_t some = std::min(count - i, Lanes());
    std::memcpy(bytes[0], codes + i, some);
    std::memcpy(bytes[1], in + layout.minimum_codes_at() + first + i, some);
    const auto c = hn::ConvertTo(d, hn::PromoteTo(di32, hn::Load(d8, bytes[0])));
    const auto n8 = hn::Load(di8, reinterpret_cast<const int8_t*>(bytes[1]));
    const auto n = hn::ConvertTo(d, hn::PromoteTo(di32, n8));
    hn::Store(hn::Mul(s, hn::Mul(hn::Mul(c, c), hn::Set(d, 0x1p-16f))), d, scale + i);
    hn::Store(hn::Mul(m, hn::Mul(hn::Mul(n, hn::Abs(n)), hn::Set(d, 0x1p-14f))), d, minimum + i);
  }
  if (std::find(codes, codes + count, 0) == codes + count) return;
  for (int64_t g = 0; g < count; ++g) {
    if (codes[g] != 0) continue;
    std::memcpy(halves, in + layout.codes_at() + layout.word_of_group(first + g) * 4, 2);
    minimum[g] = hn::GetLane(FromF16Bits(d1, halves));
  }
}

// A token's values of one head, over channels whose words lie side by side.
struct ColumnValues {
  const uint32_t* words;
  const float* scale;
  const float* minimum;
  hn::Vec<hn::RebindToUnsigned<Tag>> mask;
  int shift;

  HWY_INLINE Vec operator()(int64_t i) const {
    const Tag d;
    const hn::RebindToUnsigned<Tag> d32;
    const hn::RebindToSigned<Tag> di32;
    const auto code = hn::And(hn::ShiftRightSame(hn::LoadU(d32, words + i), shift), mask);
    const auto steps = hn::ConvertTo(d, hn::BitCast(di32, code));
    return hn::Add(hn::Mul(steps, hn::Load(d, scale + i)), hn::Load(d, minimum + i));
  }
};

template <DType kType>
void DecodeOverTokens(const KiviLayout& layout, const uint8_t* in, const TargetRows& target) {
  const Tag d;
  const hn::RebindToUnsigned<Tag> d32;
  const int64_t channels = layout.channels();
  const int64_t size = layout.head_size;
  const int64_t per_word = layout.codes_per_word();
  const auto* words = reinterpret_cast<const uint32_t*>(in + layout.codes_at());
  const auto mask = hn::Set(d32, (1u << layout.bits) - 1);
  const Scratch scratch(2 * channels + size);
  float* scale = scratch.get();
  float* minimum = scale + channels;
  for (int64_t token = target.skip; token < layout.tokens; ++token) {
    if (token == target.skip || token % layout.group == 0) {
      const int64_t first = token / layout.group * channels;
      if (layout.two_level()) {
        for (int64_t i = 0; i < channels; i += size)
          LoadUnion(layout, in, first + i, size, scale + i, minimum + i);
      } else {
        LoadScales(layout, in, first, channels, scale, minimum);
      }
    }
    const uint32_t* row = words + token / per_word * channels;
    const int shift = static_cast<int>(token % per_word) * layout.bits;
    uint8_t* const next = token + 1 < layout.tokens ? target.rows[token + 1] : nullptr;
    for (int64_t channel = 0; channel < channels; channel += size) {
      if (next != nullptr) FetchForWriting<kType>(next, channel, size);
      const ColumnValues values{row + channel, scale + channel, minimum + channel, mask, shift};
      WriteHead<kType>(d, target, token, channel, size, minimum + channels, values);
    }
  }
}

// As many codes of neighbours as a vector has lanes.
template <int kBits>
HWY_INLINE hn::Vec<hn::RebindToSigned<Tag>> LoadCodes(const uint8_t* from) {
  const Tag d;
  const hn::RebindToUnsigned<Tag> d32;
  const hn::RebindToSigned<Tag> di32;
  const hn::Rebind<uint8_t, Tag> d8;
  if constexpr (kBits == 8) {
    return hn::PromoteTo(di32, hn::LoadU(d8, from));
  } else if constexpr (kBits == 4 && hn::MaxLanes(Tag()) == 16) {
    // Two words, each to its half of the lanes.
    uint32_t two[2];
    std::memcpy(two, from, sizeof two);
    const auto half = hn::Lt(hn::Iota(d32, 0), hn::Set(d32, 8u));
    const auto word = hn::IfThenElse(half, hn::Set(d32, two[0]), hn::Set(d32, two[1]));
    const auto shifts = hn::ShiftLeft<2>(hn::And(hn::Iota(d32, 0), hn::Set(d32, 7u)));
    return hn::BitCast(di32, hn::And(hn::Shr(word, shifts), hn::Set(d32, 15u)));
  } else {
    uint32_t word = 0;
    std::memcpy(&word, from, hn::Lanes(d) * kBits / 8);
    const auto shifts = hn::Mul(hn::Iota(d32, 0), hn::Set(d32, uint32_t{kBits}));
    const auto mask = hn::Set(d32, (1u << kBits) - 1);
    return hn::BitCast(di32, hn::And(hn::Shr(hn::Set(d32, word), shifts), mask));
  }
}

// The values of one head of a token, whose codes are neighbours.
template <int kBits>
struct RowValues {
  const uint8_t* codes;
  const float* scale;
  const float* minimum;
  int group_bits;

  HWY_INLINE Vec operator()(int64_t i) const {
    const Tag d;
    const auto steps = hn::ConvertTo(d, LoadCodes<kBits>(codes + i * kBits / 8));
    const int64_t group = i >> group_bits;
    return hn::Add(hn::Mul(steps, hn::Set(d, scale[group])), hn::Set(d, minimum[group]));
  }
};

template <DType kType, int kBits>
void DecodeOverChannels(const KiviLayout& layout, const uint8_t* in, const TargetRows& target) {
  const Tag d;
  const int64_t size = layout.head_size;
  const int group_bits = std::countr_zero(static_cast<uint64_t>(layout.group));
  const int64_t per_head = size / layout.group;
  const Scratch scratch(3 * size);
  float* scale = scratch.get();
  float* minimum = scale + size;
  const int64_t rows = layout.tokens * layout.heads;
  for (int64_t first = 0; first < rows; first += layout.group) {
    const int64_t end = std::min(first + layout.group, rows);
    if (end <= target.skip * layout.heads) continue;
    const int64_t groups = (end - first) * per_head;
    if (layout.two_level()) {
      LoadUnion(layout, in, first * per_head, groups, scale, minimum);
    } else {
      LoadScales(layout, in, first * per_head, groups, scale, minimum);
    }
    for (int64_t row = std::max(first, target.skip * layout.heads); row < end; ++row) {
      const uint8_t* codes = in + layout.codes_at() + row * size * kBits / 8;
      const int64_t group = (row - first) * per_head;
      if (const int64_t next = row + layout.heads; next < rows)
        FetchForWriting<kType>(target.rows[next / layout.heads], next % layout.heads * size, size);
      const RowValues<kBits> values{codes, scale + group, minimum + group, group_bits};
      WriteHead<kType>(d, target, row / layout.heads, row % layout.heads * size, size,
                       minimum + size, values);
    }
  }
}

// Whether the vectors of this instruction set fit the layout. Four lanes of 2 bits fill a byte;
// Highway's one-lane target does not.
bool Fits(const KiviLayout& layout, bool hadamard) {
  return hn::Lanes(ValueTag<4>()) >= 4 && HeadFits(Tag(), layout.head_size, hadamard);
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
  if (!Fits(layout, source.hadamard)) return KiviEncodeScalar(layout, source, out);
  if (source.dtype == DType::kF32) return EncodeOf<DType::kF32>(layout, source, out);
  if (source.dtype == DType::kF16) return EncodeOf<DType::kF16>(layout, source, out);
  return EncodeOf<DType::kBf16>(layout, source, out);
}

void Decode(const KiviLayout& layout, const uint8_t* in, const TargetRows& target) {
  if (!Fits(layout, target.hadamard)) return KiviDecodeScalar(layout, in, target);
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
