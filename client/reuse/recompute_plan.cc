#include "client/reuse/recompute_plan.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/base/internal/raw_logging.h"
#include "absl/strings/str_cat.h"

namespace kedge {
namespace {

// A fixed order that has nothing to do with the text: splitmix64.
uint64_t Mixed(uint64_t seed, int32_t position) {
  uint64_t x = seed * 0x9e3779b97f4a7c15u + static_cast<uint64_t>(position) + 1;
  x *= 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

absl::Status CheckConfig(const RecomputeConfig& config, int64_t layers) {
  if (!(config.ratio >= 0.0 && config.ratio <= 1.0))
    return absl::InvalidArgumentError(absl::StrCat("ratio: ", config.ratio, " is not in [0, 1]"));
  if (!(config.slope >= 0.0 && config.slope <= 1.0))
    return absl::InvalidArgumentError(absl::StrCat("slope: ", config.slope, " is not in [0, 1]"));
  const bool checks =
      config.policy != RecomputePolicy::kNone && config.policy != RecomputePolicy::kEpic;
  if (checks && (config.check_layer < 0 || config.check_layer >= layers)) {
    return absl::InvalidArgumentError(
        absl::StrCat("check_layer: ", config.check_layer, " is not in [0, ", layers, ")"));
  }
  if (config.epic_tokens < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("epic_tokens: ", config.epic_tokens, " is negative"));
  }
  return absl::OkStatus();
}

bool HasCheckLayer(const RecomputeConfig& config) {
  return config.policy != RecomputePolicy::kNone && config.policy != RecomputePolicy::kEpic &&
         config.ratio > 0.0;
}

}  // namespace

std::string_view RecomputePolicyName(RecomputePolicy policy) {
  switch (policy) {
    case RecomputePolicy::kNone:
      return "none";
    case RecomputePolicy::kEpic:
      return "epic";
    case RecomputePolicy::kDeviation:
      return "deviation";
    case RecomputePolicy::kDhd:
      return "dhd";
    case RecomputePolicy::kCacheBlend:
      return "cacheblend";
    case RecomputePolicy::kRandom:
      return "random";
    case RecomputePolicy::kOracle:
      return "oracle";
  }
  return "unknown";
}

int64_t CountOf(double ratio, int64_t candidates) {
  if (ratio <= 0.0 || candidates <= 0) return 0;
  // A hair more, so that 0.15 of 20 is 3.
  const auto count =
      static_cast<int64_t>(std::floor(ratio * static_cast<double>(candidates) + 1e-9));
  return std::clamp<int64_t>(count, 1, candidates);
}

std::vector<int32_t> TopTokens(std::span<const ScoredToken> candidates, int64_t count) {
  std::vector<ScoredToken> order(candidates.begin(), candidates.end());
  for (ScoredToken& token : order)
    if (std::isnan(token.score)) token.score = -std::numeric_limits<float>::infinity();
  std::sort(order.begin(), order.end(), [](const ScoredToken& a, const ScoredToken& b) {
    return a.score != b.score ? a.score > b.score : a.position < b.position;
  });
  order.resize(std::clamp<int64_t>(count, 0, static_cast<int64_t>(order.size())));
  std::vector<int32_t> chosen;
  for (const ScoredToken& token : order) chosen.push_back(token.position);
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

absl::StatusOr<RecomputePlanner> RecomputePlanner::Make(const RecomputeConfig& config,
                                                        int64_t layers, int64_t tokens,
                                                        std::span<const ReusedSegment> segments) {
  if (tokens < 1 || tokens > std::numeric_limits<int32_t>::max())
    return absl::InvalidArgumentError(absl::StrCat("tokens: ", tokens, " is no prompt's length"));
  if (absl::Status s = CheckConfig(config, layers); !s.ok()) return s;
  RecomputePlanner planner(config, layers, tokens);
  std::vector<uint8_t> linked(tokens, 0);
  int64_t end = 0;
  for (size_t i = 0; i < segments.size(); ++i) {
    const auto [first, count, fixed] = segments[i];
    if (first < end || count < 0 || first > tokens - count) {
      return absl::InvalidArgumentError(absl::StrCat("segments[", i, "]: ", count, " tokens at ",
                                                     first, " do not ascend inside [0, ", tokens,
                                                     ")"));
    }
    end = first + count;
    std::vector<uint8_t>& kind = fixed ? planner.fixed_ : planner.reused_;
    std::fill(kind.begin() + first, kind.begin() + end, uint8_t{1});
    if (fixed) continue;
    // Nothing stands before the sequence's own first token.
    if (config.policy == RecomputePolicy::kEpic && first > 0)
      std::fill_n(linked.begin() + first, std::min<int64_t>(count, config.epic_tokens), uint8_t{1});
  }
  planner.reused_.back() = 0;
  planner.fixed_.back() = 0;
  const bool all = HasCheckLayer(config);
  for (int64_t token = 0; token < tokens; ++token) {
    planner.reused_count_ += planner.reused_[token];
    planner.fixed_count_ += planner.fixed_[token];
    if (planner.fixed_[token]) continue;
    if (all || !planner.reused_[token] || linked[token])
      planner.start_.push_back(static_cast<int32_t>(token));
  }
  return planner;
}

bool RecomputePlanner::Chooses(int64_t layer) const {
  if (!HasCheckLayer(config_)) return false;
  if (config_.policy == RecomputePolicy::kCacheBlend)
    return layer >= config_.check_layer && layer < layers_;
  return layer == config_.check_layer;
}

bool RecomputePlanner::needs_deviation() const {
  return config_.policy == RecomputePolicy::kDeviation || config_.policy == RecomputePolicy::kDhd ||
         config_.policy == RecomputePolicy::kCacheBlend;
}

int64_t RecomputePlanner::CountAt(int64_t layer) const {
  if (config_.policy != RecomputePolicy::kCacheBlend) return CountOf(config_.ratio, reused_count_);
  const int64_t steps = layers_ - 1 - config_.check_layer;
  if (steps <= 0) return CountOf(config_.ratio, reused_count_);
  const double slope = std::min(config_.slope, (1.0 - config_.ratio) / config_.ratio);
  const double place =
      static_cast<double>(layer - config_.check_layer) / static_cast<double>(steps);  // 0 to 1
  return CountOf(config_.ratio * (1.0 + slope * (1.0 - 2.0 * place)), reused_count_);
}

float RecomputePlanner::Score(int32_t position, size_t row, const RowScores& scores) const {
  if (config_.policy == RecomputePolicy::kRandom)
    return static_cast<float>(Mixed(config_.seed, position) >> 40);
  if (config_.policy == RecomputePolicy::kOracle)
    return scores.oracle.empty() ? 0.0f : scores.oracle[row];
  float score = scores.deviation.empty() ? 0.0f : scores.deviation[row];
  if (!scores.noise.empty()) score = std::max(0.0f, score - scores.noise[row]);
  if (config_.policy == RecomputePolicy::kDhd && !scores.attention.empty())
    score *= scores.attention[row];
  return score;
}

std::vector<int32_t> RecomputePlanner::Choose(int64_t layer, std::span<const int32_t> rows,
                                              const RowScores& scores) {
  for (const auto& known : {scores.deviation, scores.noise, scores.attention, scores.oracle}) {
    ABSL_RAW_CHECK(known.empty() || known.size() == rows.size(),
                   "RecomputePlanner::Choose: not one score a row");
  }
  std::vector<ScoredToken> candidates;
  for (size_t row = 0; row < rows.size(); ++row) {
    if (reused_[rows[row]]) candidates.push_back({rows[row], Score(rows[row], row, scores)});
  }
  const std::vector<int32_t> chosen = TopTokens(candidates, CountAt(layer));
  const auto is_chosen = [&](int32_t position) {
    return std::binary_search(chosen.begin(), chosen.end(), position);
  };
  if (layer == config_.check_layer) {
    for (const ScoredToken& token : candidates)
      if (token.score > 0.0f && !is_chosen(token.position)) left_.push_back(token);
  }
  std::vector<int32_t> kept;
  for (const int32_t position : rows)
    if (!reused_[position] || is_chosen(position)) kept.push_back(position);
  return kept;
}

double RecomputePlanner::RowLayers(double projection_share) const {
  auto rows = static_cast<double>(start_.size());
  const auto computed =
      static_cast<double>(static_cast<int64_t>(reused_.size()) - reused_count_ - fixed_count_);
  double sum = 0;
  for (int64_t layer = 0; layer < layers_; ++layer) {
    sum += projection_share * rows;
    if (Chooses(layer)) rows = computed + static_cast<double>(CountAt(layer));
    sum += (1.0 - projection_share) * rows;
  }
  return sum;
}

DecodeRepair::DecodeRepair(std::span<const ScoredToken> left, const RepairConfig& config)
    : per_step_(std::max<int64_t>(1, config.tokens_per_step)) {
  std::vector<ScoredToken> order;
  double sum = 0;
  for (const ScoredToken& token : left) {
    if (!(token.score > 0.0f)) continue;  // also not a number
    order.push_back(token);
    sum += token.score;
  }
  std::sort(order.begin(), order.end(), [](const ScoredToken& a, const ScoredToken& b) {
    return a.score != b.score ? a.score > b.score : a.position < b.position;
  });
  double covered = 0;
  for (const ScoredToken& token : order) {
    const auto count = static_cast<int64_t>(tokens_.size());
    if (covered >= config.coverage * sum * (1.0 - 1e-12)) break;
    if (config.max_tokens >= 0 && count >= config.max_tokens) break;
    tokens_.push_back(token.position);
    covered += token.score;
  }
  std::sort(tokens_.begin(), tokens_.end());
}

std::vector<int32_t> DecodeRepair::Next() {
  const size_t end = std::min(tokens_.size(), next_ + static_cast<size_t>(per_step_));
  std::vector<int32_t> now(tokens_.begin() + static_cast<int64_t>(next_),
                           tokens_.begin() + static_cast<int64_t>(end));
  next_ = end;
  return now;
}

}  // namespace kedge
