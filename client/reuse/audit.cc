#include "client/reuse/audit.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/base/internal/raw_logging.h"

namespace kedge {
namespace {

// splitmix64.
uint64_t Mixed(uint64_t z) {
  z += 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

uint64_t HashOf(const offset::PoolName& pool, uint64_t seed) {
  uint64_t hash = Mixed(seed + static_cast<uint64_t>(pool.kind));
  for (const std::string* text : {&pool.consumer, &pool.placeholder}) {
    for (const char c : *text) hash = Mixed(hash ^ static_cast<uint8_t>(c));
    hash = Mixed(hash ^ text->size());
  }
  return hash;
}

bool Chance(uint64_t hash, double probability) {
  return static_cast<double>(hash >> 11) * 0x1.0p-53 < probability;
}

// log of the sum of exp; the largest logit.
double LogSum(std::span<const float> logits, double largest) {
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - largest);
  return largest + std::log(sum);
}

}  // namespace

AuditOutcome CompareAnswers(std::span<const float> dense, std::span<const float> corrected) {
  ABSL_RAW_CHECK(dense.size() == corrected.size() && !dense.empty(), "logits of one vocabulary");
  const AuditOutcome bad{.kl = std::numeric_limits<double>::infinity()};
  for (const std::span<const float> logits : {dense, corrected}) {
    if (!std::all_of(logits.begin(), logits.end(), [](float l) { return std::isfinite(l); }))
      return bad;
  }
  const auto best_dense = std::max_element(dense.begin(), dense.end());
  const auto best_corrected = std::max_element(corrected.begin(), corrected.end());
  const double dense_sum = LogSum(dense, *best_dense);
  const double corrected_sum = LogSum(corrected, *best_corrected);
  double kl = 0;
  for (size_t i = 0; i < dense.size(); ++i) {
    const double log_p = dense[i] - dense_sum;
    kl += std::exp(log_p) * (log_p - (corrected[i] - corrected_sum));
  }
  return {.kl = std::max(kl, 0.0),
          .same_answer = best_dense - dense.begin() == best_corrected - corrected.begin()};
}

OffsetAudit::OffsetAudit(const AuditOptions& options)
    : options_(options),
      bad_step_(std::log(options.unacceptable / options.tolerated)),
      good_step_(std::log((1 - options.unacceptable) / (1 - options.tolerated))) {
  ABSL_RAW_CHECK(
      options.rate >= 0 && options.rate <= 1 && options.probe_rate >= 0 && options.probe_rate <= 1,
      "shares are 0 to 1");
  ABSL_RAW_CHECK(
      options.tolerated > 0 && options.tolerated < options.unacceptable && options.unacceptable < 1,
      "what is tolerated is below what is unacceptable");
}

AuditTurn OffsetAudit::Turn(const offset::PoolName& pool) {
  const std::lock_guard<std::mutex> lock(mutex_);
  State& state = states_[pool];
  const uint64_t call = state.calls++;
  const double rate = state.trusted ? options_.rate : options_.probe_rate;
  return {state.trusted, Chance(Mixed(HashOf(pool, options_.seed) ^ call), rate)};
}

void OffsetAudit::Note(const offset::PoolName& pool, const AuditOutcome& outcome) {
  const bool bad = !outcome.same_answer || !(outcome.kl <= options_.kl_bar);
  const std::lock_guard<std::mutex> lock(mutex_);
  State& state = states_[pool];
  ++state.audits;
  state.bad += bad;
  state.sum = std::max(0.0, state.sum + (bad ? bad_step_ : good_step_));
  // Probes may not add up without end: a pool that is good again comes back.
  state.sum = std::min(state.sum, options_.threshold);
  if (state.trusted && state.sum >= options_.threshold) {
    state.trusted = false;
    ++state.suspensions;
  } else if (!state.trusted && state.sum <= 0) {
    state.trusted = true;
  }
}

OffsetAudit::State OffsetAudit::StateOf(const offset::PoolName& pool) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = states_.find(pool);
  return found == states_.end() ? State{} : found->second;
}

OffsetAudit::State OffsetAudit::Total() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  State total;
  for (const auto& [pool, state] : states_) {
    total.trusted = total.trusted && state.trusted;
    total.calls += state.calls;
    total.audits += state.audits;
    total.bad += state.bad;
    total.suspensions += state.suspensions;
    total.sum = std::max(total.sum, state.sum);
  }
  return total;
}

}  // namespace kedge
