// Pruning what the store holds: raw blocks, and scores beside them, become a pruned sequence. Layer
// by layer, so that memory for one is enough.

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/c/handles.h"
#include "client/c/pruned_arguments.h"
#include "client/get.h"
#include "client/lookup.h"
#include "client/pruned.h"
#include "proto/messages.h"

using namespace kedge;     // NOLINT: the ABI's functions live in no namespace
using namespace kedge::c;  // NOLINT

namespace {

// Runs it to its end; its items.
std::vector<ItemResult> Finished(ClientState& state, const std::shared_ptr<Operation>& operation) {
  state.engine->Run(operation);
  operation->Wait(UINT32_MAX);
  std::vector<ItemResult> items(operation->count());
  operation->CopyItems(items);
  return items;
}

// One layer of the store's raw blocks.
kedge_code FetchLayer(const kedge_sequence& sequence, uint32_t block_count, uint32_t layer_index,
                      int64_t deadline_us, LayerMemory& layer) {
  ClientState& state = *sequence.state;
  const KvShape& shape = sequence.model->shape;
  const uint64_t part_bytes = shape.raw_part_bytes();
  for (uint32_t first = 0; first < block_count; first += kBatchItemsMax) {
    GetOperation::Question question;
    question.shape = shape;
    question.variants = {Variant::Raw()};
    question.part_begin = 2 * layer_index;
    question.part_count = 2;
    for (uint32_t block = first; block < std::min(first + kBatchItemsMax, block_count); ++block) {
      const ChainLink& link = sequence.links[block];
      GetOperation::Item& item = question.items.emplace_back();
      item.key = link.key;
      item.placement = link.placement;
      item.block = block;
      item.to.Add(layer.keys.data() + block * part_bytes, part_bytes);
      item.to.Add(layer.values.data() + block * part_bytes, part_bytes);
    }
    const auto get =
        std::make_shared<GetOperation>(std::move(question), state.window_bytes, deadline_us);
    const std::vector<ItemResult> items = Finished(state, get);
    for (size_t i = 0; i < items.size(); ++i) {
      if (items[i].code == ResultCode::kOk) continue;
      return Fail(static_cast<kedge_code>(items[i].code),
                  absl::StrCat("block ", first + i, ", layer ", shape.layer_begin + layer_index,
                               ": ", ResultCodeName(items[i].code), ": ", get->text()));
    }
  }
  return KEDGE_OK;
}

kedge_code FetchScores(const kedge_sequence& sequence, const PrunedSequence& pruned,
                       const ChainLink& tail, int64_t deadline_us, codec::ScoreSidecar& sidecar) {
  ClientState& state = *sequence.state;
  const auto kind = pruned.chain().score() == codec::ScoreKind::kSum ? codec::SidecarKind::kSum
                                                                     : codec::SidecarKind::kWindow;
  const BlockKey key = ScoresKey(state.salt, tail, static_cast<uint32_t>(pruned.tokens()), kind);
  const auto failed = [](ResultCode code, const std::string& text) {
    return Fail(static_cast<kedge_code>(code), absl::StrCat("scores of the sequence: ", text));
  };
  const auto lookup = std::make_shared<LookupOperation>(
      LookupOperation::Question{.keys = {{key, tail.placement}}}, deadline_us);
  const ItemResult held = Finished(state, lookup)[0];
  if (held.code != ResultCode::kOk) return failed(held.code, lookup->text());
  std::vector<uint8_t> bytes(held.bytes);
  GetOperation::Question question;
  GetOperation::Item& item = question.items.emplace_back();
  item.key = key;
  item.placement = tail.placement;
  item.to.Add(bytes.data(), bytes.size());
  const auto get =
      std::make_shared<GetOperation>(std::move(question), state.window_bytes, deadline_us);
  const ItemResult result = Finished(state, get)[0];
  if (result.code != ResultCode::kOk) return failed(result.code, get->text());
  return ReadScores(bytes.data(), result.bytes, sequence.model->shape, sidecar);
}

// Leases of blocks, given back at the end.
class Lease {
 public:
  Lease(ClientState& state, std::vector<uint64_t> leases)
      : engine_(state.engine.get()), leases_(std::move(leases)) {}
  Lease(const Lease&) = delete;
  ~Lease() {
    if (leases_.empty()) return;
    engine_->Post([engine = engine_, leases = leases_] {
      if (!engine->connected()) return;  // they ended with their session
      EncodeRelease({.leases = leases}, engine->Body());
      engine->Send(FrameType::kRelease, 0, 0);
    });
  }

 private:
  Engine* engine_;
  const std::vector<uint64_t> leases_;
};

kedge_code Outcome(const ItemResult& result, const std::string& text, kedge_item& item) {
  item.code = static_cast<kedge_code>(result.code);
  item.bytes = result.bytes;
  item.fidelity = KEDGE_FIDELITY_PRUNED;
  return IsSuccess(result.code) ? Ok() : Fail(item.code, text);
}

// Everything but the put: fetches, chooses, encodes.
kedge_code EncodeFromStore(const kedge_sequence& sequence, const PrunedSequence& pruned,
                           const ChainLink& tail, int64_t deadline_us, codec::EncodedBlock& block) {
  codec::ScoreSidecar sidecar;
  const bool scored = pruned.chain().needs_sidecar();
  if (scored) {
    kedge_code code = FetchScores(sequence, pruned, tail, deadline_us, sidecar);
    if (code != KEDGE_OK) return code;
  }
  const KvShape& shape = pruned.shape();
  const uint32_t block_count = tail.depth + 1;
  LayerMemory layer(block_count * shape.raw_part_bytes());
  for (uint32_t i = 0; i < shape.layer_count; ++i) {
    kedge_code code = FetchLayer(sequence, block_count, i, deadline_us, layer);
    if (code != KEDGE_OK) return code;
    const absl::Status status = pruned.EncodeLayer(shape.layer_begin + i, layer.keys, layer.values,
                                                   scored ? &sidecar : nullptr, block);
    if (!status.ok()) return Fail(status);
  }
  return KEDGE_OK;
}

// All of kedge_prune once its arguments are good.
kedge_code PruneFromStore(const kedge_sequence& sequence, const PrunedSequence& pruned,
                          const ChainLink& tail, uint8_t durability, int64_t deadline_us,
                          kedge_item& item) {
  ClientState& state = *sequence.state;
  codec::EncodedBlock block{.header = pruned.Header(state.salt, tail, state.tenant)};
  if (durability != kDurabilitySsd) {
    const auto lookup = std::make_shared<LookupOperation>(
        LookupOperation::Question{.keys = {{block.header.key, tail.placement}},
                                  .variants = {block.header.variant}},
        deadline_us);
    ItemResult held = Finished(state, lookup)[0];
    if (held.code == ResultCode::kOk) {
      held.code = ResultCode::kExists;
      return Outcome(held, "", item);
    }
  }
  // The blocks stay while they are read.
  LookupOperation::Question question{
      .run = true, .lease_ms = state.engine->info().lease_ms_max, .variants = {Variant::Raw()}};
  for (uint32_t i = 0; i <= tail.depth; ++i) {
    question.keys.push_back({sequence.links[i].key, sequence.links[i].placement});
  }
  const auto lookup = std::make_shared<LookupOperation>(std::move(question), deadline_us);
  const std::vector<ItemResult> held = Finished(state, lookup);
  const Lease lease(state, lookup->leases());
  for (size_t i = 0; i < held.size(); ++i) {
    if (held[i].code == ResultCode::kOk) continue;
    return Fail(static_cast<kedge_code>(held[i].code),
                absl::StrCat("block ", i, " as raw: ", ResultCodeName(held[i].code)));
  }
  if (kedge_code code = EncodeFromStore(sequence, pruned, tail, deadline_us, block);
      code != KEDGE_OK) {
    return code;
  }
  const auto put = PutOf(state, std::move(block), durability, deadline_us);
  const ItemResult stored = Finished(state, put)[0];
  return Outcome(stored, put->text(), item);
}

// With `item` filled where it succeeds.
kedge_code Prune(kedge_sequence* sequence, const kedge_prune_options* caller_options,
                 kedge_item& item) {
  KEDGE_NEED(sequence);
  kedge_prune_options options;
  if (kedge_code code = ReadStruct("options", caller_options, options); code != KEDGE_OK) {
    return code;
  }
  std::optional<PrunedSequence> pruned;
  if (kedge_code code = ReadPruned(*sequence, options.block_count, options.variant, pruned);
      code != KEDGE_OK) {
    return code;
  }
  uint8_t durability = 0;
  if (kedge_code code = ReadDurability(options.durability, durability); code != KEDGE_OK) {
    return code;
  }
  return PruneFromStore(*sequence, *pruned, sequence->links[options.block_count - 1], durability,
                        sequence->state->DeadlineUs(options.deadline_ms), item);
}

}  // namespace

extern "C" {

kedge_code kedge_prune(kedge_sequence* sequence, const kedge_prune_options* options,
                       kedge_item* caller_item) {
  kedge_item item{};
  const kedge_code code = Prune(sequence, options, item);
  if (code != KEDGE_OK) item.code = code;
  if (caller_item != nullptr) *caller_item = item;
  return code;
}

}  // extern "C"
