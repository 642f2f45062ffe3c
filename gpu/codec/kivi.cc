#include "gpu/codec/kivi.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gpu/kernels/cast.h"
#include "proto/wire.h"

namespace kedge::codec {
namespace {

uint16_t ToF16(float value) {
  uint16_t bits;
  kernels::CastFromFloat(DType::kF16, &value, 1, &bits);
  return bits;
}

float FromF16(uint16_t bits) {
  float value;
  kernels::CastToFloat(DType::kF16, &bits, 1, &value);
  return value;
}

// Where a value's group and code are.
struct Place {
  int64_t group;
  int64_t word;
  int shift;
};

Place PlaceOf(const KiviLayout& layout, int64_t token, int64_t channel) {
  const int64_t per_word = layout.codes_per_word();
  const int64_t channels = layout.channels();
  if (layout.axis == GroupAxis::kTokens) {
    return {token / layout.group * channels + channel, token / per_word * channels + channel,
            static_cast<int>(token % per_word) * layout.bits};
  }
  return {token * (channels / layout.group) + channel / layout.group,
          token * (channels / per_word) + channel / per_word,
          static_cast<int>(channel % per_word) * layout.bits};
}

// The least f16 that is not below `value`, which is in [0, 65504].
float RoundedUpToF16(float value, uint16_t* bits) {
  *bits = ToF16(value);
  if (FromF16(*bits) < value) ++*bits;
  return FromF16(*bits);
}

// What quantizing needs to know of each group.
struct Groups {
  explicit Groups(int64_t count)
      : lowest(count, std::numeric_limits<float>::infinity()),
        highest(count, -std::numeric_limits<float>::infinity()),
        minimum(count),
        inverse(count) {}

  bool skipped(int64_t group) const { return lowest[group] > highest[group]; }
  bool equal(int64_t group) const { return !(lowest[group] < highest[group]); }

  std::vector<float> lowest;
  std::vector<float> highest;
  std::vector<float> minimum;
  std::vector<float> inverse;  // 1 / scale, or 0
};

void RoundToF16(const KiviLayout& layout, Groups& groups, uint8_t* out) {
  const float levels = static_cast<float>((1 << layout.bits) - 1);
  for (int64_t group = 0; group < layout.groups(); ++group) {
    if (groups.skipped(group)) continue;
    // + 0.0f: a zero has no sign, in whatever order the values were compared.
    const uint16_t minimum16 = ToF16(groups.lowest[group] + 0.0f);
    groups.minimum[group] = FromF16(minimum16);
    const float range = std::max(groups.highest[group] - groups.minimum[group], 0.0f) + 0.0f;
    const uint16_t scale16 = ToF16(range / levels);
    const float scale = FromF16(scale16);
    groups.inverse[group] = scale > 0.0f ? 1.0f / scale : 0.0f;
    StoreLe(out + group * 2, scale16);
    StoreLe(out + layout.minimums_at() + group * 2, minimum16);
  }
}

// The groups [first, first + head_size) of one union.
void RoundToUnion(const KiviLayout& layout, int64_t index, Groups& groups, uint8_t* out) {
  const int64_t first = index * layout.head_size;
  const int64_t end = std::min(first + layout.head_size, layout.groups());
  const float levels = static_cast<float>((1 << layout.bits) - 1);
  uint8_t* scale_codes = out + layout.scale_codes_at();
  uint8_t* minimum_codes = out + layout.minimum_codes_at();
  float largest = 0.0f;
  for (int64_t g = first; g < end; ++g) {
    if (!groups.equal(g)) largest = std::max(largest, std::abs(groups.lowest[g]));
  }
  uint16_t bits;
  const float m = RoundedUpToF16(largest, &bits);
  StoreLe(out + layout.minimums_at() + index * 2, bits);
  float widest = 0.0f;
  for (int64_t g = first; g < end; ++g) {
    if (groups.equal(g)) continue;
    const float lowest = groups.lowest[g];
    const float root = m > 0.0f ? std::sqrt(std::abs(lowest) / m) * 128.0f : 0.0f;
    const float n =
        lowest < 0.0f ? std::max(-std::ceil(root), -128.0f) : std::min(std::floor(root), 127.0f);
    minimum_codes[g] = static_cast<uint8_t>(static_cast<int8_t>(n));
    groups.minimum[g] = m * (n * std::abs(n) * 0x1p-14f);
    widest = std::max(widest, groups.highest[g] - groups.minimum[g]);
  }
  const float s = RoundedUpToF16(widest / levels * kKiviScaleMargin, &bits);
  StoreLe(out + index * 2, bits);
  for (int64_t g = first; g < end; ++g) {
    if (groups.equal(g)) continue;
    const float wanted = std::max(groups.highest[g] - groups.minimum[g], 0.0f) / levels;
    const float root = s > 0.0f ? std::sqrt(wanted / s) * 256.0f : 0.0f;
    const float c = std::clamp(std::ceil(root), 1.0f, 255.0f);
    scale_codes[g] = static_cast<uint8_t>(c);
    const float scale = s * (c * c * 0x1p-16f);
    groups.inverse[g] = scale > 0.0f ? 1.0f / scale : 0.0f;
  }
}

// Groups of equal values, whose codes are 0, keep the value there.
void KeepEqualValues(const KiviLayout& layout, const Groups& groups, uint8_t* words) {
  for (int64_t g = 0; g < layout.groups(); ++g) {
    if (groups.skipped(g) || !groups.equal(g)) continue;
    StoreLe(words + layout.word_of_group(g) * 4, ToF16(groups.lowest[g] + 0.0f));
  }
}

// Scale and minimum of a group, as they were written.
struct Scale {
  float scale;
  float minimum;
};

Scale ScaleOf(const KiviLayout& layout, const uint8_t* in, int64_t group) {
  if (!layout.two_level()) {
    return {FromF16(LoadLe<uint16_t>(in + group * 2)),
            FromF16(LoadLe<uint16_t>(in + layout.minimums_at() + group * 2))};
  }
  const float c = in[layout.scale_codes_at() + group];
  if (c == 0.0f) {
    const uint8_t* words = in + layout.codes_at();
    return {0.0f, FromF16(LoadLe<uint16_t>(words + layout.word_of_group(group) * 4))};
  }
  const float n = static_cast<int8_t>(in[layout.minimum_codes_at() + group]);
  const int64_t index = group / layout.head_size;
  const float s = FromF16(LoadLe<uint16_t>(in + index * 2));
  const float m = FromF16(LoadLe<uint16_t>(in + layout.minimums_at() + index * 2));
  return {s * (c * c * 0x1p-16f), m * (n * std::abs(n) * 0x1p-14f)};
}

bool IsFinite16(uint16_t bits) { return (bits & 0x7c00) != 0x7c00; }

absl::Status BadScale(const std::string& part, const std::string& what, uint16_t bits,
                      const char* why) {
  return absl::InvalidArgumentError(
      absl::StrCat("part ", part, ": ", what, ": ", FromF16(bits), " ", why));
}

absl::Status CheckTwoLevel(const KiviLayout& layout, const std::string& part, const uint8_t* in) {
  for (int64_t i = 0; i < layout.unions(); ++i) {
    const auto s = LoadLe<uint16_t>(in + i * 2);
    const auto m = LoadLe<uint16_t>(in + layout.minimums_at() + i * 2);
    if (s >= 0x7c00)
      return BadScale(part, absl::StrCat("scale of head ", i), s, "is negative or not finite");
    if (m >= 0x7c00)
      return BadScale(part, absl::StrCat("minimum of head ", i), m, "is negative or not finite");
  }
  const uint8_t* codes = in + layout.scale_codes_at();
  for (const uint8_t* at = codes; at < codes + layout.groups(); ++at) {
    at = static_cast<const uint8_t*>(std::memchr(at, 0, codes + layout.groups() - at));
    if (at == nullptr) break;
    const int64_t group = at - codes;
    const auto value = LoadLe<uint16_t>(in + layout.codes_at() + layout.word_of_group(group) * 4);
    if (!IsFinite16(value))
      return BadScale(part, absl::StrCat("value of group ", group), value, "is not finite");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<KiviLayout> MakeKiviLayout(int bits, int64_t group, GroupAxis axis, int64_t tokens,
                                          int64_t heads, int64_t head_size, GroupScales scales) {
  if (bits != 2 && bits != 4 && bits != 8)
    return absl::InvalidArgumentError(absl::StrCat("bits: ", bits, " is none of 2, 4, 8"));
  if (group != 32 && group != 64 && group != 128)
    return absl::InvalidArgumentError(absl::StrCat("group: ", group, " is none of 32, 64, 128"));
  if (tokens <= 0 || heads <= 0 || head_size <= 0) {
    return absl::InvalidArgumentError(absl::StrCat("shape: ", tokens, " tokens, ", heads,
                                                   " heads of ", head_size, " is not positive"));
  }
  const bool over_tokens = axis == GroupAxis::kTokens;
  const int64_t length = over_tokens ? tokens : head_size;
  if (length % group != 0) {
    return absl::InvalidArgumentError(absl::StrCat("group: ", group, " does not divide ",
                                                   over_tokens ? "block_tokens " : "head_size ",
                                                   length));
  }
  return KiviLayout{bits, group, axis, tokens, heads, head_size, scales};
}

bool KiviEncodeScalar(const KiviLayout& layout, const SourceRows& source, uint8_t* out) {
  const int64_t channels = layout.channels();
  const float levels = static_cast<float>((1 << layout.bits) - 1);
  Groups groups(layout.groups());
  std::vector<float> row(channels);
  std::memset(out, 0, layout.bytes());
  for (int64_t token = source.skip; token < layout.tokens; ++token) {
    ReadRow(source, token, layout.heads, layout.head_size, row.data());
    for (int64_t channel = 0; channel < channels; ++channel) {
      if (!(std::abs(row[channel]) <= kF16Max)) return false;
      const int64_t group = PlaceOf(layout, token, channel).group;
      groups.lowest[group] = std::min(groups.lowest[group], row[channel]);
      groups.highest[group] = std::max(groups.highest[group], row[channel]);
    }
  }
  if (layout.two_level()) {
    for (int64_t i = 0; i < layout.unions(); ++i) RoundToUnion(layout, i, groups, out);
  } else {
    RoundToF16(layout, groups, out);
  }
  uint8_t* words = out + layout.codes_at();
  for (int64_t token = source.skip; token < layout.tokens; ++token) {
    ReadRow(source, token, layout.heads, layout.head_size, row.data());
    for (int64_t channel = 0; channel < channels; ++channel) {
      const Place place = PlaceOf(layout, token, channel);
      const float steps =
          (row[channel] - groups.minimum[place.group]) * groups.inverse[place.group];
      const auto code = static_cast<uint32_t>(std::nearbyint(std::clamp(steps, 0.0f, levels)));
      const auto word = LoadLe<uint32_t>(words + place.word * 4);
      StoreLe(words + place.word * 4, word | code << place.shift);
    }
  }
  if (layout.two_level()) KeepEqualValues(layout, groups, words);
  return true;
}

absl::Status KiviCheck(const KiviLayout& layout, const std::string& part, const uint8_t* in) {
  // Four at a time; adding 0x400 carries an exponent of ones into the sign's place.
  constexpr uint64_t kSigns = 0x8000800080008000u;
  constexpr uint64_t kOnes = 0x0400040004000400u;
  if (layout.two_level()) return CheckTwoLevel(layout, part, in);
  const int64_t count = layout.groups();
  const uint8_t* minimums = in + layout.minimums_at();
  uint64_t bad = 0;
  int64_t i = 0;
  for (; i + 4 <= count; i += 4) {
    const auto scale = LoadLe<uint64_t>(in + i * 2);
    const auto minimum = LoadLe<uint64_t>(minimums + i * 2);
    bad |= scale | ((scale & ~kSigns) + kOnes) | ((minimum & ~kSigns) + kOnes);
  }
  if ((bad & kSigns) == 0 && i == count) return absl::OkStatus();
  for (i = 0; i < count; ++i) {
    const auto scale = LoadLe<uint16_t>(in + i * 2);
    const auto minimum = LoadLe<uint16_t>(minimums + i * 2);
    if (scale < 0x7c00 && IsFinite16(minimum)) continue;
    if (scale >= 0x7c00)
      return BadScale(part, absl::StrCat("scale of group ", i), scale, "is negative or not finite");
    return BadScale(part, absl::StrCat("minimum of group ", i), minimum, "is not finite");
  }
  return absl::OkStatus();
}

void KiviDecodeScalar(const KiviLayout& layout, const uint8_t* in, const TargetRows& target) {
  const int64_t channels = layout.channels();
  const uint32_t mask = (1u << layout.bits) - 1;
  const uint8_t* words = in + layout.codes_at();
  std::vector<float> row(channels);
  for (int64_t token = target.skip; token < layout.tokens; ++token) {
    for (int64_t channel = 0; channel < channels; ++channel) {
      const Place place = PlaceOf(layout, token, channel);
      const Scale group = ScaleOf(layout, in, place.group);
      const uint32_t code = LoadLe<uint32_t>(words + place.word * 4) >> place.shift & mask;
      row[channel] = static_cast<float>(code) * group.scale + group.minimum;
    }
    WriteRow(target, token, layout.heads, layout.head_size, row.data());
  }
}

}  // namespace kedge::codec
