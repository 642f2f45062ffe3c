// The archive's transform coding, per model: what its sections of the profile hold.
//
// KV of one layer is highly correlated across heads and channels. Each part of the model has a
// *basis*, computed once from samples (gpu/profile/archive_fit.h): principal components over all
// heads together, of un-rotated keys in the metric of the queries, of values in that of the output
// projection. A component is then quantized with a step of its own, or left out (0 bits), and its
// codes go through rANS with one of a few tables that the profile holds. KVTC (arXiv 2511.01815)
// does the like with fixed-length codes and DEFLATE.
//
//     y = analysis (x - mean)        code_c = sign(y_c) floor(|y_c| / step_c + rounding)
//     x^ = mean + sum over kept c of synthesis_c step_c point[class of c][code_c]
//
// A *symbol* is code + 31 for codes of -31 to 31, and 63 for an escape, whose code follows the
// stream as an i16. A point is the mean of what was quantized to its code, in steps.
//
// Section `pca`, little endian; width = kv_heads * head_size; parts layer by layer, k then v:
//
//     u16 version 1, u16 layers, u16 kv_heads, u16 head_size
//     for each part: u16 rank (at most width), f16 mean [width], f16 analysis [rank][width],
//                    f16 synthesis [rank][width]
//
// Section `entropy/archiveN`, an operating point:
//
//     u16 version 1, u16 layers, u16 width, u16 classes (1 to 256), f32 rounding in (0, 0.5]
//     for each class: u16 shares [64], sum 4096; f16 points [63]
//     for each part: u16 kept, then kept times: u16 component (ascending, below the rank),
//                    u8 class, f32 step (positive)
//
// An encoded part names both sections by `id`: a profile that was measured again decodes what it
// encoded before, as long as basis and tables are the same.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gpu/codec/rans.h"
#include "proto/kv_shape.h"

namespace kedge::codec {

inline constexpr int kArchiveCodeMax = 31;  // codes beyond are escapes
inline constexpr int kArchiveSymbols = 64;
inline constexpr int kArchiveEscape = 63;
inline constexpr char kPcaSection[] = "pca";

// The basis of one part. Rows of analysis and synthesis are components, largest first.
struct ArchiveBasis {
  std::vector<float> mean;       // [width]
  std::vector<float> analysis;   // [rank][width]
  std::vector<float> synthesis;  // [rank][width]

  int64_t width() const { return static_cast<int64_t>(mean.size()); }
  int64_t rank() const {
    return mean.empty() ? 0 : static_cast<int64_t>(analysis.size()) / width();
  }
};

struct ArchiveBases {
  uint16_t layers = 0;
  uint16_t kv_heads = 0;
  uint16_t head_size = 0;
  std::vector<ArchiveBasis> parts;  // [layers][k, v]

  // Rounds to f16: what is read back is what the codec uses.
  std::vector<uint8_t> Encode() const;
  // InvalidArgument names the field.
  static absl::StatusOr<ArchiveBases> Parse(std::span<const uint8_t> section);
};

struct ArchiveClass {
  std::array<uint16_t, kArchiveSymbols> shares{};
  std::array<float, kArchiveEscape> points{};  // of codes -31 to 31
};

struct ArchiveComponent {
  uint16_t component = 0;
  uint8_t of_class = 0;
  float step = 0.0f;
};

// One operating point.
struct ArchivePoint {
  uint16_t layers = 0;
  uint16_t width = 0;
  float rounding = 0.5f;
  std::vector<ArchiveClass> classes;
  std::vector<std::vector<ArchiveComponent>> parts;  // [layers][k, v]: what is kept

  std::vector<uint8_t> Encode() const;
  static absl::StatusOr<ArchivePoint> Parse(std::span<const uint8_t> section);
};

// What a part's header carries: CRC-32C over both sections.
uint32_t ArchiveId(std::span<const uint8_t> pca, std::span<const uint8_t> point);

}  // namespace kedge::codec
