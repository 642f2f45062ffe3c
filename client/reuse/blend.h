// Runs a recompute plan on the reference runner, the first user of plan_engine.h, and repairs while
// decoding.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/reuse/plan_engine.h"
#include "client/reuse/recompute_plan.h"
#include "gpu/model/kv_cache.h"
#include "gpu/model/model.h"
#include "gpu/model/recompute.h"

namespace kedge {

// The reference runner as an engine that plans are run on.
class RunnerEngine final : public PlanEngine {
 public:
  // All of it must outlive the engine; `tokens` are as many as the cache's.
  RunnerEngine(Model& model, std::span<const int32_t> tokens, KvCache& cache,
               LayerHook wait_for_layer = nullptr)
      : model_(model), tokens_(tokens), cache_(cache), wait_for_layer_(std::move(wait_for_layer)) {}

  int64_t layers() const override { return model_.config().layers; }
  absl::Status Begin(std::span<const int32_t> positions) override;
  absl::Status Project(int64_t layer) override;
  absl::StatusOr<std::vector<float>> ValueDeviation(int64_t layer) override;
  absl::Status WriteKv(int64_t layer) override;
  absl::StatusOr<std::vector<float>> AttentionOfLast(int64_t layer, int64_t queries) override;
  absl::Status Attend(int64_t layer, std::span<const int32_t> positions) override;

  Recomputation& run() { return *run_; }  // from Begin on

 private:
  Model& model_;
  const std::span<const int32_t> tokens_;
  KvCache& cache_;
  const LayerHook wait_for_layer_;
  std::optional<Recomputation> run_;
};

struct BlendRequest {
  std::span<const int32_t> tokens;          // the whole prompt, as long as the cache
  std::span<const ReusedSegment> segments;  // whose rows the cache has, or will have, moved
  RecomputeConfig config;
  // Of dhd: how many of the prompt's last tokens are the queries that will ask. 0 where the
  // question is not known: deviation alone then.
  int64_t queries = 0;
  // One value a token, or empty: what the donor's codec alone makes of ValueDeviation, and the
  // harness's oracle.
  std::span<const float> noise;
  std::span<const float> oracle;
  // As in Recomputation: rows of the segments may arrive layer by layer. Those of layers before the
  // check layer are never read.
  LayerHook wait_for_layer;
};

struct BlendResult {
  Logits logits;                  // of the prompt's last token
  std::vector<int32_t> computed;  // tokens that went through all layers, ascending
  std::vector<ScoredToken> left;  // for DecodeRepair
  double operations = 0.0;        // to be held against DenseOperations()
};

// The cache is blended afterwards: provenance `recomputed`, never to be published as exact. Errors
// of RecomputePlanner::Make and Recomputation; the cache's rows are undefined then.
absl::StatusOr<BlendResult> Blend(Model& model, const BlendRequest& request, KvCache& cache);

// A sequence that goes on behind a blended prompt, its left tokens repaired a few a step. It has a
// copy of the cache of its own: nobody else's pages change under them, and the copy can be read and
// not taken, so it is not published.
class RepairedSequence {
 public:
  // `tokens` are those of the cache; room for max_tokens. Errors as Model::Fork's, and
  // InvalidArgument when there are not as many tokens as in the cache.
  static absl::StatusOr<RepairedSequence> Make(Model& model, std::span<const int32_t> tokens,
                                               const KvCache& blended, DecodeRepair repair,
                                               int64_t max_tokens);

  // Repairs what this step repairs, then appends the token and returns its logits. The same bits as
  // one batch of all these rows would give. Errors as Model::Decode's.
  absl::StatusOr<Logits> Decode(int32_t token);

  const KvCache& cache() const { return cache_; }
  int64_t pending() const { return repair_.pending(); }
  double repair_operations() const { return operations_; }

 private:
  RepairedSequence(Model& model, std::span<const int32_t> tokens, KvCache cache,
                   DecodeRepair repair);

  Model* model_;
  std::vector<int32_t> tokens_;
  KvCache cache_;
  DecodeRepair repair_;
  double operations_ = 0.0;
};

}  // namespace kedge
