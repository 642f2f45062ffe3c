#include "gpu/codec/key_scores.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "absl/base/internal/raw_logging.h"
#include "gpu/kernels/cast.h"

namespace kedge::codec {
namespace {

constexpr float kNotANumber = std::numeric_limits<float>::quiet_NaN();

// A layer's keys as fp32, and the norm of each.
struct Keys {
  Keys(DType dtype, std::span<const uint8_t> bytes, int64_t size, const TokenScores& scores)
      : head_size(size),
        heads(scores.heads),
        values(scores.tokens * heads * size),
        norms(scores.tokens * heads) {
    ABSL_RAW_CHECK(bytes.size() == values.size() * kernels::FloatBytes(dtype),
                   "keys are [tokens][kv_heads][head_size]");
    kernels::CastToFloat(dtype, bytes.data(), static_cast<int64_t>(values.size()), values.data());
    for (size_t i = 0; i < norms.size(); ++i) {
      double sum = 0.0;
      for (int64_t c = 0; c < size; ++c) {
        const double value = values[i * size + c];
        sum += value * value;
      }
      norms[i] = std::sqrt(sum);
    }
  }
  const float* key(int64_t token, int64_t head) const {
    return values.data() + (token * heads + head) * head_size;
  }
  double norm(int64_t token, int64_t head) const { return norms[token * heads + head]; }

  int64_t head_size;
  int64_t heads;
  std::vector<float> values;
  std::vector<double> norms;
};

}  // namespace

void KeyDiffScores(DType dtype, std::span<const uint8_t> keys, int64_t head_size, int64_t layer,
                   TokenScores& scores) {
  const Keys k(dtype, keys, head_size, scores);
  for (int64_t head = 0; head < scores.heads; ++head) {
    std::vector<double> mean(head_size);
    for (int64_t t = 0; t < scores.tokens; ++t) {
      if (k.norm(t, head) == 0.0 || !std::isfinite(k.norm(t, head))) continue;
      for (int64_t c = 0; c < head_size; ++c) mean[c] += k.key(t, head)[c] / k.norm(t, head);
    }
    double mean_norm = 0.0;
    for (const double value : mean) mean_norm += value * value;
    mean_norm = std::sqrt(mean_norm);
    const std::span<float> out = scores.of(layer, head);
    for (int64_t t = 0; t < scores.tokens; ++t) {
      double dot = 0.0;
      for (int64_t c = 0; c < head_size; ++c) dot += k.key(t, head)[c] * mean[c];
      const double length = k.norm(t, head) * mean_norm;
      const double cosine = length > 0.0 ? dot / length : 0.0;
      out[t] = std::isfinite(k.norm(t, head))
                   ? static_cast<float>(std::clamp(1.0 - cosine, 0.0, 2.0))
                   : kNotANumber;
    }
  }
}

void KeyNormScores(DType dtype, std::span<const uint8_t> keys, int64_t head_size, int64_t layer,
                   TokenScores& scores) {
  const Keys k(dtype, keys, head_size, scores);
  for (int64_t head = 0; head < scores.heads; ++head) {
    double largest = 0.0;
    for (int64_t t = 0; t < scores.tokens; ++t) {
      if (std::isfinite(k.norm(t, head))) largest = std::max(largest, k.norm(t, head));
    }
    const std::span<float> out = scores.of(layer, head);
    for (int64_t t = 0; t < scores.tokens; ++t) {
      const double norm = k.norm(t, head);
      out[t] = std::isfinite(norm) ? static_cast<float>(largest - norm) : kNotANumber;
    }
  }
}

}  // namespace kedge::codec
