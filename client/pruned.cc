#include "client/pruned.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/base/internal/raw_logging.h"
#include "absl/strings/str_cat.h"

namespace kedge {
namespace {

constexpr uint32_t kPartsPerLayer = 2;  // keys, values

std::shared_ptr<const kernels::RopeTable> Shared(std::optional<kernels::RopeTable> table) {
  if (!table) return nullptr;
  return std::make_shared<const kernels::RopeTable>(*std::move(table));
}

// One layer of it.
codec::ScoreSidecar SliceOf(const codec::ScoreSidecar& sidecar, int64_t layer) {
  codec::ScoreSidecar slice = sidecar;
  slice.layers = 1;
  const int64_t codes = int64_t{sidecar.heads} * sidecar.tokens;
  slice.codes.assign(sidecar.codes.begin() + layer * codes,
                     sidecar.codes.begin() + (layer + 1) * codes);
  return slice;
}

absl::Status WrongHeader(const char* field, const std::string& value, const std::string& expected) {
  return absl::InvalidArgumentError(
      absl::StrCat("header.", field, ": ", value, ", a pruned sequence has ", expected));
}

}  // namespace

absl::StatusOr<PrunedSequence> PrunedSequence::Make(const ModelVariants& model,
                                                    const Variant& variant, uint32_t blocks) {
  absl::StatusOr<codec::PrunedChain> chain = model.Pruned(variant);
  if (!chain.ok()) return chain.status();
  PrunedSequence made(*std::move(chain), variant);
  made.shape_ = model.shape();
  made.model_ = model.model_id();
  made.profile_ = model.profile()->id();
  made.rotated_ = !model.rotation().none();
  made.tokens_ = int64_t{blocks} * made.shape_.block_tokens;
  codec::SequenceTask task{.shape = made.shape_, .tokens = made.tokens_};
  if (absl::Status s = made.chain_.Supports(task); !s.ok()) return s;  // tokens, before angles
  absl::StatusOr<std::vector<int64_t>> rows = made.chain_.Rows(task);
  if (!rows.ok()) return rows.status();
  made.rows_ = *std::move(rows);
  const int64_t most = *std::max_element(made.rows_.begin(), made.rows_.end());
  for (const Component component : {Component::kK, Component::kV}) {
    const absl::StatusOr<uint64_t> bytes = made.chain_.MaxPartBytes(task, component, most);
    if (!bytes.ok()) return bytes.status();
    made.part_bytes_max_ = std::max(made.part_bytes_max_, *bytes);
  }
  if (made.chain_.rest().fidelity() != Fidelity::kLossless)
    made.rope_ = Shared(model.rotation().Table(0, made.tokens_));
  if (made.chain_.score() == codec::ScoreKind::kExpected)
    made.ahead_ = Shared(model.rotation().Table(made.tokens_, codec::kQueriesAhead));
  return made;
}

BlockKey PrunedSequence::Key(const TenantSalt& salt, const ChainLink& tail) const {
  return SequenceKey(salt, tail.key, static_cast<uint32_t>(tokens_), variant_.view(),
                     std::span<const uint8_t, 16>(profile_.bytes));
}

BlockHeader PrunedSequence::Header(const TenantSalt& salt, const ChainLink& tail,
                                   uint64_t tenant) const {
  BlockHeader header;
  header.key = Key(salt, tail);
  header.parent = tail.key;
  header.placement = tail.placement;
  header.chain_depth = tail.depth + 1;
  header.keyspace = Keyspace::kPrefix;
  header.fidelity = Fidelity::kPruned;
  header.variant = variant_;
  header.model = model_;
  header.tenant = tenant;
  header.shape = shape_;
  if (rotated_) {
    const bool raw = chain_.rest().fidelity() == Fidelity::kLossless;
    header.rope = raw ? RopeState::kRotated : RopeState::kUnrotated;
  }
  return header;
}

codec::SequenceTask PrunedSequence::TaskOf(uint32_t layer) const {
  codec::SequenceTask task{
      .shape = shape_, .tokens = tokens_, .rope = rope_.get(), .ahead = ahead_.get()};
  task.shape.layer_begin = static_cast<uint16_t>(layer);
  task.shape.layer_count = 1;
  return task;
}

absl::Status PrunedSequence::EncodeLayer(uint32_t layer, std::span<const uint8_t> keys,
                                         std::span<const uint8_t> values,
                                         const codec::ScoreSidecar* sidecar,
                                         codec::EncodedBlock& block) const {
  const uint32_t index = layer - shape_.layer_begin;
  ABSL_RAW_CHECK(
      index < shape_.layer_count && block.header.parts.size() == size_t{index} * kPartsPerLayer,
      "layers of a pruned sequence are encoded in order");
  std::optional<codec::ScoreSidecar> scores;
  if (sidecar != nullptr && chain_.needs_sidecar()) {
    if (absl::Status s = CheckScores(*sidecar, shape_); !s.ok()) return s;
    scores = SliceOf(*sidecar, index);
  }
  const codec::SequenceTask task = TaskOf(layer);
  const auto source = [&](int64_t, Component component) {
    return component == Component::kK ? keys : values;
  };
  const absl::StatusOr<codec::Kept> kept = chain_.Choose(task, source, scores ? &*scores : nullptr);
  if (!kept.ok()) return kept.status();
  for (const Component component : {Component::kK, Component::kV}) {
    const absl::StatusOr<std::vector<uint8_t>> part =
        chain_.EncodePart(task, layer, component, (*kept)[0], source(layer, component));
    if (!part.ok()) return part.status();
    block.payload.insert(block.payload.end(), part->begin(), part->end());
    if (block.payload.size() > kBlockBytesMax) {
      return absl::InvalidArgumentError(absl::StrCat(
          "variant ", chain_.name(), ": tokens: ", tokens_, " take more than ", kBlockBytesMax,
          " bytes, the most that one object may have, at layer ", layer, " of ",
          shape_.layer_begin + shape_.layer_count, "; prune a shorter prefix, or shards"));
    }
    block.header.parts.push_back({.bytes = static_cast<uint32_t>(part->size())});
  }
  return absl::OkStatus();
}

PrunedReader::PrunedReader(PrunedSequence sequence, uint32_t layer_begin, std::vector<Layer> layers)
    : sequence_(std::move(sequence)), layer_begin_(layer_begin), layers_(std::move(layers)) {}

absl::StatusOr<uint64_t> PrunedReader::Read(const BlockHeader& header, uint32_t part_begin,
                                            uint32_t part_end, std::span<const uint8_t> bytes) {
  const int64_t depth = sequence_.tokens() / sequence_.shape().block_tokens;
  if (header.fidelity != Fidelity::kPruned)
    return WrongHeader("fidelity", FidelityName(header.fidelity), FidelityName(Fidelity::kPruned));
  if (header.chain_depth != depth)
    return WrongHeader("chain_depth", absl::StrCat(header.chain_depth), absl::StrCat(depth));
  uint64_t written = 0;
  for (uint32_t part = part_begin; part < part_end; ++part) {
    const std::span<const uint8_t> of_part = bytes.first(header.parts[part].bytes);
    bytes = bytes.subspan(of_part.size());
    if (absl::Status s = ReadPart(header, part, of_part); !s.ok()) return s;
    written += kept_.size() * sequence_.row_bytes();
  }
  return written;
}

absl::Status PrunedReader::ReadPart(const BlockHeader& header, uint32_t part,
                                    std::span<const uint8_t> bytes) {
  if (absl::Status s = VerifyPart(header, part, bytes); !s.ok()) return s;
  const codec::PartPlace place = codec::PlaceOfPart(sequence_.shape(), part);
  const codec::SequenceTask task = sequence_.TaskOf(place.layer);
  const Layer& layer = layers_[place.layer - layer_begin_];
  if (place.component == Component::kK) {
    absl::StatusOr<std::vector<int32_t>> kept =
        sequence_.chain().ReadKept(task, place.layer, bytes);
    if (!kept.ok()) return kept.status();
    if (static_cast<int64_t>(kept->size()) != sequence_.rows(place.layer)) {
      return absl::InvalidArgumentError(
          absl::StrCat("part layer ", place.layer, " k: rows: ", kept->size(), ", the chain keeps ",
                       sequence_.rows(place.layer)));
    }
    kept_ = *std::move(kept);
    std::copy(kept_.begin(), kept_.end(), layer.positions.begin());
  }
  const ScatterList& to = place.component == Component::kK ? layer.keys : layer.values;
  rows_.resize(kept_.size() * sequence_.row_bytes());
  absl::Status s =
      sequence_.chain().DecodePart(task, place.layer, place.component, kept_, bytes, rows_);
  if (s.ok()) to.CopyIn(0, rows_);
  return s;
}

BlockKey ScoresKey(const TenantSalt& salt, const ChainLink& tail, uint32_t tokens,
                   codec::SidecarKind kind) {
  const std::array<uint8_t, 16> no_profile{};
  const bool sum = kind == codec::SidecarKind::kSum;
  const std::string name = sum ? "scores-sum" : absl::StrCat("scores-window", codec::kScoreWindow);
  return SequenceKey(salt, tail.key, tokens, name, no_profile);
}

absl::Status CheckScores(const codec::ScoreSidecar& scores, const KvShape& shape) {
  const bool sum = scores.kind == codec::SidecarKind::kSum;
  const int64_t window = sum ? 0 : std::min<int64_t>(codec::kScoreWindow, scores.tokens);
  const struct {
    const char* field;
    int64_t value;
    int64_t expected;
  } fields[] = {
      {"tokens % block_tokens", scores.tokens % shape.block_tokens, 0},
      {"layers", scores.layers, shape.layer_count},
      {"heads % kv_heads", scores.heads % shape.kv_heads, 0},
      {"window", scores.window, window},
  };
  for (const auto& f : fields) {
    if (f.value == f.expected) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("sidecar: ", f.field, ": ", f.value, ", expected ", f.expected));
  }
  return absl::OkStatus();
}

}  // namespace kedge
