#include "tests/quality/statistics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "gpu/kernels/attention_mass.h"

namespace kedge::quality {
namespace {

constexpr int64_t kRowsSkipped = 16;  // they have hardly anything else to look at

}  // namespace

double MeanOverLayers(const std::vector<double>& by_layer) {
  if (by_layer.empty()) return 0;
  return std::accumulate(by_layer.begin(), by_layer.end(), 0.0) /
         static_cast<double>(by_layer.size());
}

absl::StatusOr<ModelStatistics> MeasureModel(Model& model, const std::vector<EvalContext>& contexts,
                                             size_t count) {
  const ModelConfig& config = model.config();
  const int64_t width = config.kv_heads * config.head_size;
  ModelStatistics statistics;
  statistics.sink.resize(config.layers);
  std::vector<std::vector<double>> squares(config.layers, std::vector<double>(width));
  int64_t rows_seen = 0;
  PrefillOptions options;
  options.on_attention = [&](int64_t layer, const kernels::AttentionArgs& attention) {
    kernels::AttentionArgs rows = attention;
    const int64_t skipped = std::clamp<int64_t>(kRowsSkipped - rows.first_position, 0, rows.rows);
    rows.q += skipped * rows.q_stride;
    rows.first_position += skipped;
    rows.rows -= skipped;
    if (rows.rows == 0) return;
    const int64_t keys = rows.first_position + rows.rows;
    std::vector<double> mass(rows.heads * keys);
    kernels::AttentionMass(model.device(), rows, mass);
    for (int64_t head = 0; head < rows.heads; ++head)
      statistics.sink[layer] += mass[head * keys] / static_cast<double>(rows.heads);
    if (layer != 0) return;
    rows_seen += rows.rows;
    for (int64_t row = 0; row < rows.rows; ++row)
      statistics.uniform += 1.0 / static_cast<double>(rows.first_position + row + 1);
  };
  options.on_keys = [&](int64_t layer, int64_t, int64_t rows, const float* keys, int64_t stride) {
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t i = 0; i < width; ++i) {
        const double value = keys[row * stride + i];
        squares[layer][i] += value * value;
      }
    }
  };
  for (size_t i = 0; i < std::min(count, contexts.size()); ++i) {
    absl::StatusOr<KvCache> cache = model.NewCache(static_cast<int64_t>(contexts[i].tokens.size()));
    if (!cache.ok()) return cache.status();
    if (absl::Status s = model.Prefill(contexts[i].tokens, *cache, options).status(); !s.ok())
      return s;
  }
  const double rows = static_cast<double>(std::max<int64_t>(rows_seen, 1));
  for (double& sink : statistics.sink) sink /= rows;
  statistics.uniform /= rows;
  for (const std::vector<double>& layer : squares) {
    double ratio = 0;
    for (int64_t head = 0; head < config.kv_heads; ++head) {
      std::vector<double> channels(layer.begin() + head * config.head_size,
                                   layer.begin() + (head + 1) * config.head_size);
      std::sort(channels.begin(), channels.end());
      const double median = channels[channels.size() / 2];
      if (median > 0) ratio += std::sqrt(channels.back() / median);
    }
    statistics.key_channels.push_back(ratio / static_cast<double>(config.kv_heads));
  }
  return statistics;
}

}  // namespace kedge::quality
