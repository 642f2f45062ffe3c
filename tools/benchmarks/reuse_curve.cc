#include "tools/benchmarks/reuse_curve.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/reuse/blend.h"
#include "tools/agents/agent_way.h"

namespace kedge::bench {
namespace {

// DHD by count: row-layers of a dense prefill over those of the plan.
double SpeedupByCount(int64_t layers, double projection_share, double reuse, double ratio) {
  constexpr int32_t kTokens = 10000;
  const auto reused = static_cast<int32_t>(reuse * kTokens);
  const auto planner =
      RecomputePlanner::Make({.policy = RecomputePolicy::kDhd, .check_layer = 1, .ratio = ratio},
                             layers, kTokens, std::vector<ReusedSegment>{{0, reused}});
  return static_cast<double>(kTokens * layers) / planner->RowLayers(projection_share);
}

}  // namespace

absl::Status RunCurve(Model& model, int rounds, Reporter& reporter) {
  // Llama-3.1-8B: 32 layers; projections are 11.5% of a layer's products.
  constexpr double kShare32 = 0.115;
  const std::pair<double, double> points[] = {{0.90, 0.15}, {0.98, 0.05}};
  constexpr int64_t kTokens = 512;
  const bool one_thread = model.device().threads() == 1;
  std::vector<int32_t> tokens(kTokens);
  for (int64_t i = 0; i < kTokens; ++i)
    tokens[i] = static_cast<int32_t>((i * 7 + 3) % model.config().vocabulary);
  for (const auto& [reuse, ratio] : points) {
    const int percent = static_cast<int>(100 * reuse + 0.5);
    reporter.PrintValue(
        "reuse", absl::StrCat("dhd/count32/reuse", percent),
        SpeedupByCount(32, kShare32, reuse, ratio), "times",
        absl::StrFormat("dense by count, 32 layers, ratio %g; KVShare says 9.39", ratio));
    const auto reused = static_cast<int32_t>(reuse * kTokens);
    const std::vector<ReusedSegment> segments = {{0, reused}};
    absl::StatusOr<KvCache> cache = model.NewCache(kTokens);
    if (!cache.ok()) return cache.status();
    if (absl::Status s = model.Prefill(tokens, *cache).status(); !s.ok()) return s;
    double operations = 0;
    absl::StatusOr<Figure> figure = Compare(
        "reuse", absl::StrCat("dhd/reuse", percent, "/ttft"), "ms", "dense",
        Direction::kSmallerIsBetter, rounds,
        [&]() -> absl::StatusOr<double> {
          const double start = Seconds(one_thread);
          cache->set_length(kTokens);
          const BlendRequest request{
              .tokens = tokens,
              .segments = segments,
              .config = {.policy = RecomputePolicy::kDhd, .check_layer = 1, .ratio = ratio},
              .queries = 4};
          absl::StatusOr<BlendResult> result = Blend(model, request, *cache);
          if (!result.ok()) return result.status();
          operations = result->operations;
          return 1e3 * (Seconds(one_thread) - start);
        },
        [&]() -> absl::StatusOr<double> {
          const double start = Seconds(one_thread);
          cache->set_length(0);
          if (absl::Status s = model.Prefill(tokens, *cache).status(); !s.ok()) return s;
          return 1e3 * (Seconds(one_thread) - start);
        });
    if (!figure.ok()) return figure.status();
    figure->note = absl::StrFormat("%d tokens, %d layers, check layer 1, ratio %g", kTokens,
                                   model.config().layers, ratio);
    reporter.Print(*figure);
    const double bound = DenseOperations(model.config(), kTokens) / operations;
    reporter.Print({.bench = "reuse",
                    .name = absl::StrCat("dhd/of-bound/reuse", percent),
                    .value = *figure->ratio,
                    .unit = "times",
                    .baseline = "count",
                    .baseline_value = bound,
                    .ratio = *figure->ratio / bound,
                    .note = "speed-up against that of the operations"});
  }
  return absl::OkStatus();
}

}  // namespace kedge::bench
