// The twin of a model: keys with a few large channels, as those of large models are, and the same
// answers.
//
// In every KV head two pairs of rotated key channels are multiplied by a scale and the same
// channels of the queries that read them divided by it, in the weights and biases that make them.
// Rotation mixes only the two channels of a pair, so scores stay what they were; with a scale that
// is a power of two, to the last bit, also where keys are rounded to bf16 or f16 (unless they
// overflow f16). What quantizes keys sees the difference.
//
// The pairs are the same in every head: the slow ones, whose angles hardly turn, are where large
// models have theirs (KIVI, arXiv 2402.02750, figure 2, shows the channels; not which pairs).
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "gpu/model/model_config.h"
#include "gpu/model/weights.h"

namespace kedge {

// The pairs that MakeTwin scales: pair i of a head is channels i and i + head_size / 2.
std::vector<int64_t> TwinPairs(int64_t head_size);

// InvalidArgument when `scale` is not a power of two in [1/1024, 1024]. 1 changes nothing.
absl::Status MakeTwin(const ModelConfig& config, float scale, ModelWeights& weights);

}  // namespace kedge
