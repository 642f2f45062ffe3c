#include "gpu/model/generate.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace kedge {

absl::StatusOr<std::vector<int32_t>> Generate(Model& model, KvCache& cache, const Logits& logits,
                                              const GenerateOptions& options) {
  if (absl::Status status = kernels::ValidateSampling(options.sampling); !status.ok())
    return status;
  if (logits.vocabulary <= 0 || logits.rows() < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("logits: ", logits.values.size(), " values are not a row to start from"));
  }
  kernels::SamplingGenerator generator(options.seed);
  std::vector<int32_t> tokens;
  Logits current;
  std::span<const float> row = logits.row(logits.rows() - 1);
  while (static_cast<int64_t>(tokens.size()) < options.max_tokens) {
    const int32_t token = kernels::SampleToken(row, options.sampling, generator);
    const std::vector<int32_t>& stops = options.stop_tokens;
    if (std::find(stops.begin(), stops.end(), token) != stops.end()) break;
    tokens.push_back(token);
    if (options.on_token && !options.on_token(token)) break;
    if (static_cast<int64_t>(tokens.size()) == options.max_tokens) break;
    if (cache.length() == cache.capacity()) break;
    absl::StatusOr<Logits> next = model.Decode(token, cache);
    if (!next.ok()) return next.status();
    current = *std::move(next);
    row = current.row(0);
  }
  return tokens;
}

}  // namespace kedge
