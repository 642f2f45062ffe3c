#include "tools/benchmarks/codec_values.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <numeric>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gpu/codec/archive.h"
#include "gpu/codec/codec_chain.h"
#include "gpu/codec/hadamard.h"
#include "gpu/codec/kivi_rans.h"
#include "gpu/codec/kivi_rans_codec.h"
#include "gpu/codec/part_header.h"
#include "gpu/codec/part_rows.h"
#include "gpu/kernels/cast.h"
#include "gpu/kernels/sampling.h"

namespace kedge::bench {
namespace {

constexpr double kOctaves = 7.0;
constexpr float kRounding = 0.4f;
// Components whose deviation is below this many steps are left out.
constexpr double kLeastSteps = 0.6;
constexpr int kClassesAnOctave = 4;
constexpr int64_t kSamples = 4096;  // normal values that rates are measured on
constexpr uint64_t kPartsCounted = 16;

int64_t WidthOf(const KvShape& shape) { return int64_t{shape.kv_heads} * shape.head_size; }

std::vector<double> Deviations(int64_t width) {
  std::vector<double> deviations(width);
  double energy = 0;
  for (int64_t c = 0; c < width; ++c) {
    deviations[c] = std::exp2(-kOctaves * static_cast<double>(c) / static_cast<double>(width));
    energy += deviations[c] * deviations[c];
  }
  for (double& deviation : deviations) deviation *= std::sqrt(static_cast<double>(width) / energy);
  return deviations;
}

// Box and Muller's way, two at a time.
std::vector<float> Normals(kernels::SamplingGenerator& generator, int64_t count) {
  std::vector<float> values(count);
  for (int64_t i = 0; i < count; i += 2) {
    const double radius = std::sqrt(-2.0 * std::log(1.0 - generator.NextUniform()));
    const double angle = 2.0 * std::numbers::pi * generator.NextUniform();
    values[i] = static_cast<float>(radius * std::cos(angle));
    if (i + 1 < count) values[i + 1] = static_cast<float>(radius * std::sin(angle));
  }
  return values;
}

// x = D H z, in place.
void Mix(int64_t width, float* row) {
  codec::Hadamard(1, width, row);
  kernels::SamplingGenerator signs(3);
  for (int64_t i = 0; i < width; ++i) row[i] *= (signs.NextBits() & 1) != 0 ? -1.0f : 1.0f;
}

// Normal values as codes of one step; deviation / step is `steps`.
struct Codes {
  std::array<uint64_t, codec::kArchiveSymbols> counts{};
  std::array<double, codec::kArchiveCodeMax + 1> sums{};  // of |y| / step, by |code|

  void Add(const std::vector<float>& normals, double steps) {
    for (float normal : normals) {
      const double y = normal * steps;
      const auto code = std::min(static_cast<int>(std::abs(y) + kRounding), codec::kArchiveCodeMax);
      ++counts[codec::kArchiveCodeMax + (y < 0 ? -code : code)];
      sums[code] += std::abs(y);
    }
  }
  // Of one value.
  double Bits() const {
    const auto total = static_cast<double>(std::accumulate(counts.begin(), counts.end(), 0ull));
    double bits = 0;
    for (uint64_t count : counts) {
      const double share = static_cast<double>(count) / total;
      if (count > 0) bits -= share * std::log2(share);
    }
    return bits;
  }
  codec::ArchiveClass Class() const {
    codec::ArchiveClass result;
    const std::vector<uint16_t> shares = codec::RansTable::SharesOf(counts);
    std::copy(shares.begin(), shares.end(), result.shares.begin());
    for (int code = 1; code <= codec::kArchiveCodeMax; ++code) {
      const uint64_t seen =
          counts[codec::kArchiveCodeMax + code] + counts[codec::kArchiveCodeMax - code];
      const double mean = seen == 0 ? code : sums[code] / static_cast<double>(seen);
      result.points[codec::kArchiveCodeMax + code] = static_cast<float>(mean);
      result.points[codec::kArchiveCodeMax - code] = static_cast<float>(-mean);
    }
    return result;
  }
};

// How many components there are whose deviation is at least kLeastSteps * step.
int64_t Kept(const std::vector<double>& deviations, double step) {
  return std::count_if(deviations.begin(), deviations.end(),
                       [&](double deviation) { return deviation >= kLeastSteps * step; });
}

double BitsOf(const std::vector<double>& deviations, const std::vector<float>& normals,
              double step) {
  double bits = 0;
  for (int64_t c = 0; c < Kept(deviations, step); ++c) {
    Codes codes;
    codes.Add(normals, deviations[c] / step);
    bits += codes.Bits();
  }
  return bits;
}

codec::ArchivePoint MakePoint(const KvShape& shape, double bits_per_value) {
  const int64_t width = WidthOf(shape);
  const std::vector<double> deviations = Deviations(width);
  kernels::SamplingGenerator generator(4);
  const std::vector<float> normals = Normals(generator, kSamples);
  double low = -20;  // of log2(step): takes too many bits
  double high = 20;
  for (int i = 0; i < 16; ++i) {
    const double middle = (low + high) / 2;
    const double bits = BitsOf(deviations, normals, std::exp2(middle));
    (bits > bits_per_value * static_cast<double>(width) ? low : high) = middle;
  }
  const double step = std::exp2(high);

  std::vector<codec::ArchiveComponent> components;
  std::vector<Codes> classes;
  for (int64_t c = 0; c < Kept(deviations, step); ++c) {
    const double steps = deviations[c] / step;
    const auto of_class = static_cast<size_t>(std::log2(steps / kLeastSteps) * kClassesAnOctave);
    if (classes.size() <= of_class) classes.resize(of_class + 1);
    classes[of_class].Add(normals, steps);
    components.push_back({.component = static_cast<uint16_t>(c),
                          .of_class = static_cast<uint8_t>(of_class),
                          .step = static_cast<float>(step)});
  }
  codec::ArchivePoint point{.layers = static_cast<uint16_t>(shape.layer_count),
                            .width = static_cast<uint16_t>(width),
                            .rounding = kRounding,
                            .classes = {},
                            .parts = {}};
  for (const Codes& codes : classes) point.classes.push_back(codes.Class());
  point.parts.assign(size_t{shape.layer_count} * 2, components);
  return point;
}

codec::ArchiveBases MakeBases(const KvShape& shape, int64_t rank) {
  const int64_t width = WidthOf(shape);
  codec::ArchiveBasis basis{.mean = std::vector<float>(width),
                            .analysis = std::vector<float>(rank * width),
                            .synthesis = {}};
  for (int64_t c = 0; c < rank; ++c) {
    float* row = basis.analysis.data() + c * width;
    row[c] = 1.0f;
    Mix(width, row);
  }
  basis.synthesis = basis.analysis;
  codec::ArchiveBases bases{.layers = static_cast<uint16_t>(shape.layer_count),
                            .kv_heads = static_cast<uint16_t>(shape.kv_heads),
                            .head_size = static_cast<uint16_t>(shape.head_size),
                            .parts = {}};
  bases.parts.assign(size_t{shape.layer_count} * 2, basis);
  return bases;
}

absl::StatusOr<std::vector<uint8_t>> MakeTables(const std::string& kivi, const KvShape& shape,
                                                const kernels::RopeTable& rope) {
  const absl::StatusOr<codec::CodecChain> chain = codec::CodecChain::Parse(kivi);
  if (!chain.ok()) return chain.status();
  codec::KiviCounts counts(size_t{shape.layer_count} * 2);
  for (const Component component : {Component::kK, Component::kV}) {
    const absl::StatusOr<uint64_t> bytes = chain->MaxPartBytes(shape, component, false);
    if (!bytes.ok()) return bytes.status();
    const absl::StatusOr<codec::KiviLayout> layout = codec::KiviChainLayout(kivi, shape, component);
    if (!layout.ok()) return layout.status();
    const size_t first = component == Component::kV ? 1 : 0;
    std::vector<uint8_t> encoded(*bytes);
    for (uint64_t number = 0; number < kPartsCounted; ++number) {
      const std::vector<uint8_t> part = MakeCodecPart(shape, component, number, rope);
      const codec::PartTask task{.shape = shape, .layer = 0, .component = component, .rope = &rope};
      const absl::Status s = chain->EncodePart(task, false, part, encoded).status();
      if (!s.ok()) return s;
      codec::CountKivi(*layout, std::span(encoded).subspan(codec::kPartHeaderBytes), counts[first]);
    }
    for (size_t i = first + 2; i < counts.size(); i += 2) counts[i] = counts[first];
  }
  return codec::EncodeKiviTables(counts);
}

}  // namespace

std::vector<uint8_t> MakeCodecPart(const KvShape& shape, Component component, uint64_t number,
                                   const kernels::RopeTable& rope) {
  const int64_t width = WidthOf(shape);
  const std::vector<double> deviations = Deviations(width);
  kernels::SamplingGenerator generator(number * 2 + (component == Component::kV ? 1 : 0));
  std::vector<uint8_t> part(shape.raw_part_bytes());
  std::vector<uint8_t*> rows;
  for (int64_t t = 0; t < shape.block_tokens; ++t)
    rows.push_back(part.data() + t * width * kernels::FloatBytes(shape.dtype));
  const codec::TargetRows target{.dtype = shape.dtype,
                                 .rows = rows.data(),
                                 .rope = component == Component::kK ? &rope : nullptr};
  for (int64_t t = 0; t < shape.block_tokens; ++t) {
    std::vector<float> row = Normals(generator, width);
    for (int64_t c = 0; c < width; ++c) row[c] *= static_cast<float>(deviations[c]);
    Mix(width, row.data());
    codec::WriteRow(target, t, shape.kv_heads, shape.head_size, row.data());
  }
  return part;
}

absl::StatusOr<ModelProfile> MakeCodecProfile(const KvShape& shape,
                                              const kernels::RopeTable& rope) {
  ModelProfile::Sections sections;
  for (const std::string kivi : {"kivi2g32", "kivi4g32"}) {
    absl::StatusOr<std::vector<uint8_t>> tables = MakeTables(kivi, shape, rope);
    if (!tables.ok()) return tables.status();
    sections[absl::StrCat("entropy/", kivi, "+rans")] = *std::move(tables);
  }
  const codec::ArchivePoint point = MakePoint(shape, 1.0);
  const auto rank = static_cast<int64_t>(point.parts.front().size());
  sections["entropy/archive1"] = point.Encode();
  sections[codec::kPcaSection] = MakeBases(shape, rank).Encode();
  return ModelProfile::Make({.weights_id = "made up",
                             .adapter_id = "",
                             .rope_scaling = "",
                             .rope_theta = 500000.0,
                             .layers = static_cast<uint16_t>(shape.layer_count),
                             .kv_heads = static_cast<uint16_t>(shape.kv_heads),
                             .head_size = static_cast<uint16_t>(shape.head_size),
                             .dtype = shape.dtype},
                            sections, {});
}

}  // namespace kedge::bench
