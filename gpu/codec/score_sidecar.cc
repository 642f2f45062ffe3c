#include "gpu/codec/score_sidecar.h"

#include <algorithm>
#include <cmath>

#include "absl/base/internal/raw_logging.h"
#include "absl/strings/str_cat.h"
#include "proto/crc32c.h"
#include "proto/wire.h"

namespace kedge::codec {
namespace {

constexpr uint32_t kMagic = 0x5243534b;
constexpr uint16_t kVersion = 1;
constexpr int kSteps = 8;  // of an octave

// 2^(i / 8), and 2^((i + 0.5) / 8): where the next one is nearer.
constexpr float kPowers[kSteps] = {0x1p0f,        0x1.172b84p0f, 0x1.306fe0p0f, 0x1.4bfdaep0f,
                                   0x1.6a09e6p0f, 0x1.8ace54p0f, 0x1.ae89fap0f, 0x1.d5818ep0f};
constexpr float kBorders[kSteps] = {0x1.0b5586p0f, 0x1.2387a6p0f, 0x1.3dea64p0f, 0x1.5ab07ep0f,
                                    0x1.7a1148p0f, 0x1.9c4918p0f, 0x1.c199bep0f, 0x1.ea4afap0f};

absl::Status Bad(const char* field, uint64_t value, const char* why) {
  return absl::InvalidArgumentError(absl::StrCat("sidecar: ", field, ": ", value, " ", why));
}

}  // namespace

uint8_t ScoreCode(float score) {
  if (!(score > 0.0f)) return 0;
  if (score >= 1.0f) return 255;
  int exponent = 0;
  const float mantissa = 2.0f * std::frexp(score, &exponent);  // [1, 2), times 2^(exponent - 1)
  const auto step =
      static_cast<int>(std::upper_bound(kBorders, kBorders + kSteps, mantissa) - kBorders);
  const int code = 255 + kSteps * (exponent - 1) + step;
  return code < 1 ? 0 : static_cast<uint8_t>(std::min(code, 255));
}

float ScoreOfCode(uint8_t code) {
  if (code == 0) return 0.0f;
  const int steps = code - 255;
  const int octave = -((-steps + kSteps - 1) / kSteps);  // towards minus infinity
  return std::ldexp(kPowers[steps - kSteps * octave], octave);
}

TokenScores ScoresOf(const ScoreSidecar& sidecar) {
  TokenScores scores = TokenScores::Zeros(sidecar.layers, sidecar.heads, sidecar.tokens);
  float table[256];
  for (int code = 0; code < 256; ++code) table[code] = ScoreOfCode(static_cast<uint8_t>(code));
  for (size_t i = 0; i < sidecar.codes.size(); ++i) scores.values[i] = table[sidecar.codes[i]];
  return scores;
}

std::vector<uint8_t> EncodeSidecar(const ScoreSidecar& sidecar) {
  ABSL_RAW_CHECK(sidecar.codes.size() == uint64_t{sidecar.layers} * sidecar.heads * sidecar.tokens,
                 "a sidecar has a code for each layer, head and token");
  ABSL_RAW_CHECK((sidecar.kind == SidecarKind::kSum) == (sidecar.window == 0),
                 "a sidecar's window is 0 for sums only");
  std::vector<uint8_t> bytes;
  bytes.reserve(sidecar.encoded_bytes());
  WireWriter writer(bytes);
  writer.U32(kMagic);
  writer.U16(kVersion);
  writer.U8(static_cast<uint8_t>(sidecar.kind));
  writer.U8(0);
  writer.U32(sidecar.tokens);
  writer.U16(sidecar.layers);
  writer.U16(sidecar.heads);
  writer.U16(sidecar.window);
  writer.U16(0);
  writer.Bytes(sidecar.codes);
  writer.U32(Crc32c(bytes));
  return bytes;
}

absl::StatusOr<ScoreSidecar> DecodeSidecar(std::span<const uint8_t> bytes) {
  if (bytes.size() < kSidecarHeaderBytes + 4)
    return Bad("bytes", bytes.size(), "are fewer than a header's");
  const uint8_t* from = bytes.data();
  if (LoadLe<uint32_t>(from) != kMagic)
    return Bad("magic", LoadLe<uint32_t>(from), "is no sidecar's");
  const auto version = LoadLe<uint16_t>(from + 4);
  if (version != kVersion) {
    return absl::UnimplementedError(
        absl::StrCat("sidecar: version: ", version, ", this program reads ", kVersion));
  }
  ScoreSidecar sidecar;
  const uint8_t kind = from[6];
  if (kind != 1 && kind != 2) return Bad("kind", kind, "is neither 1 (window) nor 2 (sum)");
  sidecar.kind = static_cast<SidecarKind>(kind);
  sidecar.tokens = LoadLe<uint32_t>(from + 8);
  sidecar.layers = LoadLe<uint16_t>(from + 12);
  sidecar.heads = LoadLe<uint16_t>(from + 14);
  sidecar.window = LoadLe<uint16_t>(from + 16);
  if (from[7] != 0 || LoadLe<uint16_t>(from + 18) != 0)
    return Bad("reserved bytes", from[7] | LoadLe<uint16_t>(from + 18), "are not 0");
  if (sidecar.tokens == 0 || sidecar.tokens > kSidecarTokensMax)
    return Bad("tokens", sidecar.tokens, "are not in [1, 1048576]");
  if (sidecar.layers == 0) return Bad("layers", 0, "is not positive");
  if (sidecar.heads == 0) return Bad("heads", 0, "is not positive");
  if (kind == 2 ? sidecar.window != 0 : sidecar.window == 0 || sidecar.window > sidecar.tokens)
    return Bad("window", sidecar.window, "does not go with kind and tokens");
  // At most 2^16 * 2^16 * 2^20: no overflow.
  const uint64_t codes = uint64_t{sidecar.layers} * sidecar.heads * sidecar.tokens;
  if (bytes.size() != kSidecarHeaderBytes + codes + 4)
    return Bad("bytes", bytes.size(), "are not what layers, heads and tokens make");
  const auto crc = LoadLe<uint32_t>(from + bytes.size() - 4);
  const uint32_t computed = Crc32c(bytes.first(bytes.size() - 4));
  if (crc != computed) {
    return absl::DataLossError(absl::StrCat("sidecar: crc: ", crc, ", its bytes have ", computed));
  }
  sidecar.codes.assign(from + kSidecarHeaderBytes, from + bytes.size() - 4);
  return sidecar;
}

}  // namespace kedge::codec
