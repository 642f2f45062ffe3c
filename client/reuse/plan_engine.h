// A recompute plan on any engine: what an inference engine has to be able to do so that a plan
// (recompute_plan.h) can be run on it. The reference runner is one (blend.h).
//
// The engine keeps rows: tokens that go through its layers together, at their true positions. For
// each layer it is asked for queries, keys and values of these rows, then told which of them go on,
// and runs attention and MLP for those. It may hold the rows wherever it likes; what crosses this
// interface is a number a row.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/reuse/recompute_plan.h"

namespace kedge {

class PlanEngine {
 public:
  virtual ~PlanEngine() = default;

  virtual int64_t layers() const = 0;

  // The rows are these positions' tokens now, ascending, as the embedding has them. Once, first.
  virtual absl::Status Begin(std::span<const int32_t> positions) = 0;

  // Queries, keys and values of all rows at this layer, keys rotated at their positions; nothing is
  // written yet. KV of the layer that is still on its way from a store is waited for here.
  virtual absl::Status Project(int64_t layer) = 0;
  // After Project: for each row the sum over heads and dimensions of |fresh V - cached V|, both
  // rounded as the pages are (L1Distance), 0 where nothing changed.
  virtual absl::StatusOr<std::vector<float>> ValueDeviation(int64_t layer) = 0;
  // Writes the rows' keys and values into the pages, over what was moved there.
  virtual absl::Status WriteKv(int64_t layer) = 0;
  // After WriteKv: for each row how much attention the sequence's last `queries` tokens give it at
  // this layer, mean over them and over heads. Asked by `dhd` only; Unimplemented is an answer, and
  // then deviation alone decides.
  virtual absl::StatusOr<std::vector<float>> AttentionOfLast(int64_t layer, int64_t queries) = 0;
  // Goes on with these of the rows: attention over all keys up to each row's own position, whoever
  // wrote them, then the MLP.
  virtual absl::Status Attend(int64_t layer, std::span<const int32_t> positions) = 0;
};

// Sum of |a - b|. Aborts when the sizes differ.
float L1Distance(std::span<const float> a, std::span<const float> b);

struct PlanRequest {
  int64_t tokens = 0;  // of the whole prompt
  std::span<const ReusedSegment> segments;
  RecomputeConfig config;
  int64_t queries = 0;  // as in BlendRequest
  // One value a token, or empty; as in BlendRequest.
  std::span<const float> noise;
  std::span<const float> oracle;
};

struct PlanResult {
  std::vector<int32_t> computed;  // tokens that went through all layers, ascending
  std::vector<ScoredToken> left;  // for DecodeRepair
};

// Runs the plan. The prompt's last token is among the rows at the end: its hidden state is the
// engine's to make logits of. InvalidArgument as RecomputePlanner::Make, or a length that differs;
// else the engine's errors.
absl::StatusOr<PlanResult> RunPlan(PlanEngine& engine, const PlanRequest& request);

}  // namespace kedge
