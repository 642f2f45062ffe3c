#include "client/match/placeholder_match.h"

#include <algorithm>
#include <cmath>

#include "absl/base/internal/raw_logging.h"
#include "proto/match_key.h"

namespace kedge::match {
namespace {

bool Readable(std::span<const float> sketch) {
  return !sketch.empty() && sketch.size() % kSketchDimensions == 0 &&
         std::all_of(sketch.begin(), sketch.end(),
                     [](float value) { return std::isfinite(value); });
}

// Root mean square of the difference over the shorter one's values.
double Distance(std::span<const float> a, std::span<const float> b) {
  const size_t count = std::min(a.size(), b.size());
  double sum = 0.0;
  for (size_t i = 0; i < count; ++i) {
    const double difference = static_cast<double>(a[i]) - b[i];
    sum += difference * difference;
  }
  return std::sqrt(sum / static_cast<double>(count));
}

}  // namespace

SketchProjection::SketchProjection(uint64_t seed, uint32_t width) : width_(width) {
  ABSL_RAW_CHECK(width > 0, "a projection of nothing");
  signs_.resize(size_t{width} * kSketchDimensions);
  const float size = 1.0f / std::sqrt(static_cast<float>(kSketchDimensions));
  for (size_t i = 0; i < signs_.size(); ++i) {
    const uint64_t word = i / 64;
    const uint64_t bits = SipHash24(seed, 0, {&word, 1});
    signs_[i] = (bits >> (i % 64) & 1) != 0 ? size : -size;
  }
}

std::array<float, kSketchDimensions> SketchProjection::Project(
    std::span<const float> values) const {
  ABSL_RAW_CHECK(values.size() == width_, "values of another width than the projection's");
  std::array<float, kSketchDimensions> out{};
  for (uint32_t d = 0; d < kSketchDimensions; ++d) {
    const float* signs = signs_.data() + size_t{d} * width_;
    for (uint32_t i = 0; i < width_; ++i) out[d] += signs[i] * values[i];
  }
  return out;
}

const char* PlaceholderVerdictName(PlaceholderVerdict verdict) {
  switch (verdict) {
    case PlaceholderVerdict::kMatched:
      return "matched";
    case PlaceholderVerdict::kEmptyFilling:
      return "empty_filling";
    case PlaceholderVerdict::kBadSketch:
      return "bad_sketch";
    case PlaceholderVerdict::kNoAnchors:
      return "no_anchors";
    case PlaceholderVerdict::kTooLong:
      return "too_long";
  }
  return "unknown";
}

float PoolScale(std::span<const AnchorSketch> anchors) {
  double sum = 0.0;
  uint64_t pairs = 0;
  for (size_t i = 0; i < anchors.size(); ++i) {
    if (!Readable(anchors[i].values)) continue;
    for (size_t j = i + 1; j < anchors.size(); ++j) {
      if (!Readable(anchors[j].values)) continue;
      const double distance = Distance(anchors[i].values, anchors[j].values);
      sum += distance * distance;
      ++pairs;
    }
  }
  const double scale = pairs == 0 ? 0.0 : std::sqrt(sum / static_cast<double>(pairs));
  return scale > 0.0 && scale <= 3.0e38 ? static_cast<float>(scale) : 1.0f;
}

PlaceholderMatch MatchPlaceholder(std::span<const float> filling,
                                  std::span<const AnchorSketch> anchors, float scale) {
  PlaceholderMatch match;
  if (filling.empty()) {
    match.verdict = PlaceholderVerdict::kEmptyFilling;
    return match;
  }
  if (!Readable(filling)) {
    match.verdict = PlaceholderVerdict::kBadSketch;
    return match;
  }
  if (!(std::isfinite(scale) && scale > 0.0f)) scale = 1.0f;
  bool some = false;
  for (uint32_t i = 0; i < anchors.size(); ++i) {
    if (!Readable(anchors[i].values)) continue;
    some = true;
    if (anchors[i].values.size() < filling.size()) continue;
    match.anchors.push_back({i, static_cast<float>(Distance(filling, anchors[i].values) / scale)});
  }
  std::sort(match.anchors.begin(), match.anchors.end(),
            [&](const AnchorDistance& a, const AnchorDistance& b) {
              return a.distance != b.distance ? a.distance < b.distance
                                              : anchors[a.anchor].key < anchors[b.anchor].key;
            });
  match.verdict = !match.anchors.empty() ? PlaceholderVerdict::kMatched
                  : some                 ? PlaceholderVerdict::kTooLong
                                         : PlaceholderVerdict::kNoAnchors;
  return match;
}

}  // namespace kedge::match
