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

}  // namespace

absl::StatusOr<KiviLayout> MakeKiviLayout(int bits, int64_t group, GroupAxis axis, int64_t tokens,
                                          int64_t heads, int64_t head_size) {
  if (bits != 2 && bits != 4 && bits != 8)
    return absl::InvalidArgumentError(absl::StrCat("bits: ", bits, " is none of 2, 4, 8"));
  if (group != 32 && group != 64 && group != kKiviGroupMax)
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
  return KiviLayout{bits, group, axis, tokens, heads, head_size};
}

bool KiviEncodeScalar(const KiviLayout& layout, const SourceRows& source, uint8_t* out) {
  const int64_t channels = layout.channels();
  const float levels = static_cast<float>((1 << layout.bits) - 1);
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::vector<float> lowest(layout.groups(), kInfinity);
  std::vector<float> highest(layout.groups(), -kInfinity);
  std::vector<float> row(channels);
  std::memset(out, 0, layout.bytes());
  for (int64_t token = source.skip; token < layout.tokens; ++token) {
    ReadRow(source, token, layout.heads, layout.head_size, row.data());
    for (int64_t channel = 0; channel < channels; ++channel) {
      if (!(std::abs(row[channel]) <= kF16Max)) return false;
      const int64_t group = PlaceOf(layout, token, channel).group;
      lowest[group] = std::min(lowest[group], row[channel]);
      highest[group] = std::max(highest[group], row[channel]);
    }
  }
  std::vector<float> minimum(layout.groups());
  std::vector<float> inverse(layout.groups());
  for (int64_t group = 0; group < layout.groups(); ++group) {
    if (lowest[group] > highest[group]) continue;  // of skipped tokens only
    // + 0.0f: a zero has no sign, in whatever order the values were compared.
    const uint16_t minimum16 = ToF16(lowest[group] + 0.0f);
    minimum[group] = FromF16(minimum16);
    const float range = std::max(highest[group] - minimum[group], 0.0f) + 0.0f;
    const uint16_t scale16 = ToF16(range / levels);
    const float scale = FromF16(scale16);
    inverse[group] = scale > 0.0f ? 1.0f / scale : 0.0f;
    StoreLe(out + group * 2, scale16);
    StoreLe(out + layout.minimums_at() + group * 2, minimum16);
  }
  uint8_t* words = out + layout.codes_at();
  for (int64_t token = source.skip; token < layout.tokens; ++token) {
    ReadRow(source, token, layout.heads, layout.head_size, row.data());
    for (int64_t channel = 0; channel < channels; ++channel) {
      const Place place = PlaceOf(layout, token, channel);
      const float steps = (row[channel] - minimum[place.group]) * inverse[place.group];
      const auto code = static_cast<uint32_t>(std::nearbyint(std::clamp(steps, 0.0f, levels)));
      const auto word = LoadLe<uint32_t>(words + place.word * 4);
      StoreLe(words + place.word * 4, word | code << place.shift);
    }
  }
  return true;
}

absl::Status KiviCheck(const KiviLayout& layout, const std::string& part, const uint8_t* in) {
  // Four at a time; adding 0x400 carries an exponent of ones into the sign's place.
  constexpr uint64_t kSigns = 0x8000800080008000u;
  constexpr uint64_t kOnes = 0x0400040004000400u;
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
    if (scale < 0x7c00 && (minimum & 0x7c00) != 0x7c00) continue;
    const bool is_scale = scale >= 0x7c00;
    return absl::InvalidArgumentError(
        absl::StrCat("part ", part, ": ", is_scale ? "scale" : "minimum", " of group ", i, ": ",
                     FromF16(is_scale ? scale : minimum),
                     is_scale ? " is negative or not finite" : " is not finite"));
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
      const float scale = FromF16(LoadLe<uint16_t>(in + place.group * 2));
      const float minimum = FromF16(LoadLe<uint16_t>(in + layout.minimums_at() + place.group * 2));
      const uint32_t code = LoadLe<uint32_t>(words + place.word * 4) >> place.shift & mask;
      row[channel] = static_cast<float>(code) * scale + minimum;
    }
    WriteRow(target, token, layout.heads, layout.head_size, row.data());
  }
}

}  // namespace kedge::codec
