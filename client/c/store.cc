// Storing blocks of a sequence: whole, and layer by layer; as they are, or encoded as a lossy
// variant.

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/c/handles.h"
#include "client/put.h"
#include "gpu/codec/block_codec.h"
#include "proto/block_header.h"

using namespace kedge;     // NOLINT: the ABI's functions live in no namespace
using namespace kedge::c;  // NOLINT

struct kedge_writer {
  // What encodes one block, with the angles that it turns keys back by.
  struct Encoder {
    std::optional<kedge::kernels::RopeTable> rope;
    std::optional<kedge::codec::BlockEncoder> encoder;
  };
  struct Block {
    std::vector<bool> given;  // by part
    uint32_t given_count = 0;
    std::unique_ptr<Encoder> encoder;  // of a lossy variant
  };
  std::shared_ptr<kedge::c::ClientState> state;
  std::shared_ptr<const kedge::c::ModelState> model;
  std::shared_ptr<kedge::PutOperation> operation;  // of a lossy variant: from the commit on
  uint32_t deadline_ms = 0;
  std::vector<Block> blocks;
  kedge::PutOperation::Question encoded;  // of a lossy variant: what is begun with the commit
};

namespace {

// Whole parts of one block, on their way to the loop.
struct Given {
  uint32_t item = 0;
  std::vector<PutOperation::Extent> extents;
};

BlockHeader HeaderOf(const ModelState& model, const ChainLink& link) {
  BlockHeader header;
  header.key = link.key;
  header.parent = link.parent;
  header.placement = link.placement;
  header.chain_depth = link.depth;
  header.keyspace = Keyspace::kPrefix;
  header.fidelity = Fidelity::kLossless;
  header.variant = Variant::Raw();
  header.model = model.variants->model_id();
  header.tenant = model.tenant;
  header.shape = model.shape;
  if (model.rotated) {
    header.rope = RopeState::kRotated;
    header.rope_base_position = link.depth * model.shape.block_tokens;
  }
  header.parts.resize(model.shape.part_count());
  for (PartEntry& part : header.parts) {
    part.bytes = static_cast<uint32_t>(model.shape.raw_part_bytes());
  }
  return header;
}

// Where the payload lies that starts at byte `payload` of a block.
std::vector<PutOperation::Extent> ExtentsOf(const ScatterList& from, uint64_t payload) {
  std::vector<PutOperation::Extent> extents;
  from.ForRange(0, from.bytes(), [&](std::span<uint8_t> run) {
    extents.push_back({payload, run.data(), run.size()});
    payload += run.size();
  });
  return extents;
}

// `chain` is set when the blocks are to be stored as a lossy variant.
kedge_code ReadOptions(const kedge_sequence& sequence, const kedge_store_options* from,
                       kedge_store_options& options, PutOperation::Question& question,
                       std::optional<codec::CodecChain>& chain) {
  if (kedge_code code = ReadStruct("options", from, options); code != KEDGE_OK) return code;
  if (kedge_code code = CheckBatch("options.block_count", options.block_count); code != KEDGE_OK) {
    return code;
  }
  if (uint64_t{options.block_begin} + options.block_count > sequence.links.size()) {
    return Fail(KEDGE_INVALID,
                absl::StrCat("options.block_begin: ", options.block_begin, " and block_count ",
                             options.block_count, " pass the sequence's ", sequence.links.size(),
                             " blocks"));
  }
  if (options.computed_over > KEDGE_FIDELITY_PRUNED) {
    return Fail(KEDGE_INVALID, absl::StrCat("options.computed_over: ", options.computed_over,
                                            " is not within 0 to ", KEDGE_FIDELITY_PRUNED));
  }
  if (options.provenance > KEDGE_PROVENANCE_MOVED) {
    return Fail(KEDGE_INVALID, absl::StrCat("options.provenance: ", options.provenance,
                                            " is not within 0 to ", KEDGE_PROVENANCE_MOVED));
  }
  if (options.provenance > KEDGE_PROVENANCE_DENSE) {
    constexpr const char* kNames[] = {"corrected", "recomputed", "moved"};
    return Fail(KEDGE_DENIED, absl::StrCat("options.provenance: ",
                                           kNames[options.provenance - KEDGE_PROVENANCE_CORRECTED],
                                           " KV may not be published under prefix keys"));
  }
  question.variant = Variant::Raw();
  if (options.variant != nullptr) {
    auto variant = Variant::Parse(options.variant);
    if (!variant.ok()) return Fail(variant.status());
    auto made = sequence.model->variants->Chain(*variant);
    if (!made.ok()) return Fail(made.status());
    question.variant = *variant;
    if (made->fidelity() != Fidelity::kLossless) chain = *std::move(made);
  }
  const auto fidelity = chain ? chain->fidelity() : Fidelity::kLossless;
  if (options.computed_over > static_cast<uint32_t>(fidelity)) {
    return Fail(KEDGE_DENIED,
                absl::StrCat("options.computed_over: KV over ",
                             FidelityName(static_cast<Fidelity>(options.computed_over)),
                             " KV may not be published as ", FidelityName(fidelity)));
  }
  if (options.computed_over != KEDGE_FIDELITY_LOSSLESS) {
    const absl::Status may =
        sequence.lossy->MayStore(options.block_begin + options.block_count, question.variant);
    if (!may.ok()) return Fail(may);
  }
  question.items.resize(options.block_count);
  return ReadDurability(options.durability, question.durability);
}

kedge_code ReadExact(const ClientState& state, const std::string& field, const kedge_buffer& buffer,
                     uint64_t bytes, ScatterList& list) {
  if (kedge_code code = ReadBuffer(state, field.c_str(), buffer, list); code != KEDGE_OK) {
    return code;
  }
  if (list.bytes() == bytes) return KEDGE_OK;
  return Fail(KEDGE_INVALID,
              absl::StrCat(field, " has ", list.bytes(), " bytes, needed are ", bytes));
}

std::unique_ptr<kedge_writer::Encoder> MakeEncoder(const ModelState& model,
                                                   const codec::CodecChain& chain,
                                                   const BlockHeader& raw) {
  auto made = std::make_unique<kedge_writer::Encoder>();
  made->rope = model.variants->rotation().Table(raw.rope_base_position, model.shape.block_tokens);
  made->encoder.emplace(chain, raw, made->rope ? &*made->rope : nullptr);
  return made;
}

// Parts from `first` on, one after the other in `from`. The error names the block.
kedge_code EncodeParts(kedge_writer::Encoder& encoder, const KvShape& shape, uint32_t block,
                       uint32_t first, uint32_t count, const ScatterList& from) {
  const uint64_t part_bytes = shape.raw_part_bytes();
  std::vector<uint8_t> gathered;
  for (uint32_t part = 0; part < count; ++part) {
    std::span<const uint8_t> bytes;
    gathered.clear();
    from.ForRange(part * part_bytes, part_bytes, [&](std::span<uint8_t> run) {
      if (run.size() == part_bytes) {
        bytes = run;
      } else {
        gathered.insert(gathered.end(), run.begin(), run.end());
      }
    });
    if (bytes.empty()) bytes = gathered;
    const absl::Status status = encoder.encoder->Add(first + part, bytes);
    if (!status.ok()) {
      return Fail(KEDGE_INVALID, absl::StrCat("block ", block, ": ", status.message()));
    }
  }
  return KEDGE_OK;
}

// Takes what was encoded as the put's item; the memory lives with it.
struct EncodedMemory {
  std::vector<std::vector<uint8_t>> payloads;
};
void TakeEncoded(kedge_writer::Encoder& encoder, EncodedMemory& memory, PutOperation::Item& item) {
  codec::EncodedBlock block = encoder.encoder->Finish();
  item.header = std::move(block.header);
  memory.payloads.push_back(std::move(block.payload));
  const std::vector<uint8_t>& payload = memory.payloads.back();
  item.extents = {{0, payload.data(), payload.size()}};
}

void Post(const kedge_writer& writer, std::vector<Given> given) {
  Engine* engine = writer.state->engine.get();
  engine->Post([engine, operation = writer.operation, given = std::move(given)] {
    for (const Given& parts : given) operation->Add(*engine, parts.item, parts.extents);
  });
}

// Parts [first, first + count) of a block, checked and noted.
kedge_code GiveParts(kedge_writer& writer, uint32_t block, uint32_t first, uint32_t count,
                     const ScatterList& from, std::vector<Given>& given) {
  kedge_writer::Block& to = writer.blocks[block];
  for (uint32_t part = first; part < first + count; ++part) {
    if (to.given[part]) {
      return Fail(KEDGE_INVALID,
                  absl::StrCat("part ", part, " of block ", block, " was given already"));
    }
  }
  if (to.encoder != nullptr) {
    kedge_code code = EncodeParts(*to.encoder, writer.model->shape, block, first, count, from);
    if (code != KEDGE_OK) return code;
  } else {
    given.push_back({block, ExtentsOf(from, writer.model->shape.raw_part_bytes() * first)});
  }
  for (uint32_t part = first; part < first + count; ++part) to.given[part] = true;
  to.given_count += count;
  return KEDGE_OK;
}

// The put of a lossy variant: sizes are known only now. A block that lacks a part is begun too, and
// ends with the commit.
void BeginEncoded(kedge_writer& writer) {
  PutOperation::Question& question = writer.encoded;
  auto memory = std::make_shared<EncodedMemory>();
  for (size_t i = 0; i < writer.blocks.size(); ++i) {
    const kedge_writer::Block& block = writer.blocks[i];
    if (block.given_count == block.given.size()) {
      TakeEncoded(*block.encoder, *memory, question.items[i]);
    }
  }
  question.memory = std::move(memory);
  writer.operation =
      std::make_shared<PutOperation>(std::move(question), writer.state->window_bytes, INT64_MAX);
  writer.state->engine->Run(writer.operation);
}

}  // namespace

extern "C" {

kedge_code kedge_store(kedge_sequence* sequence, const kedge_store_options* caller_options,
                       kedge_request** request) {
  KEDGE_NEED(sequence);
  KEDGE_NEED_POINTER(request);
  *request = nullptr;
  const ClientState& state = *sequence->state;
  kedge_store_options options;
  PutOperation::Question question;
  std::optional<codec::CodecChain> chain;
  if (kedge_code code = ReadOptions(*sequence, caller_options, options, question, chain);
      code != KEDGE_OK) {
    return code;
  }
  KEDGE_NEED_POINTER(options.buffers);
  const int64_t deadline_us = state.DeadlineUs(options.deadline_ms);
  auto memory = std::make_shared<EncodedMemory>();
  for (uint32_t i = 0; i < options.block_count; ++i) {
    PutOperation::Item& item = question.items[i];
    item.header = HeaderOf(*sequence->model, sequence->links[options.block_begin + i]);
    ScatterList from;
    if (kedge_code code = ReadExact(state, absl::StrCat("options.buffers[", i, "]"),
                                    options.buffers[i], item.header.payload_bytes(), from);
        code != KEDGE_OK) {
      return code;
    }
    if (!chain) {
      item.extents = ExtentsOf(from, 0);
      continue;
    }
    const auto encoder = MakeEncoder(*sequence->model, *chain, item.header);
    if (kedge_code code = EncodeParts(*encoder, sequence->model->shape, i, 0,
                                      sequence->model->shape.part_count(), from);
        code != KEDGE_OK) {
      return code;
    }
    TakeEncoded(*encoder, *memory, item);
  }
  question.memory = std::move(memory);
  return Start(sequence->state,
               std::make_shared<PutOperation>(std::move(question), state.window_bytes, deadline_us),
               request);
}

kedge_code kedge_store_begin(kedge_sequence* sequence, const kedge_store_options* caller_options,
                             kedge_writer** writer) {
  KEDGE_NEED(sequence);
  KEDGE_NEED_POINTER(writer);
  *writer = nullptr;
  kedge_store_options options;
  PutOperation::Question question;
  std::optional<codec::CodecChain> chain;
  if (kedge_code code = ReadOptions(*sequence, caller_options, options, question, chain);
      code != KEDGE_OK) {
    return code;
  }
  if (options.buffers != nullptr) {
    return Fail(KEDGE_INVALID,
                "options.buffers: a store in layers takes its memory by part; pass NULL");
  }
  question.open = true;
  auto made = std::make_unique<kedge_writer>();
  made->state = sequence->state;
  made->model = sequence->model;
  made->deadline_ms = options.deadline_ms;
  made->blocks.resize(options.block_count);
  for (uint32_t i = 0; i < options.block_count; ++i) {
    BlockHeader& header = question.items[i].header;
    header = HeaderOf(*sequence->model, sequence->links[options.block_begin + i]);
    made->blocks[i].given.resize(header.parts.size());
    if (chain) made->blocks[i].encoder = MakeEncoder(*sequence->model, *chain, header);
  }
  if (chain) {
    made->encoded = std::move(question);
    *writer = made.release();
    return Ok();
  }
  made->operation =
      std::make_shared<PutOperation>(std::move(question), sequence->state->window_bytes, INT64_MAX);
  sequence->state->engine->Run(made->operation);
  *writer = made.release();
  return Ok();
}

kedge_code kedge_store_part(kedge_writer* writer, uint32_t block, uint32_t layer,
                            uint32_t component, const void* data, uint64_t bytes) {
  KEDGE_NEED(writer);
  if (block >= writer->blocks.size()) {
    return Fail(KEDGE_INVALID,
                absl::StrCat("block: ", block, " of ", writer->blocks.size(), " blocks"));
  }
  if (component == 0 || component > uint32_t{kComponentCount}) {
    return Fail(KEDGE_INVALID,
                absl::StrCat("component: ", component, " is not within 1 to ", kComponentCount));
  }
  const auto part = writer->model->shape.PartIndex(layer, static_cast<Component>(component));
  if (!part.ok()) return Fail(part.status());
  ScatterList from;
  const kedge_segment segment{const_cast<void*>(data), bytes};
  if (kedge_code code = ReadExact(*writer->state, "data", {&segment, 1},
                                  writer->model->shape.raw_part_bytes(), from);
      code != KEDGE_OK) {
    return code;
  }
  std::vector<Given> given;
  if (kedge_code code = GiveParts(*writer, block, *part, 1, from, given); code != KEDGE_OK) {
    return code;
  }
  Post(*writer, std::move(given));
  return Ok();
}

kedge_code kedge_store_layer(kedge_writer* writer, uint32_t layer, const kedge_buffer* buffers) {
  KEDGE_NEED(writer);
  KEDGE_NEED_POINTER(buffers);
  const KvShape& shape = writer->model->shape;
  if (layer < shape.layer_begin || layer - shape.layer_begin >= shape.layer_count) {
    return Fail(KEDGE_INVALID,
                absl::StrCat("layer: ", layer, " is not within the shard's layers, ",
                             shape.layer_begin, " to ", shape.layer_begin + shape.layer_count));
  }
  const uint32_t parts = shape.components_per_layer();
  const uint32_t first = (layer - shape.layer_begin) * parts;
  std::vector<ScatterList> lists(writer->blocks.size());
  for (uint32_t i = 0; i < lists.size(); ++i) {
    if (kedge_code code = ReadExact(*writer->state, absl::StrCat("buffers[", i, "]"), buffers[i],
                                    shape.raw_part_bytes() * parts, lists[i]);
        code != KEDGE_OK) {
      return code;
    }
  }
  std::vector<Given> given;
  kedge_code code = KEDGE_OK;
  for (uint32_t i = 0; i < lists.size() && code == KEDGE_OK; ++i) {
    code = GiveParts(*writer, i, first, parts, lists[i], given);
  }
  Post(*writer, std::move(given));
  return code == KEDGE_OK ? Ok() : code;
}

kedge_code kedge_store_commit(kedge_writer* writer, kedge_request** request) {
  if (request != nullptr) *request = nullptr;
  KEDGE_NEED_POINTER(writer);
  if (CarriedThroughFork(*writer->state)) return Usable(*writer->state);
  const std::unique_ptr<kedge_writer> taken(writer);
  if (kedge_code code = Usable(*taken->state); code != KEDGE_OK) return code;  // closing ended it
  if (taken->operation == nullptr && request != nullptr) BeginEncoded(*taken);
  if (request == nullptr) {
    if (taken->operation != nullptr) {
      taken->state->engine->Cancel(taken->operation, ResultCode::kCancelled);
    }
    return Fail(KEDGE_INVALID, "request is NULL");
  }
  std::vector<bool> whole;
  for (const kedge_writer::Block& block : taken->blocks) {
    whole.push_back(block.given_count == block.given.size());
  }
  Engine* engine = taken->state->engine.get();
  *request = new kedge_request{taken->state, taken->operation};
  engine->Post([engine, operation = taken->operation, whole = std::move(whole),
                deadline_us = taken->state->DeadlineUs(taken->deadline_ms)] {
    operation->Commit(*engine, whole, deadline_us);
  });
  return Ok();
}

void kedge_store_abort(kedge_writer* writer) {
  if (writer == nullptr || CarriedThroughFork(*writer->state)) return;
  if (writer->operation != nullptr) {
    writer->state->engine->Cancel(writer->operation, ResultCode::kCancelled);
  }
  delete writer;
}

}  // extern "C"
