// How LLM-like a model's attention and keys are: what makes figures on a small model transfer, or
// not.
//
// Large models attend much to their first tokens (attention sinks: Xiao et al., arXiv 2309.17453)
// and have a few large key channels (KIVI, arXiv 2402.02750). A small model has either or not: it
// is measured and reported, never assumed.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "tests/quality/eval_context.h"

namespace kedge::quality {

struct ModelStatistics {
  // The share of attention that goes to token 0, by layer: mean over heads and over the rows behind
  // the first 16.
  std::vector<double> sink;
  // What it would be if every row looked at all tokens alike.
  double uniform = 0;
  // The largest channel's root mean square against the median channel's, by layer: mean over KV
  // heads. Keys before rotation.
  std::vector<double> key_channels;
};

double MeanOverLayers(const std::vector<double>& by_layer);

// Dense prefills of the first `contexts` contexts.
absl::StatusOr<ModelStatistics> MeasureModel(Model& model, const std::vector<EvalContext>& contexts,
                                             size_t count);

}  // namespace kedge::quality
