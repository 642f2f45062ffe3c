// Pruned sequences on their way in: scores beside raw blocks, and what is made of blocks that the
// caller has.

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/c/handles.h"
#include "client/c/pruned_arguments.h"
#include "client/pruned.h"
#include "proto/block_header.h"

using namespace kedge;     // NOLINT: the ABI's functions live in no namespace
using namespace kedge::c;  // NOLINT

namespace kedge::c {

kedge_code ReadScores(const void* scores, uint64_t bytes, const KvShape& shape,
                      codec::ScoreSidecar& sidecar) {
  auto read = codec::DecodeSidecar({static_cast<const uint8_t*>(scores), bytes});
  if (!read.ok()) return Fail(read.status());
  if (absl::Status status = CheckScores(*read, shape); !status.ok()) return Fail(status);
  sidecar = *std::move(read);
  return KEDGE_OK;
}

std::shared_ptr<Operation> PutOf(const ClientState& state, codec::EncodedBlock block,
                                 uint8_t durability, int64_t deadline_us) {
  PutOperation::Question question;
  question.variant = block.header.variant;
  question.durability = durability;
  auto memory = std::make_shared<std::vector<uint8_t>>(std::move(block.payload));
  PutOperation::Item& item = question.items.emplace_back();
  item.header = std::move(block.header);
  item.extents = {{0, memory->data(), memory->size()}};
  question.memory = std::move(memory);
  return std::make_shared<PutOperation>(std::move(question), state.window_bytes, deadline_us);
}

}  // namespace kedge::c

namespace {

// What was lossy may go into nothing that others take for a function of its key.
kedge_code CheckComputedOver(const kedge_sequence& sequence, uint32_t computed_over,
                             uint32_t block_count, const Variant& variant) {
  if (computed_over == KEDGE_FIDELITY_LOSSLESS) return KEDGE_OK;
  if (computed_over != KEDGE_FIDELITY_NONE) {
    return Fail(KEDGE_DENIED, absl::StrCat("options.computed_over: ", computed_over,
                                           ": what is pruned or scored must be lossless KV"));
  }
  const absl::Status may = sequence.lossy->MayStore(block_count, variant);
  return may.ok() ? KEDGE_OK : Fail(may);
}

// The parts of one layer out of blocks of the caller's.
void Gather(const std::vector<ScatterList>& blocks, uint64_t layer_index, uint64_t part_bytes,
            LayerMemory& layer) {
  for (size_t block = 0; block < blocks.size(); ++block) {
    uint8_t* to = layer.keys.data() + block * part_bytes;
    const auto copy = [&](std::span<uint8_t> run) { to = std::copy(run.begin(), run.end(), to); };
    blocks[block].ForRange(2 * layer_index * part_bytes, part_bytes, copy);
    to = layer.values.data() + block * part_bytes;
    blocks[block].ForRange((2 * layer_index + 1) * part_bytes, part_bytes, copy);
  }
}

}  // namespace

extern "C" {

kedge_code kedge_store_scores(kedge_sequence* sequence,
                              const kedge_store_scores_options* caller_options,
                              kedge_request** request) {
  KEDGE_NEED(sequence);
  KEDGE_NEED_POINTER(request);
  *request = nullptr;
  kedge_store_scores_options options;
  if (kedge_code code = ReadStruct("options", caller_options, options); code != KEDGE_OK) {
    return code;
  }
  KEDGE_NEED_POINTER(options.scores);
  const ClientState& state = *sequence->state;
  const KvShape& shape = sequence->model->shape;
  codec::ScoreSidecar sidecar;
  if (kedge_code code = ReadScores(options.scores, options.score_bytes, shape, sidecar);
      code != KEDGE_OK) {
    return code;
  }
  const uint32_t block_count = sidecar.tokens / shape.block_tokens;
  if (block_count > sequence->links.size()) {
    return Fail(KEDGE_INVALID, absl::StrCat("sidecar: tokens: ", sidecar.tokens, " pass the ",
                                            sequence->links.size(), " blocks of the sequence"));
  }
  if (kedge_code code =
          CheckComputedOver(*sequence, options.computed_over, block_count, Variant::Raw());
      code != KEDGE_OK) {
    return code;
  }
  uint8_t durability = 0;
  if (kedge_code code = ReadDurability(options.durability, durability); code != KEDGE_OK) {
    return code;
  }
  const ChainLink& tail = sequence->links[block_count - 1];
  codec::EncodedBlock block{.payload = codec::EncodeSidecar(sidecar)};
  BlockHeader& header = block.header;
  header.key = ScoresKey(state.salt, tail, sidecar.tokens, sidecar.kind);
  header.placement = tail.placement;
  header.variant = Variant::Raw();
  header.parts = {{.bytes = static_cast<uint32_t>(block.payload.size())}};
  return Start(sequence->state,
               PutOf(state, std::move(block), durability, state.DeadlineUs(options.deadline_ms)),
               request);
}

kedge_code kedge_store_pruned(kedge_sequence* sequence,
                              const kedge_store_pruned_options* caller_options,
                              kedge_request** request) {
  KEDGE_NEED(sequence);
  KEDGE_NEED_POINTER(request);
  *request = nullptr;
  kedge_store_pruned_options options;
  if (kedge_code code = ReadStruct("options", caller_options, options); code != KEDGE_OK) {
    return code;
  }
  std::optional<PrunedSequence> pruned;
  if (kedge_code code = ReadPruned(*sequence, options.block_count, options.variant, pruned);
      code != KEDGE_OK) {
    return code;
  }
  const ClientState& state = *sequence->state;
  const ChainLink& tail = sequence->links[options.block_count - 1];
  codec::EncodedBlock block{.header = pruned->Header(state.salt, tail, state.tenant)};
  if (kedge_code code = CheckComputedOver(*sequence, options.computed_over, options.block_count,
                                          block.header.variant);
      code != KEDGE_OK) {
    return code;
  }
  uint8_t durability = 0;
  if (kedge_code code = ReadDurability(options.durability, durability); code != KEDGE_OK) {
    return code;
  }
  KEDGE_NEED_POINTER(options.buffers);
  const KvShape& shape = pruned->shape();
  std::vector<ScatterList> blocks(options.block_count);
  for (uint32_t i = 0; i < blocks.size(); ++i) {
    const std::string field = absl::StrCat("options.buffers[", i, "]");
    if (kedge_code code = ReadBuffer(state, field.c_str(), options.buffers[i], blocks[i]);
        code != KEDGE_OK) {
      return code;
    }
    if (blocks[i].bytes() != shape.raw_block_bytes()) {
      return Fail(KEDGE_INVALID, absl::StrCat(field, " has ", blocks[i].bytes(),
                                              " bytes, needed are ", shape.raw_block_bytes()));
    }
  }
  codec::ScoreSidecar sidecar;
  if (options.scores != nullptr) {
    kedge_code code = ReadScores(options.scores, options.score_bytes, shape, sidecar);
    if (code != KEDGE_OK) return code;
  }
  const int64_t deadline_us = state.DeadlineUs(options.deadline_ms);
  LayerMemory layer(blocks.size() * shape.raw_part_bytes());
  for (uint32_t i = 0; i < shape.layer_count; ++i) {
    Gather(blocks, i, shape.raw_part_bytes(), layer);
    const absl::Status status =
        pruned->EncodeLayer(shape.layer_begin + i, layer.keys, layer.values,
                            options.scores != nullptr ? &sidecar : nullptr, block);
    if (!status.ok()) return Fail(status);
  }
  return Start(sequence->state, PutOf(state, std::move(block), durability, deadline_us), request);
}

}  // extern "C"
