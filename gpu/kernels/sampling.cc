#include "gpu/kernels/sampling.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "absl/strings/str_cat.h"

namespace kedge::kernels {

absl::Status ValidateSampling(const SamplingOptions& options) {
  if (!std::isfinite(options.temperature) || options.temperature < 0.0f) {
    return absl::InvalidArgumentError(
        absl::StrCat("temperature: ", options.temperature, " is not a finite number >= 0"));
  }
  if (!(options.top_p > 0.0f && options.top_p <= 1.0f)) {
    return absl::InvalidArgumentError(absl::StrCat("top_p: ", options.top_p, " is not in (0, 1]"));
  }
  return absl::OkStatus();
}

uint64_t SamplingGenerator::NextBits() {
  uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

double SamplingGenerator::NextUniform() { return static_cast<double>(NextBits() >> 11) * 0x1p-53; }

int32_t ArgMax(std::span<const float> logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

int32_t SampleToken(std::span<const float> logits, const SamplingOptions& options,
                    SamplingGenerator& generator) {
  if (options.temperature == 0.0f) return ArgMax(logits);
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  // Stable by token id, so that equal logits have one order everywhere.
  std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  });
  const double largest = logits[order[0]];
  std::vector<double> weights(order.size());
  double total = 0.0;
  for (size_t i = 0; i < order.size(); ++i) {
    weights[i] = std::exp((logits[order[i]] - largest) / options.temperature);
    total += weights[i];
  }
  size_t kept = 0;
  double kept_total = 0.0;
  while (kept < order.size() && (kept == 0 || kept_total < options.top_p * total)) {
    kept_total += weights[kept++];
  }
  double target = generator.NextUniform() * kept_total;
  for (size_t i = 0; i < kept; ++i) {
    target -= weights[i];
    if (target < 0.0) return order[i];
  }
  return order[kept - 1];
}

}  // namespace kedge::kernels
