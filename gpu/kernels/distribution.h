// What a row of logits says about the next token, as probabilities. On the host, in double.
#pragma once

#include <cstdint>
#include <span>

namespace kedge::kernels {

// ln of the sum of e^logit. -infinity for no logits.
double LogSumExp(std::span<const float> logits);

// ln of the probability of `token`, which must be in [0, logits.size()).
double LogProbability(std::span<const float> logits, int32_t token);

// Kullback-Leibler divergence of `other` from `reference`, in nats: sum of p ln(p / q), p of the
// reference. Not negative; 0 for equal logits, exactly so when they are equal bit by bit. Both have
// the same size.
double KullbackLeibler(std::span<const float> reference, std::span<const float> other);

}  // namespace kedge::kernels
