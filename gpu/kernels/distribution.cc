#include "gpu/kernels/distribution.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/base/internal/raw_logging.h"

namespace kedge::kernels {

double LogSumExp(std::span<const float> logits) {
  double largest = -std::numeric_limits<double>::infinity();
  for (const float logit : logits) largest = std::max(largest, double{logit});
  if (!std::isfinite(largest)) return largest;
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - largest);
  return largest + std::log(sum);
}

double LogProbability(std::span<const float> logits, int32_t token) {
  ABSL_RAW_CHECK(token >= 0 && token < static_cast<int64_t>(logits.size()),
                 "LogProbability: token outside the logits");
  return logits[token] - LogSumExp(logits);
}

double KullbackLeibler(std::span<const float> reference, std::span<const float> other) {
  ABSL_RAW_CHECK(reference.size() == other.size(), "KullbackLeibler: sizes differ");
  const double reference_sum = LogSumExp(reference);
  const double other_sum = LogSumExp(other);
  double divergence = 0;
  for (size_t i = 0; i < reference.size(); ++i) {
    const double p = reference[i] - reference_sum;
    divergence += std::exp(p) * (p - (other[i] - other_sum));
  }
  return std::max(divergence, 0.0);  // rounding can leave it a little below
}

}  // namespace kedge::kernels
