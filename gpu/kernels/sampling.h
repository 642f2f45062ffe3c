// Chooses the next token from logits: greedy, temperature, nucleus (top-p).
// Holtzman et al., "The Curious Case of Neural Text Degeneration" (arXiv 1904.09751).
//
// Runs on the host, also for a CUDA device: the logits of one row are small. The same options, seed
// and logits give the same tokens on every machine with the same libm.
#pragma once

#include <cstdint>
#include <span>

#include "absl/status/status.h"

namespace kedge::kernels {

struct SamplingOptions {
  // 0 is greedy: the largest logit, the lowest token id among equals.
  float temperature = 0.0f;
  // Keep the most likely tokens until their probabilities reach this sum; 1 keeps all.
  float top_p = 1.0f;
};

// InvalidArgument naming the field and the value: temperature < 0, top_p outside (0, 1], or not
// finite.
absl::Status ValidateSampling(const SamplingOptions& options);

// A seeded sequence of random numbers (SplitMix64). Value type: copy it to replay.
class SamplingGenerator {
 public:
  explicit SamplingGenerator(uint64_t seed) : state_(seed) {}
  uint64_t NextBits();
  // Uniform in [0, 1), 53 random bits.
  double NextUniform();

 private:
  uint64_t state_;
};

int32_t ArgMax(std::span<const float> logits);

// `options` must be valid and `logits` not empty. Draws exactly one number from `generator` unless
// greedy, so a replay stays in step.
int32_t SampleToken(std::span<const float> logits, const SamplingOptions& options,
                    SamplingGenerator& generator);

}  // namespace kedge::kernels
