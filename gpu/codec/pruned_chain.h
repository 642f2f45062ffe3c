// Pruned chains: a sequence's KV without the tokens that matter least, the rest quantized.
//
//     auto chain = PrunedChain::Parse("prefixkv0.5+kivi2g32", &profile);
//     auto kept = chain->Choose(task, source, &sidecar);          // positions, by layer
//     auto part = chain->EncodePart(task, layer, Component::kK, *kept, raw);
//     ...
//     auto kept = chain->ReadKept(task, layer, key_part);         // hostile bytes
//     auto s = chain->DecodePart(task, layer, Component::kK, *kept, key_part, rows);
//
// Names: {prefixkv|uniform}B[-SCORE][+kvcrushS[-ANCHOR]]+REST, at most 47 characters
//
//     prefixkv, uniform: layers share the budget by equal attention mass, or all alike
//     B       share of tokens kept, on average over layers: 0.01 to 0.99, shortest decimal
//     SCORE   what ranks them: nothing (attention of the last 32 queries), sum (of all queries),
//             keydiff, knorm, expect
//     S       share of those spent on representatives: 0 (whole pages, no representatives) to 0.9
//     ANCHOR  nothing (mean), alt, rand
//     REST    a chain of codec_chain.h: `raw` or a lossy one
//
// prefixkv0.5+kivi2g32, prefixkv0.5+kvcrush0.1+kivi4g32, uniform0.25-keydiff+raw. Equal mass is of
// attention: where something else ranks, a layer that looks at little may be left too little.
//
// A pruned variant is of a *sequence*, not of a block: of all tokens from its first one up to the
// end of its last whole block (`tokens`). It is named by SequenceKey (proto/block_key.h): tail's
// prefix key, extent, chain and profile.
//
// **It is a function of that key.** Which tokens are kept follows from the sequence's own KV, from
// scores of queries inside of it (score_sidecar.h) and from the model's profile, and from nothing
// else: not from tokens behind it, not from the question that was asked. What was chosen with those
// belongs to its session and never goes under a key that others can name. The types here have no
// room for it: Choose takes no queries, and a sidecar of another extent is refused.
//
// Rows are kept in segments of the shape's block_tokens (or of the chain's group where that is
// larger; the last one may be shorter), each encoded as a block of the rest of the chain would be,
// keys un-rotated by their true positions. Multiples of 32 rows where the rest is not raw.
//
// A chain is a value, cheap to copy; all methods may be called by any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gpu/codec/codec_chain.h"
#include "gpu/codec/expected_attention.h"
#include "gpu/codec/kvcrush.h"
#include "gpu/codec/prefixkv.h"
#include "gpu/codec/score_sidecar.h"
#include "gpu/codec/token_scores.h"

namespace kedge::codec {

// Of the queries that rank tokens where a name does not say which.
inline constexpr int64_t kScoreWindow = 32;
// Rows that are counted by the group are multiples of this.
inline constexpr int64_t kRowsUnit = 32;

enum class ScoreKind { kWindow, kSum, kKeyDiff, kKeyNorm, kExpected };

// What pruned chains need to know of a model: sections of its profile.
struct PruneProfile {
  PrefixKvProfile budgets;
  std::optional<QueryStats> queries;  // for `expect`
};

struct SequenceTask {
  KvShape shape;       // of the model's blocks, keys and values
  int64_t tokens = 0;  // of the sequence: a multiple of shape.block_tokens
  // Angles of positions [0, tokens); null without RoPE. Looked at where the rest is not raw.
  const kernels::RopeTable* rope = nullptr;
  // Angles of positions [tokens, tokens + kQueriesAhead); looked at for `expect`.
  const kernels::RopeTable* ahead = nullptr;
};

// One layer's keys or values as the engine has them, [tokens][kv_heads][head_size].
using SequenceSource = std::function<std::span<const uint8_t>(int64_t layer, Component component)>;

// Positions by layer of the shape, ascending.
using Kept = std::vector<std::vector<int32_t>>;

class PrunedChain {
 public:
  // Whether the name is of this grammar rather than of codec_chain.h's.
  static bool IsPruned(std::string_view name) {
    return name.substr(0, 8) == "prefixkv" || name.substr(0, 7) == "uniform";
  }

  // InvalidArgument names the text and what is wrong in it. FailedPrecondition where the profile,
  // or a section that the chain needs, is missing.
  static absl::StatusOr<PrunedChain> Parse(std::string_view name, const ModelProfile* profile);
  // The same with sections that are at hand already.
  static absl::StatusOr<PrunedChain> Make(std::string_view name, PruneProfile sections,
                                          const ModelProfile* profile = nullptr);

  const std::string& name() const { return name_; }
  Fidelity fidelity() const { return Fidelity::kPruned; }
  const CodecChain& rest() const { return rest_; }
  ScoreKind score() const { return score_; }
  double budget() const { return budget_; }
  bool needs_sidecar() const { return score_ == ScoreKind::kWindow || score_ == ScoreKind::kSum; }

  // InvalidArgument when the chain cannot encode such a sequence; field and numbers are named.
  absl::Status Supports(const SequenceTask& task) const;

  // How many rows each layer of the shape keeps.
  absl::StatusOr<std::vector<int64_t>> Rows(const SequenceTask& task) const;
  // The most bytes that EncodePart makes of a part of so many rows.
  absl::StatusOr<uint64_t> MaxPartBytes(const SequenceTask& task, Component component,
                                        int64_t rows) const;

  // What each layer keeps. `sidecar` is looked at where needs_sidecar(): InvalidArgument when it is
  // null, or of another kind, extent or geometry.
  absl::StatusOr<Kept> Choose(const SequenceTask& task, const SequenceSource& source,
                              const ScoreSidecar* sidecar) const;
  // The same from scores that are at hand: for measuring. What is stored goes through Choose.
  absl::StatusOr<Kept> ChooseBy(const SequenceTask& task, const TokenScores& scores) const;

  // A part's bytes. `raw` is the source's. Errors as CodecChain::EncodePart's.
  absl::StatusOr<std::vector<uint8_t>> EncodePart(const SequenceTask& task, int64_t layer,
                                                  Component component,
                                                  std::span<const int32_t> kept,
                                                  std::span<const uint8_t> raw) const;

  // The positions that a part of keys holds. Hostile bytes.
  absl::StatusOr<std::vector<int32_t>> ReadKept(const SequenceTask& task, int64_t layer,
                                                std::span<const uint8_t> keys) const;
  // The part's rows, [kept.size()][kv_heads][head_size]. Hostile bytes; a part of other positions
  // than `kept` is refused. The error names part, segment and field; rows hold nothing of use then.
  absl::Status DecodePart(const SequenceTask& task, int64_t layer, Component component,
                          std::span<const int32_t> kept, std::span<const uint8_t> encoded,
                          std::span<uint8_t> rows) const;

 private:
  explicit PrunedChain(CodecChain rest) : rest_(std::move(rest)) {}

  int64_t unit(const SequenceTask& task) const;
  int64_t segment_rows(const SequenceTask& task) const;
  absl::StatusOr<TokenScores> Scores(const SequenceTask& task, const SequenceSource& source,
                                     const ScoreSidecar* sidecar) const;
  // The angles of some rows of a part.
  kernels::RopeTable RopeOf(const SequenceTask& task, std::span<const int32_t> positions) const;

  std::string name_;
  double budget_ = 0.0;
  bool uniform_ = false;
  ScoreKind score_ = ScoreKind::kWindow;
  std::optional<CrushOptions> crush_;
  CodecChain rest_;
  std::shared_ptr<const PruneProfile> profile_;
};

}  // namespace kedge::codec
