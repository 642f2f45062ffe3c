// Pruned sequences on their way out: what is held, and reading it into ragged pages.

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/c/handles.h"
#include "client/c/pruned_arguments.h"
#include "client/client_limits.h"
#include "client/get.h"
#include "client/lookup.h"
#include "client/pruned.h"

using namespace kedge;     // NOLINT: the ABI's functions live in no namespace
using namespace kedge::c;  // NOLINT

namespace kedge::c {

kedge_code ReadPruned(const kedge_sequence& sequence, uint32_t block_count, const char* variant,
                      std::optional<PrunedSequence>& pruned) {
  if (block_count == 0 || block_count > sequence.links.size()) {
    return Fail(KEDGE_INVALID, absl::StrCat("block_count: ", block_count, " is not within 1 to ",
                                            sequence.links.size(), ", the sequence's blocks"));
  }
  KEDGE_NEED_POINTER(variant);
  const auto name = Variant::Parse(variant);
  if (!name.ok()) return Fail(name.status());
  auto made = PrunedSequence::Make(*sequence.model->variants, *name, block_count);
  if (!made.ok()) return Fail(made.status());
  pruned = *std::move(made);
  return KEDGE_OK;
}

}  // namespace kedge::c

namespace {

// A name that may be held.
struct Candidate {
  uint32_t block_count = 0;
  Variant variant;
};

kedge_code ReadChains(const ModelVariants& model, const kedge_match_pruned_options& options,
                      std::vector<Variant>& variants) {
  if (kedge_code code = ReadVariants(options.variants, options.variant_count, variants);
      code != KEDGE_OK) {
    return code;
  }
  for (const Variant& variant : variants) {
    if (auto chain = model.Pruned(variant); !chain.ok()) return Fail(chain.status());
  }
  if (options.variants == nullptr) variants = model.PrunedByLoss();
  return KEDGE_OK;
}

LookupOperation::Question NamesOf(const kedge_sequence& sequence,
                                  std::span<const Candidate> candidates,
                                  const std::vector<Variant>& variants, uint32_t lease_ms) {
  LookupOperation::Question question{.lease_ms = lease_ms, .variants = variants};
  for (const Candidate& candidate : candidates) {
    const ChainLink& tail = sequence.links[candidate.block_count - 1];
    const uint32_t tokens = candidate.block_count * sequence.model->shape.block_tokens;
    const BlockKey key =
        SequenceKey(sequence.state->salt, tail.key, tokens, candidate.variant.view(),
                    std::span<const uint8_t, 16>(sequence.model->variants->profile()->id().bytes));
    question.keys.push_back({key, tail.placement});
  }
  return question;
}

bool IsMiss(ResultCode code) {
  return code == ResultCode::kAbsent || code == ResultCode::kEvicted ||
         code == ResultCode::kRemoved || code == ResultCode::kNoVariant ||
         code == ResultCode::kCorrupt;
}

// Takes the lease of what was found; false when it has gone meanwhile.
bool TakeLease(kedge_sequence& sequence, const Candidate& found, uint32_t lease_ms,
               int64_t deadline_us, kedge_match_pruned_result& result) {
  ClientState& state = *sequence.state;
  const auto lookup = std::make_shared<LookupOperation>(
      NamesOf(sequence, {&found, 1}, {found.variant}, lease_ms), deadline_us);
  state.engine->Run(lookup);
  lookup->Wait(UINT32_MAX);
  ItemResult item;
  lookup->CopyItems({&item, 1});
  if (item.code != ResultCode::kOk) return false;
  if (lookup->leases().empty()) return true;
  result.lease_ms = lookup->lease_ms();
  result.lease = state.leases.Add(lookup->leases(), state.engine->NowUs(), result.lease_ms);
  return true;
}

void Describe(const Candidate& found, uint32_t block_tokens, uint64_t payload_bytes,
              kedge_match_pruned_result& result) {
  result.block_count = found.block_count;
  result.tokens = uint64_t{found.block_count} * block_tokens;
  result.fidelity = KEDGE_FIDELITY_PRUNED;
  result.payload_bytes = payload_bytes;
  found.variant.view().copy(result.variant, sizeof result.variant - 1);
}

kedge_code ReadLayer(const ClientState& state, const PrunedSequence& pruned, uint32_t layer,
                     const std::string& field, const kedge_pruned_layer& from,
                     PrunedReader::Layer& to) {
  const auto rows = static_cast<uint64_t>(pruned.rows(layer));
  const struct {
    const char* name;
    const kedge_buffer& buffer;
    ScatterList& list;
  } buffers[] = {{".keys", from.keys, to.keys}, {".values", from.values, to.values}};
  for (const auto& b : buffers) {
    const std::string name = field + b.name;
    if (kedge_code code = ReadBuffer(state, name.c_str(), b.buffer, b.list); code != KEDGE_OK) {
      return code;
    }
    if (b.list.bytes() < rows * pruned.row_bytes()) {
      return Fail(KEDGE_TOO_SMALL, absl::StrCat(name, " has ", b.list.bytes(), " bytes, the ", rows,
                                                " rows need ", rows * pruned.row_bytes()));
    }
  }
  if (from.positions == nullptr) return Fail(KEDGE_INVALID, field + ".positions is NULL");
  if (from.position_count < rows) {
    return Fail(KEDGE_TOO_SMALL, absl::StrCat(field, ".position_count: ", from.position_count,
                                              ", the layer has ", rows, " rows"));
  }
  to.positions = {from.positions, rows};
  return KEDGE_OK;
}

}  // namespace

extern "C" {

kedge_code kedge_pruned_rows(kedge_sequence* sequence, uint32_t block_count, const char* variant,
                             uint32_t* rows, uint32_t layer_count) {
  KEDGE_NEED(sequence);
  KEDGE_NEED_POINTER(rows);
  std::optional<PrunedSequence> pruned;
  if (kedge_code code = ReadPruned(*sequence, block_count, variant, pruned); code != KEDGE_OK) {
    return code;
  }
  const KvShape& shape = pruned->shape();
  if (layer_count != shape.layer_count) {
    return Fail(KEDGE_INVALID, absl::StrCat("layer_count: ", layer_count, ", the shard has ",
                                            shape.layer_count, " layers"));
  }
  for (uint32_t i = 0; i < layer_count; ++i) {
    rows[i] = static_cast<uint32_t>(pruned->rows(shape.layer_begin + i));
  }
  return Ok();
}

kedge_code kedge_pruned_key(kedge_sequence* sequence, uint32_t block_count, const char* variant,
                            kedge_key* key) {
  KEDGE_NEED(sequence);
  KEDGE_NEED_POINTER(key);
  std::optional<PrunedSequence> pruned;
  if (kedge_code code = ReadPruned(*sequence, block_count, variant, pruned); code != KEDGE_OK) {
    return code;
  }
  const BlockKey name = pruned->Key(sequence->state->salt, sequence->links[block_count - 1]);
  std::memcpy(key->bytes, name.bytes.data(), sizeof key->bytes);
  return Ok();
}

kedge_code kedge_match_pruned(kedge_sequence* sequence,
                              const kedge_match_pruned_options* caller_options,
                              kedge_match_pruned_result* caller_result) {
  KEDGE_NEED(sequence);
  kedge_match_pruned_result result;
  if (kedge_code code = ReadStruct("result", caller_result, result); code != KEDGE_OK) return code;
  result = {};
  WriteStruct(result, caller_result);
  kedge_match_pruned_options options{};
  if (caller_options != nullptr) {
    if (kedge_code code = ReadStruct("options", caller_options, options); code != KEDGE_OK) {
      return code;
    }
  }
  const ModelVariants& model = *sequence->model->variants;
  std::vector<Variant> variants;
  if (kedge_code code = ReadChains(model, options, variants); code != KEDGE_OK) return code;
  ClientState& state = *sequence->state;
  const int64_t deadline_us = state.DeadlineUs(options.deadline_ms);
  const uint32_t least = std::max(options.block_count_min, 1u);
  std::vector<Candidate> candidates;
  for (auto blocks = static_cast<uint32_t>(sequence->links.size()); blocks >= least; --blocks) {
    for (const Variant& variant : variants) candidates.push_back({blocks, variant});
    const bool last = blocks == least;
    if (candidates.empty() || (!last && candidates.size() + variants.size() <= kBatchItemsMax)) {
      continue;
    }
    const auto lookup =
        std::make_shared<LookupOperation>(NamesOf(*sequence, candidates, variants, 0), deadline_us);
    state.engine->Run(lookup);
    lookup->Wait(UINT32_MAX);
    std::vector<ItemResult> items(lookup->count());
    lookup->CopyItems(items);
    for (size_t i = 0; i < items.size(); ++i) {
      if (items[i].code == ResultCode::kOk) {
        if (options.lease_ms != 0 &&
            !TakeLease(*sequence, candidates[i], options.lease_ms, deadline_us, result)) {
          continue;
        }
        Describe(candidates[i], model.shape().block_tokens, items[i].bytes, result);
        WriteStruct(result, caller_result);
        return Ok();
      }
      // A miss is an answer; no answer is an error.
      if (!IsMiss(items[i].code)) {
        return Fail(static_cast<kedge_code>(items[i].code), lookup->text());
      }
    }
    candidates.clear();
  }
  return Ok();
}

kedge_code kedge_fetch_pruned(kedge_sequence* sequence,
                              const kedge_fetch_pruned_options* caller_options,
                              kedge_request** request) {
  KEDGE_NEED(sequence);
  KEDGE_NEED_POINTER(request);
  *request = nullptr;
  kedge_fetch_pruned_options options;
  if (kedge_code code = ReadStruct("options", caller_options, options); code != KEDGE_OK) {
    return code;
  }
  std::optional<PrunedSequence> pruned;
  if (kedge_code code = ReadPruned(*sequence, options.block_count, options.variant, pruned);
      code != KEDGE_OK) {
    return code;
  }
  LayerRange range;
  if (kedge_code code =
          ReadLayerRange(pruned->shape(), options.layer_begin, options.layer_count, range);
      code != KEDGE_OK) {
    return code;
  }
  KEDGE_NEED_POINTER(options.layers);
  const ClientState& state = *sequence->state;
  std::vector<PrunedReader::Layer> layers(range.count);
  for (uint32_t i = 0; i < range.count; ++i) {
    kedge_code code =
        ReadLayer(state, *pruned, range.begin + i, absl::StrCat("options.layers[", i, "]"),
                  options.layers[i], layers[i]);
    if (code != KEDGE_OK) return code;
  }
  GetOperation::Question question;
  question.shape = pruned->shape();
  question.layer_parts = 2;
  question.part_begin = (range.begin - question.shape->layer_begin) * 2;
  question.part_count = range.count * 2;
  if (options.layer_group != 0) {
    const uint64_t layer_bytes = 2 * pruned->part_bytes_max();
    const uint64_t least = (kLayerGroupBytesMin + layer_bytes - 1) / layer_bytes;
    const uint64_t group = std::max<uint64_t>(options.layer_group, least);
    question.group_parts = static_cast<uint32_t>(std::min<uint64_t>(group, range.count)) * 2;
  }
  question.variants = {*Variant::Parse(pruned->chain().name())};
  question.lossy = sequence->lossy;
  question.part_bytes_max = pruned->part_bytes_max();
  const ChainLink& tail = sequence->links[options.block_count - 1];
  question.items.resize(1);
  question.items[0].key = pruned->Key(state.salt, tail);
  question.items[0].placement = tail.placement;
  question.items[0].block = 0;  // of the whole prefix
  question.reader =
      std::make_shared<PrunedReader>(*std::move(pruned), range.begin, std::move(layers));
  return Start(sequence->state,
               std::make_shared<GetOperation>(std::move(question), state.window_bytes,
                                              state.DeadlineUs(options.deadline_ms)),
               request);
}

}  // extern "C"
