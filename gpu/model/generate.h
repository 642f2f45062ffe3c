// A generation loop over a Model: sample, stop or decode, repeat.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "gpu/kernels/sampling.h"
#include "gpu/model/model.h"

namespace kedge {

struct GenerateOptions {
  int64_t max_tokens = 64;
  kernels::SamplingOptions sampling;  // greedy unless said otherwise
  uint64_t seed = 0;                  // of the sampling generator
  // Generation ends after one of these, which is not part of the result.
  std::vector<int32_t> stop_tokens;
  // Called with each token as it is chosen; false ends the generation after it.
  std::function<bool(int32_t token)> on_token;
};

// Continues a sequence whose last row's logits are `logits` (of Prefill or Decode) and whose KV is
// `cache`. Ends at a stop token, after max_tokens, or when the cache is full. The cache then holds
// every token returned but the last.
absl::StatusOr<std::vector<int32_t>> Generate(Model& model, KvCache& cache, const Logits& logits,
                                              const GenerateOptions& options);

}  // namespace kedge
