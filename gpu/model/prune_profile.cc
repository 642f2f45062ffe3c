#include "gpu/model/prune_profile.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "gpu/model/score_capture.h"

namespace kedge {

PruneProfiler::PruneProfiler(const Model& model)
    : budgets_(model.config().layers),
      queries_(model.config().layers, model.config().heads, model.config().head_size) {}

absl::Status PruneProfiler::Add(Model& model, std::span<const int32_t> tokens) {
  const auto length = static_cast<int64_t>(tokens.size());
  ScoreCapture capture(model, length, 0);
  PrefillOptions options;
  capture.Attach(options);
  options.on_queries = [this](int64_t layer, int64_t first, int64_t rows, const float* queries,
                              int64_t stride) {
    const int64_t skip = std::clamp<int64_t>(codec::kQueriesSkipped - first, 0, rows);
    queries_.Add(layer, queries + skip * stride, rows - skip, stride);
  };
  absl::StatusOr<KvCache> cache = model.NewCache(length);
  if (!cache.ok()) return cache.status();
  if (absl::Status s = model.Prefill(tokens, *cache, options).status(); !s.ok()) return s;
  const absl::StatusOr<codec::ScoreSidecar> sums = capture.Finish();
  if (!sums.ok()) return sums.status();
  const codec::TokenScores scores = ScoresOf(*sums);
  std::vector<codec::PriorityCurve> curves;
  for (int64_t layer = 0; layer < scores.layers; ++layer)
    curves.push_back(codec::CurveOf(LayerImportance(scores, layer)));
  budgets_.Add(curves);
  return absl::OkStatus();
}

absl::StatusOr<codec::PruneProfile> PruneProfiler::Build() const {
  absl::StatusOr<codec::PrefixKvProfile> curves = budgets_.Build();
  if (!curves.ok()) return curves.status();
  absl::StatusOr<codec::QueryStats> stats = queries_.Build();
  if (!stats.ok()) return stats.status();
  return codec::PruneProfile{.budgets = *std::move(curves), .queries = *std::move(stats)};
}

}  // namespace kedge
