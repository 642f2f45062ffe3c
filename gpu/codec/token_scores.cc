#include "gpu/codec/token_scores.h"

#include <algorithm>
#include <numeric>

namespace kedge::codec {

TokenScores TokenScores::Zeros(int64_t layers, int64_t heads, int64_t tokens) {
  return {layers, heads, tokens, std::vector<float>(layers * heads * tokens)};
}

std::vector<double> LayerImportance(const TokenScores& scores, int64_t layer) {
  std::vector<double> importance(scores.tokens);
  for (int64_t head = 0; head < scores.heads; ++head) {
    const std::span<const float> values = scores.of(layer, head);
    const double sum = std::accumulate(values.begin(), values.end(), 0.0);
    for (int64_t t = 0; t < scores.tokens; ++t) {
      const double share = sum > 0.0 ? values[t] / sum : 1.0 / static_cast<double>(scores.tokens);
      importance[t] += share / static_cast<double>(scores.heads);
    }
  }
  return importance;
}

std::vector<int32_t> Ranked(std::span<const double> values) {
  std::vector<int32_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return values[a] > values[b]; });
  return order;
}

}  // namespace kedge::codec
