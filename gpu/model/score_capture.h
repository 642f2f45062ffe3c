// Captures attention scores while a prefill runs, for pruning later (gpu/codec/score_sidecar.h).
//
//     ScoreCapture capture(*model, extent, kScoreWindow);
//     PrefillOptions options;
//     capture.Attach(options);
//     auto logits = model->Prefill(tokens, *cache, options);      // may go on past `extent`
//     auto sidecar = capture.Finish();
//
// Only queries of the first `extent` tokens count: those that a store's blocks hold. What follows
// them in the same prefill changes nothing, not a bit.
//
// Costs: one more product of the counted queries with the keys that they see, a tile at a time; no
// weight is kept. With a window that is 32 or 64 rows a sequence; all rows are for profiling.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "gpu/codec/score_sidecar.h"
#include "gpu/model/model.h"

namespace kedge {

class ScoreCapture {
 public:
  // Of the last `window` queries of the first `extent` tokens (of all of them where the window is
  // larger); window 0: of every query, divided by how many could see a token.
  ScoreCapture(const Model& model, int64_t extent, int64_t window);
  ScoreCapture(const ScoreCapture&) = delete;
  ScoreCapture& operator=(const ScoreCapture&) = delete;

  // Takes options.on_attention_done. The cache must not be pruned; `this` must outlive the prefill.
  void Attach(PrefillOptions& options);

  // FailedPrecondition names layer and rows when a counted query was not computed by the prefills:
  // they came from a store.
  absl::StatusOr<codec::ScoreSidecar> Finish() const;

 private:
  void Add(int64_t layer, const kernels::AttentionArgs& attention);

  CpuDevice& device_;
  const int64_t layers_;
  const int64_t heads_;
  const int64_t extent_;
  const bool every_query_;
  const int64_t window_;
  std::vector<float> mass_;    // [layers][heads][extent]
  std::vector<int64_t> rows_;  // [layer], counted so far
};

}  // namespace kedge
