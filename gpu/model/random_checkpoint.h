// Writes a checkpoint with random weights, in the format of a Hugging Face directory.
//
// For demonstrations, benchmarks and tests: real files, real shapes, no training. The same config
// and seed give the same bytes on every machine.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "gpu/model/model_config.h"

namespace kedge {

// Writes config.json and model.safetensors (in config.dtype) into `directory`, which is created if
// it does not exist. Matrices are uniform with variance 1 / inputs, norms near 1, biases small, the
// embedding of variance 1, or 1 / hidden_size when it is the output matrix too: activations and
// logits are of size 1 at any depth.
absl::Status WriteRandomCheckpoint(const std::string& directory, const ModelConfig& config,
                                   uint64_t seed);

}  // namespace kedge
