#include "client/reuse/recompute_rates.h"

#include <algorithm>

namespace kedge {

double BlendSeconds(const BlendRates& rates, double ratio) {
  const double rows = rates.new_share + (1.0 - rates.new_share) * ratio;
  double now = 0.0;
  double loaded = rates.load_start;
  for (int64_t layer = 0; layer < rates.layers; ++layer) {
    if (layer < rates.check_layer) {
      now += rates.compute_layer;
      continue;
    }
    loaded += rates.load_layer;
    // Only a policy that compares has to project every token at its check layer.
    const double projected = layer == rates.check_layer && rates.check_layer > 0 ? 1.0 : rows;
    now += projected * rates.projection_share * rates.compute_layer;
    now = std::max(now, loaded) + rows * (1.0 - rates.projection_share) * rates.compute_layer;
  }
  return now;
}

BlendChoice ChooseBlend(const BlendRates& rates) {
  BlendChoice choice{.dense_seconds = static_cast<double>(rates.layers) * rates.compute_layer};
  choice.ratio = std::clamp(rates.floor_ratio, 0.0, 1.0);
  const double reused = 1.0 - rates.new_share;
  if (rates.compute_layer > 0.0 && reused > 0.0) {
    const double hidden = (rates.load_layer / rates.compute_layer - rates.new_share) / reused;
    choice.ratio = std::max(choice.ratio, std::clamp(hidden, 0.0, 1.0));
  }
  choice.seconds = BlendSeconds(rates, choice.ratio);
  choice.blend = reused > 0.0 && choice.seconds < choice.dense_seconds;
  return choice;
}

double CakeComputeSeconds(const CakeRates& rates, int64_t blocks) {
  const auto n = static_cast<double>(blocks);
  return n * rates.compute_block + rates.compute_growth * n * (n - 1.0) / 2.0;
}

double CakeLoadSeconds(const CakeRates& rates, int64_t blocks) {
  if (blocks == 0) return 0.0;
  return rates.load_start + static_cast<double>(blocks) * rates.load_block;
}

CakePlan PlanCake(int64_t blocks, const CakeRates& rates) {
  // The fewest computed blocks for which `enough` holds; it holds for all, and from one on.
  const auto fewest = [blocks](const auto& enough) {
    int64_t low = 0;
    int64_t high = blocks;
    while (low < high) {
      const int64_t middle = low + (high - low) / 2;
      if (enough(middle)) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return low;
  };
  const auto compute = [&](int64_t computed) { return CakeComputeSeconds(rates, computed); };
  const auto load = [&](int64_t computed) { return CakeLoadSeconds(rates, blocks - computed); };
  // Computing takes longer with every block, loading the rest less long: the best split is where
  // they cross, on one side or the other.
  const int64_t crossed = fewest([&](int64_t k) { return compute(k) >= load(k); });
  double best = std::max(compute(crossed), load(crossed));
  if (crossed > 0) best = std::min(best, load(crossed - 1));
  const int64_t computed = fewest([&](int64_t k) { return load(k) <= best; });
  return {.computed = computed, .loaded = blocks - computed, .seconds = best};
}

}  // namespace kedge
