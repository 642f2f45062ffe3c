// Which tokens of reused KV are computed anew: scores in, sorted token lists out. No model, no
// clock, no bytes; client/reuse/blend.h runs what is planned here.
//
//     auto planner = RecomputePlanner::Make(config, layers, tokens, segments);
//     rows = planner->start();                            // computed from layer 0 on
//     for each layer:
//       if (planner->Chooses(layer)) rows = planner->Choose(layer, rows, scores);
//     left = planner->left();                             // for DecodeRepair
//
// Computed in any case, through all layers: tokens that no donor has, and the prompt's last one,
// whose logits are wanted. The others, the reused ones, are what a policy chooses from:
//
//     none        none of them
//     epic        the first tokens of every segment, which took the segment's start for the
//                 sequence's (EPIC, arXiv 2410.15332). Needs no scores
//     deviation   every token runs through the layers before `check_layer` and is projected there;
//                 those go on whose fresh values are farthest from the cached ones
//     dhd         the same with deviation times the attention of the queries that will ask
//                 (KVShare, 2503.16525). Without such queries it is `deviation`
//     cacheblend  the same as deviation, then fewer at every layer, by their deviation there
//                 (CacheBlend, 2405.16444); ratio is the mean over layers
//     random      the same cost, chosen by the seed: what a score has to beat
//     oracle      the same cost, by scores that nobody can have who has not computed everything:
//                 for harnesses only
//
// Ties go to the lower position, so a plan is a function of its input. Ratio 0 is `none`, ratio 1
// computes all.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace kedge {

enum class RecomputePolicy { kNone, kEpic, kDeviation, kDhd, kCacheBlend, kRandom, kOracle };
std::string_view RecomputePolicyName(RecomputePolicy policy);

struct RecomputeConfig {
  RecomputePolicy policy = RecomputePolicy::kDeviation;
  // The first layer whose values are compared; the layers before it are computed in full. Values of
  // layer 0 depend on the token alone, so 0 tells nothing. From the model's profile: 1 is too early
  // for small models.
  int64_t check_layer = 1;
  double ratio = 0.15;       // of the reused tokens, 0 to 1; not for epic
  int64_t epic_tokens = 16;  // of every segment
  // Of cacheblend: the share chosen falls evenly from (1 + slope) * ratio at the check layer to
  // (1 - slope) * ratio at the last, less steeply where it would pass 1.
  double slope = 0.5;
  uint64_t seed = 0;  // of random
};

// A run of tokens that one donor gave; a prompt's are in order and do not overlap.
struct ReusedSegment {
  int32_t first = 0;
  int32_t count = 0;
  // Its rows stay, whatever the policy: exact, or corrected by offsets. They are neither computed
  // nor compared; but the prompt's last token always is computed.
  bool fixed = false;
};

struct ScoredToken {
  int32_t position = 0;
  float score = 0.0f;
};

// What is known of rows at a layer, one value a row; empty where it is not known.
struct RowScores {
  std::span<const float> deviation;  // L1 of fresh less cached V
  std::span<const float> noise;      // of the codec that the donor came through, taken off
  std::span<const float> attention;  // of the queries that will ask
  std::span<const float> oracle;
};

// floor(ratio * candidates), at least 1 for a ratio above 0, within [0, candidates].
int64_t CountOf(double ratio, int64_t candidates);

// The `count` candidates of the highest scores, in ascending order. A score that is not a number
// counts as the lowest.
std::vector<int32_t> TopTokens(std::span<const ScoredToken> candidates, int64_t count);

class RecomputePlanner {
 public:
  // InvalidArgument names the field and its value: ratio or slope outside [0, 1], check_layer
  // outside [0, layers), epic_tokens below 0, a segment that does not ascend inside [0, tokens).
  static absl::StatusOr<RecomputePlanner> Make(const RecomputeConfig& config, int64_t layers,
                                               int64_t tokens,
                                               std::span<const ReusedSegment> segments);

  // What is computed from layer 0 on, ascending.
  const std::vector<int32_t>& start() const { return start_; }
  // Whether rows are to be chosen between the layer's projection and its attention.
  bool Chooses(int64_t layer) const;
  // Whether Choose looks at deviation, and at attention.
  bool needs_deviation() const;
  bool needs_attention() const { return config_.policy == RecomputePolicy::kDhd; }

  // The rows that go on behind this layer's projection, of `rows`, ascending. Called for the layers
  // that Chooses() names, in order, with what the call before gave. Scores whose length is neither
  // 0 nor rows.size() abort.
  std::vector<int32_t> Choose(int64_t layer, std::span<const int32_t> rows,
                              const RowScores& scores);

  // Reused tokens that were scored at the check layer and did not go on, ascending, scores above 0.
  const std::vector<ScoredToken>& left() const { return left_; }

  // That a policy chooses from: without fixed ones.
  int64_t reused_tokens() const { return reused_count_; }
  int64_t fixed_tokens() const { return fixed_count_; }
  // Rows times layers that the plan computes; a row that is only projected counts as
  // `projection_share`. To hold policies against each other at the same cost.
  double RowLayers(double projection_share) const;

 private:
  RecomputePlanner(const RecomputeConfig& config, int64_t layers, int64_t tokens)
      : config_(config), layers_(layers), reused_(tokens, 0), fixed_(tokens, 0) {}
  int64_t CountAt(int64_t layer) const;
  float Score(int32_t position, size_t row, const RowScores& scores) const;

  RecomputeConfig config_;
  int64_t layers_;
  std::vector<uint8_t> reused_;  // [token]: may be left out
  std::vector<uint8_t> fixed_;   // [token]: is left out
  int64_t reused_count_ = 0;
  int64_t fixed_count_ = 0;
  std::vector<int32_t> start_;
  std::vector<ScoredToken> left_;
};

// The second stage of DHD: what prefill left is repaired while decoding, a few tokens a step.
//
// Tokens are chosen by score and repaired in ascending position, sources before what was computed
// from them. Stop rule: the smallest set of highest scores that has `coverage` of the scores' sum,
// and at most max_tokens; the rest stays as it is.
struct RepairConfig {
  int64_t tokens_per_step = 3;
  double coverage = 0.9;    // 0 to 1; 0 repairs nothing
  int64_t max_tokens = -1;  // below 0: no limit
};

class DecodeRepair {
 public:
  DecodeRepair() = default;  // nothing to repair
  DecodeRepair(std::span<const ScoredToken> left, const RepairConfig& config);

  // What the next step repairs, ascending; empty when all is done.
  std::vector<int32_t> Next();
  bool done() const { return next_ == tokens_.size(); }
  int64_t pending() const { return static_cast<int64_t>(tokens_.size() - next_); }

 private:
  std::vector<int32_t> tokens_;
  size_t next_ = 0;
  int64_t per_step_ = 1;
};

}  // namespace kedge
