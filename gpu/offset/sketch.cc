#include "gpu/offset/sketch.h"

#include <algorithm>
#include <cmath>

#include "absl/base/internal/raw_logging.h"

namespace kedge::offset {
namespace {

// Signs of one over root 16: as good as normal numbers (Achlioptas, 2003), and the same everywhere.
// splitmix64 of the entry's index.
float Entry(uint64_t index) {
  uint64_t z = (index + 1) * 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  z ^= z >> 31;
  return (z >> 63) != 0 ? 0.25f : -0.25f;
}

double SquaresOfRow(const Sketch& a, const Sketch& b, int64_t token) {
  double sum = 0;
  for (int64_t i = token * kSketchSize; i < (token + 1) * kSketchSize; ++i) {
    const double difference = double{a.values[i]} - b.values[i];
    sum += difference * difference;
  }
  return sum;
}

}  // namespace

std::vector<float> SketchMatrix(int64_t width) {
  std::vector<float> matrix(width * kSketchSize);
  for (size_t i = 0; i < matrix.size(); ++i) matrix[i] = Entry(i);
  return matrix;
}

Sketch SketchOf(const KvRows& base) {
  const std::vector<float> matrix = SketchMatrix(base.width);
  const int64_t layer = std::min<int64_t>(1, base.layers - 1);
  Sketch sketch{.tokens = base.tokens, .values = std::vector<float>(base.tokens * kSketchSize)};
  for (int64_t token = 0; token < base.tokens; ++token) {
    const std::span<const float> row = base.Value(layer, token);
    float* out = sketch.values.data() + token * kSketchSize;
    for (int64_t i = 0; i < base.width; ++i) {
      for (int64_t j = 0; j < kSketchSize; ++j) out[j] += row[i] * matrix[i * kSketchSize + j];
    }
  }
  return sketch;
}

double TokenDistance(const Sketch& a, const Sketch& b, int64_t token) {
  ABSL_RAW_CHECK(token >= 0 && token < a.tokens && token < b.tokens, "a token of both sketches");
  return std::sqrt(SquaresOfRow(a, b, token));
}

double Distance(const Sketch& a, const Sketch& b, int64_t tokens) {
  ABSL_RAW_CHECK(tokens >= 0 && tokens <= a.tokens && tokens <= b.tokens,
                 "tokens that both sketches have");
  if (tokens == 0) return 0;
  double sum = 0;
  for (int64_t token = 0; token < tokens; ++token) sum += std::sqrt(SquaresOfRow(a, b, token));
  return sum / static_cast<double>(tokens);
}

}  // namespace kedge::offset
