#include "gpu/codec/pruned_chain.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "gpu/codec/key_scores.h"
#include "gpu/codec/sequence_part.h"
#include "gpu/kernels/cast.h"
#include "proto/model_profile.h"
#include "proto/wire.h"

namespace kedge::codec {
namespace {

constexpr std::string_view kGrammar =
    "{prefixkv|uniform}{0.01..0.99}[-sum|-keydiff|-knorm|-expect][+kvcrush{0..0.9}[-alt|-rand]]"
    "+REST";

struct ScoreName {
  ScoreKind kind;
  std::string_view suffix;
};
constexpr ScoreName kScores[] = {{ScoreKind::kWindow, ""},
                                 {ScoreKind::kSum, "-sum"},
                                 {ScoreKind::kKeyDiff, "-keydiff"},
                                 {ScoreKind::kKeyNorm, "-knorm"},
                                 {ScoreKind::kExpected, "-expect"}};
struct AnchorName {
  CrushAnchor anchor;
  std::string_view suffix;
};
constexpr AnchorName kAnchors[] = {
    {CrushAnchor::kMean, ""}, {CrushAnchor::kAlternating, "-alt"}, {CrushAnchor::kRandom, "-rand"}};

absl::Status BadName(std::string_view name, std::string_view why) {
  return absl::InvalidArgumentError(
      absl::StrCat("variant: \"", absl::CHexEscape(std::string(name.substr(0, 64))),
                   "\": ", absl::string_view(why.data(), why.size()), "; pruned chains are ",
                   absl::string_view(kGrammar.data(), kGrammar.size())));
}

// Takes `word` off the front.
bool Take(std::string_view& text, std::string_view word) {
  if (text.substr(0, word.size()) != word) return false;
  text.remove_prefix(word.size());
  return true;
}

// A share of at most three decimals off the front, in its one shortest spelling: 0, 0.5, 0.125.
std::optional<double> TakeShare(std::string_view& text) {
  std::string_view rest = text;
  if (!Take(rest, "0")) return std::nullopt;
  double value = 0.0;
  if (Take(rest, ".")) {
    int64_t digits = 0;
    int64_t count = 0;
    while (count < 3 && !rest.empty() && rest[0] >= '0' && rest[0] <= '9') {
      digits = 10 * digits + (rest[0] - '0');
      rest.remove_prefix(1);
      ++count;
    }
    if (count == 0 || digits % 10 == 0) return std::nullopt;
    value = static_cast<double>(digits) / std::pow(10.0, static_cast<double>(count));
  }
  text = rest;
  return value;
}

// The longest suffix of the list that `text` begins with, which may be the empty one.
template <typename Names>
const auto& TakeName(std::string_view& text, const Names& names) {
  const auto* best = &names[0];
  for (const auto& name : names) {
    if (!name.suffix.empty() && text.substr(0, name.suffix.size()) == name.suffix) best = &name;
  }
  text.remove_prefix(best->suffix.size());
  return *best;
}

absl::Status Bad(int64_t layer, Component component, const char* field, int64_t value,
                 const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat(
      "part layer ", layer, " ", ComponentName(component), ": ", field, ": ", value, " ", why));
}

KvShape SegmentShape(const SequenceTask& task, int64_t rows) {
  KvShape shape = task.shape;
  shape.block_tokens = static_cast<uint16_t>(rows);
  return shape;
}

uint64_t RowBytes(const KvShape& shape) { return shape.raw_part_bytes() / shape.block_tokens; }

}  // namespace

absl::StatusOr<PrunedChain> PrunedChain::Parse(std::string_view name, const ModelProfile* profile) {
  if (profile == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("variant: \"", absl::CHexEscape(std::string(name.substr(0, 64))),
                     "\" needs the model's profile"));
  }
  const absl::StatusOr<std::span<const uint8_t>> budgets = profile->Section(kPrefixKvSection);
  if (!budgets.ok()) return absl::FailedPreconditionError(budgets.status().message());
  absl::StatusOr<PrefixKvProfile> curves = DecodePrefixKv(*budgets);
  if (!curves.ok()) return curves.status();
  PruneProfile sections{.budgets = *std::move(curves)};
  if (const auto queries = profile->Section(kQueryStatsSection); queries.ok()) {
    absl::StatusOr<QueryStats> stats = DecodeQueryStats(*queries);
    if (!stats.ok()) return stats.status();
    sections.queries = *std::move(stats);
  }
  return Make(name, std::move(sections), profile);
}

absl::StatusOr<PrunedChain> PrunedChain::Make(std::string_view name, PruneProfile sections,
                                              const ModelProfile* profile) {
  if (name.size() >= kVariantBytes)
    return BadName(name, absl::StrCat("has ", name.size(), " characters, at most 47 are stored"));
  std::string_view text = name;
  const bool uniform = Take(text, "uniform");
  if (!uniform && !Take(text, "prefixkv"))
    return BadName(name, "begins with neither prefixkv nor uniform");
  const std::optional<double> budget = TakeShare(text);
  if (!budget || *budget < 0.01) return BadName(name, "the layers' share is not in [0.01, 0.99]");
  const ScoreKind score = TakeName(text, kScores).kind;
  std::optional<CrushOptions> crush;
  if (!Take(text, "+")) return BadName(name, "a + is missing");
  if (Take(text, "kvcrush")) {
    const std::optional<double> share = TakeShare(text);
    if (!share || *share > 0.9) return BadName(name, "kvcrush's share is not in [0, 0.9]");
    crush = CrushOptions{.share = *share};
    crush->anchor = TakeName(text, kAnchors).anchor;
    if (!Take(text, "+")) return BadName(name, "a + is missing");
  }
  absl::StatusOr<CodecChain> rest = CodecChain::Parse(text, profile);
  if (!rest.ok()) return rest.status();
  if (score == ScoreKind::kExpected && !sections.queries) {
    return absl::FailedPreconditionError(absl::StrCat(
        "variant: \"", std::string(name), "\" needs the profile's section ", kQueryStatsSection));
  }
  if (sections.budgets.curves.empty()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "variant: \"", std::string(name), "\" needs the profile's section ", kPrefixKvSection));
  }
  PrunedChain chain(*std::move(rest));
  chain.name_ = std::string(name);
  chain.budget_ = *budget;
  chain.uniform_ = uniform;
  chain.score_ = score;
  chain.crush_ = crush;
  chain.profile_ = std::make_shared<const PruneProfile>(std::move(sections));
  return chain;
}

int64_t PrunedChain::unit(const SequenceTask& task) const {
  int64_t unit = crush_ ? crush_->page_tokens : 1;
  if (rest_.fidelity() == Fidelity::kLossless) return unit;
  // The smallest number of tokens that the rest of the chain takes: a group of kivi's.
  for (unit = kRowsUnit; unit < 4096; unit *= 2)
    if (rest_.Supports(SegmentShape(task, unit)).ok()) break;
  return unit;
}

int64_t PrunedChain::segment_rows(const SequenceTask& task) const {
  return std::max<int64_t>(task.shape.block_tokens, unit(task));
}

absl::Status PrunedChain::Supports(const SequenceTask& task) const {
  const KvShape& shape = task.shape;
  const std::string variant = absl::StrCat("variant ", name_, ": ");
  if (absl::Status s = shape.Validate(); !s.ok()) return s;
  if (shape.components != 3) {
    return absl::InvalidArgumentError(absl::StrCat(
        variant, "components: ", static_cast<int>(shape.components), " are not keys and values"));
  }
  if (!kernels::IsFloatDType(shape.dtype)) {
    return absl::InvalidArgumentError(
        absl::StrCat(variant, "dtype: ", DTypeName(shape.dtype), " is none of f32, f16, bf16"));
  }
  if (task.tokens < 1 || task.tokens > kSequenceTokensMax ||
      task.tokens % shape.block_tokens != 0) {
    return absl::InvalidArgumentError(absl::StrCat(variant, "tokens: ", task.tokens,
                                                   " are no whole blocks of ", shape.block_tokens,
                                                   ", or more than ", kSequenceTokensMax));
  }
  const size_t layers = profile_->budgets.curves.size();
  if (shape.layer_begin + shape.layer_count > static_cast<int64_t>(layers)) {
    return absl::InvalidArgumentError(absl::StrCat(variant, "layers: [", shape.layer_begin, ", ",
                                                   shape.layer_begin + shape.layer_count,
                                                   "), the profile has ", layers));
  }
  if (absl::Status s = rest_.Supports(SegmentShape(task, segment_rows(task))); !s.ok()) return s;
  if (rest_.fidelity() == Fidelity::kLossless || task.rope == nullptr) return absl::OkStatus();
  const auto angles = static_cast<int64_t>(task.rope->cos.size());
  if (angles != task.tokens * shape.head_size / 2) {
    return absl::InvalidArgumentError(absl::StrCat(variant, "rope: ", angles, " angles, expected ",
                                                   task.tokens * shape.head_size / 2));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int64_t>> PrunedChain::Rows(const SequenceTask& task) const {
  if (absl::Status s = Supports(task); !s.ok()) return s;
  // Of all layers, of which the shape may be a shard: what a shard keeps does not depend on how the
  // model was cut.
  const std::vector<PriorityCurve>& curves = profile_->budgets.curves;
  const std::vector<double> shares =
      uniform_ ? std::vector<double>(curves.size(), budget_) : EqualMassShares(curves, budget_);
  // The first and the last page are kept whole.
  const int64_t least = crush_ ? 2 * crush_->page_tokens : 1;
  const int64_t group = unit(task);
  absl::StatusOr<std::vector<int64_t>> rows =
      BudgetRows(shares, budget_, task.tokens, group, std::min(least, task.tokens));
  if (!rows.ok()) return rows;
  const auto begin = rows->begin() + task.shape.layer_begin;
  return std::vector<int64_t>(begin, begin + task.shape.layer_count);
}

absl::StatusOr<uint64_t> PrunedChain::MaxPartBytes(const SequenceTask& task, Component component,
                                                   int64_t rows) const {
  if (absl::Status s = Supports(task); !s.ok()) return s;
  uint64_t bytes = kSequencePartHeaderBytes;
  if (component == Component::kK) bytes += (static_cast<uint64_t>(task.tokens) + 7) / 8;
  if (rest_.fidelity() == Fidelity::kLossless)
    return bytes + sizeof(uint32_t) + static_cast<uint64_t>(rows) * RowBytes(task.shape);
  const int64_t segment = segment_rows(task);
  for (int64_t first = 0; first < rows; first += segment) {
    const KvShape shape = SegmentShape(task, std::min(segment, rows - first));
    const absl::StatusOr<uint64_t> most = rest_.MaxPartBytes(shape, component, first == 0);
    if (!most.ok()) return most.status();
    bytes += sizeof(uint32_t) + *most;
  }
  return bytes;
}

absl::StatusOr<TokenScores> PrunedChain::Scores(const SequenceTask& task,
                                                const SequenceSource& source,
                                                const ScoreSidecar* sidecar) const {
  const KvShape& shape = task.shape;
  if (needs_sidecar()) {
    if (sidecar == nullptr)
      return absl::InvalidArgumentError(absl::StrCat("variant ", name_, ": needs a score sidecar"));
    const SidecarKind kind = score_ == ScoreKind::kSum ? SidecarKind::kSum : SidecarKind::kWindow;
    const int64_t window = kind == SidecarKind::kSum ? 0 : std::min(kScoreWindow, task.tokens);
    const struct {
      const char* field;
      int64_t value;
      int64_t expected;
    } fields[] = {
        {"kind", static_cast<int64_t>(sidecar->kind), static_cast<int64_t>(kind)},
        {"tokens", sidecar->tokens, task.tokens},
        {"layers", sidecar->layers, shape.layer_count},
        {"heads % kv_heads", sidecar->heads % shape.kv_heads, 0},
        {"window", sidecar->window, window},
    };
    for (const auto& f : fields) {
      if (f.value == f.expected) continue;
      return absl::InvalidArgumentError(absl::StrCat("variant ", name_, ": sidecar: ", f.field,
                                                     ": ", f.value, ", expected ", f.expected));
    }
    return ScoresOf(*sidecar);
  }
  const bool expected = score_ == ScoreKind::kExpected;
  if (expected) {
    const QueryStats& stats = *profile_->queries;
    if (stats.head_size != shape.head_size || stats.heads % shape.kv_heads != 0 ||
        stats.layers < shape.layer_begin + shape.layer_count) {
      return absl::InvalidArgumentError(
          absl::StrCat("variant ", name_, ": query_stats: ", stats.layers, " layers, ", stats.heads,
                       " heads of ", stats.head_size, " do not go with ", shape.ToString()));
    }
    if (task.ahead == nullptr || task.ahead->cos.size() % (shape.head_size / 2) != 0 ||
        task.ahead->cos.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("variant ", name_, ": angles of the positions behind are missing"));
    }
  }
  TokenScores scores = TokenScores::Zeros(
      shape.layer_count, expected ? profile_->queries->heads : shape.kv_heads, task.tokens);
  for (int64_t i = 0; i < shape.layer_count; ++i) {
    const int64_t layer = shape.layer_begin + i;
    const std::span<const uint8_t> keys = source(layer, Component::kK);
    if (keys.size() != RowBytes(shape) * task.tokens) {
      return Bad(layer, Component::kK, "raw bytes", static_cast<int64_t>(keys.size()),
                 "are not the sequence's");
    }
    if (score_ == ScoreKind::kKeyDiff) {
      KeyDiffScores(shape.dtype, keys, shape.head_size, i, scores);
    } else if (score_ == ScoreKind::kKeyNorm) {
      KeyNormScores(shape.dtype, keys, shape.head_size, i, scores);
    } else {
      ExpectedAttentionScores(*profile_->queries, layer, shape.dtype, keys,
                              source(layer, Component::kV), shape.kv_heads, *task.ahead, i, scores);
    }
  }
  for (size_t i = 0; i < scores.values.size(); ++i) {
    if (std::isfinite(scores.values[i])) continue;
    const auto per_layer = static_cast<size_t>(scores.heads * scores.tokens);
    return Bad(shape.layer_begin + static_cast<int64_t>(i / per_layer), Component::kK,
               "score of token", static_cast<int64_t>(i % scores.tokens),
               "is not finite: keys or values are not");
  }
  return scores;
}

absl::StatusOr<Kept> PrunedChain::Choose(const SequenceTask& task, const SequenceSource& source,
                                         const ScoreSidecar* sidecar) const {
  if (absl::Status s = Supports(task); !s.ok()) return s;
  const absl::StatusOr<TokenScores> scores = Scores(task, source, sidecar);
  if (!scores.ok()) return scores.status();
  return ChooseBy(task, *scores);
}

absl::StatusOr<Kept> PrunedChain::ChooseBy(const SequenceTask& task,
                                           const TokenScores& scores) const {
  const absl::StatusOr<std::vector<int64_t>> rows = Rows(task);
  if (!rows.ok()) return rows.status();
  if (scores.layers != task.shape.layer_count || scores.tokens != task.tokens) {
    return absl::InvalidArgumentError(absl::StrCat("variant ", name_, ": scores of ", scores.layers,
                                                   " layers and ", scores.tokens, " tokens"));
  }
  Kept kept;
  for (int64_t i = 0; i < scores.layers; ++i) {
    if (!crush_) {
      kept.push_back(KeptPositions(LayerImportance(scores, i), (*rows)[i]));
      continue;
    }
    absl::StatusOr<std::vector<int32_t>> positions =
        CrushedPositions(scores, i, (*rows)[i], *crush_);
    if (!positions.ok()) return positions.status();
    kept.push_back(*std::move(positions));
  }
  return kept;
}

kernels::RopeTable PrunedChain::RopeOf(const SequenceTask& task,
                                       std::span<const int32_t> positions) const {
  const int64_t pairs = task.shape.head_size / 2;
  kernels::RopeTable table;
  for (const int32_t position : positions) {
    const auto from = static_cast<int64_t>(position) * pairs;
    table.cos.insert(table.cos.end(), task.rope->cos.begin() + from,
                     task.rope->cos.begin() + from + pairs);
    table.sin.insert(table.sin.end(), task.rope->sin.begin() + from,
                     task.rope->sin.begin() + from + pairs);
  }
  return table;
}

absl::StatusOr<std::vector<uint8_t>> PrunedChain::EncodePart(const SequenceTask& task,
                                                             int64_t layer, Component component,
                                                             std::span<const int32_t> kept,
                                                             std::span<const uint8_t> raw) const {
  if (absl::Status s = Supports(task); !s.ok()) return s;
  const auto index = task.shape.PartIndex(static_cast<uint32_t>(layer), component);
  if (!index.ok()) return index.status();
  const uint64_t row_bytes = RowBytes(task.shape);
  const auto rows = static_cast<int64_t>(kept.size());
  if (raw.size() != row_bytes * task.tokens) {
    return Bad(layer, component, "raw bytes", static_cast<int64_t>(raw.size()),
               "are not the sequence's");
  }
  if (rows == 0 || rows % unit(task) != 0) {
    return Bad(layer, component, "rows", rows,
               absl::StrCat("are no positive multiple of ", unit(task)));
  }
  for (int64_t i = 0; i < rows; ++i) {
    const bool ascends = kept[i] > (i == 0 ? -1 : kept[i - 1]) && kept[i] < task.tokens;
    if (!ascends) return Bad(layer, component, "position", kept[i], "does not ascend");
  }
  // The first rows of a lossy chain stay as they are, and must be the sequence's first.
  if (rest_.fidelity() != Fidelity::kLossless && kept[kProtectedFirst - 1] != kProtectedFirst - 1)
    return Bad(layer, component, "position", kept[kProtectedFirst - 1], "the first 4 are kept");
  std::vector<uint8_t> gathered(row_bytes * rows);
  for (int64_t i = 0; i < rows; ++i)
    std::memcpy(gathered.data() + i * row_bytes, raw.data() + kept[i] * row_bytes, row_bytes);

  std::vector<uint8_t> out;
  AppendSequenceHeader(component, static_cast<uint32_t>(layer), static_cast<uint32_t>(task.tokens),
                       kept, out);
  WireWriter writer(out);
  if (rest_.fidelity() == Fidelity::kLossless) {
    writer.U32(static_cast<uint32_t>(gathered.size()));
    writer.Bytes(gathered);
    return out;
  }
  const int64_t segment = segment_rows(task);
  for (int64_t first = 0; first < rows; first += segment) {
    const int64_t count = std::min(segment, rows - first);
    PartTask part{.shape = SegmentShape(task, count),
                  .layer = static_cast<uint32_t>(layer),
                  .component = component};
    kernels::RopeTable rope;
    if (task.rope != nullptr) {
      rope = RopeOf(task, kept.subspan(first, count));
      part.rope = &rope;
    }
    const absl::StatusOr<uint64_t> most = rest_.MaxPartBytes(part.shape, component, first == 0);
    if (!most.ok()) return most.status();
    std::vector<uint8_t> encoded(*most);
    const std::span<const uint8_t> from(gathered.data() + first * row_bytes, count * row_bytes);
    const absl::StatusOr<uint64_t> bytes = rest_.EncodePart(part, first == 0, from, encoded);
    if (!bytes.ok()) return bytes.status();
    encoded.resize(*bytes);
    writer.Blob(encoded, UINT32_MAX);
  }
  return out;
}

absl::StatusOr<std::vector<int32_t>> PrunedChain::ReadKept(const SequenceTask& task, int64_t layer,
                                                           std::span<const uint8_t> keys) const {
  if (absl::Status s = Supports(task); !s.ok()) return s;
  const auto index = task.shape.PartIndex(static_cast<uint32_t>(layer), Component::kK);
  if (!index.ok()) return index.status();
  absl::StatusOr<SequencePart> part = ReadSequencePart(Component::kK, static_cast<uint32_t>(layer),
                                                       static_cast<uint32_t>(task.tokens), keys);
  if (!part.ok()) return part.status();
  if (part->rows % unit(task) != 0) {
    return Bad(layer, Component::kK, "rows", part->rows,
               absl::StrCat("are no multiple of ", unit(task)));
  }
  return std::move(part->positions);
}

absl::Status PrunedChain::DecodePart(const SequenceTask& task, int64_t layer, Component component,
                                     std::span<const int32_t> kept,
                                     std::span<const uint8_t> encoded,
                                     std::span<uint8_t> rows) const {
  if (absl::Status s = Supports(task); !s.ok()) return s;
  const auto index = task.shape.PartIndex(static_cast<uint32_t>(layer), component);
  if (!index.ok()) return index.status();
  const absl::StatusOr<SequencePart> read = ReadSequencePart(
      component, static_cast<uint32_t>(layer), static_cast<uint32_t>(task.tokens), encoded);
  if (!read.ok()) return read.status();
  const uint64_t row_bytes = RowBytes(task.shape);
  if (read->rows != kept.size())
    return Bad(layer, component, "rows", read->rows, absl::StrCat("are not ", kept.size()));
  if (read->positions_crc != PositionsCrc(kept))
    return Bad(layer, component, "positions_crc", read->positions_crc, "is of other positions");
  if (rows.size() != row_bytes * kept.size()) {
    return Bad(layer, component, "room", static_cast<int64_t>(rows.size()),
               absl::StrCat("is not for ", kept.size(), " rows"));
  }
  const int64_t segment = rest_.fidelity() == Fidelity::kLossless
                              ? static_cast<int64_t>(kept.size())
                              : segment_rows(task);
  WireReader reader("sequence part", read->segments);
  for (int64_t first = 0; first < static_cast<int64_t>(kept.size()); first += segment) {
    const int64_t count = std::min(segment, static_cast<int64_t>(kept.size()) - first);
    const std::span<const uint8_t> bytes = reader.Blob("segment", UINT32_MAX);
    if (!reader.ok()) break;
    std::span<uint8_t> target = rows.subspan(first * row_bytes, count * row_bytes);
    if (rest_.fidelity() == Fidelity::kLossless) {
      if (bytes.size() != target.size()) {
        return Bad(layer, component, "segment bytes", static_cast<int64_t>(bytes.size()),
                   absl::StrCat("are not ", target.size()));
      }
      std::memcpy(target.data(), bytes.data(), bytes.size());
      continue;
    }
    if (count % unit(task) != 0) return Bad(layer, component, "rows", count, "are no whole groups");
    PartTask part{.shape = SegmentShape(task, count),
                  .layer = static_cast<uint32_t>(layer),
                  .component = component};
    kernels::RopeTable rope;
    if (task.rope != nullptr) {
      rope = RopeOf(task, kept.subspan(first, count));
      part.rope = &rope;
    }
    const absl::Status s = rest_.DecodePart(part, bytes, {{&target, 1}, count});
    if (!s.ok()) {
      return absl::Status(s.code(),
                          absl::StrCat("segment at row ", first, ": ", std::string(s.message())));
    }
  }
  if (absl::Status s = reader.Finish(); !s.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "part layer ", layer, " ", ComponentName(component), ": ", std::string(s.message())));
  }
  return absl::OkStatus();
}

}  // namespace kedge::codec
