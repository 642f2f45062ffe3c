// Storing blocks of a sequence: whole, and layer by layer.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/c/handles.h"
#include "client/put.h"
#include "proto/block_header.h"

using namespace kedge;     // NOLINT: the ABI's functions live in no namespace
using namespace kedge::c;  // NOLINT

struct kedge_writer {
  struct Block {
    std::vector<bool> given;  // by part
    uint32_t given_count = 0;
  };
  std::shared_ptr<kedge::c::ClientState> state;
  std::shared_ptr<const kedge::c::ModelState> model;
  std::shared_ptr<kedge::PutOperation> operation;
  uint32_t deadline_ms = 0;
  std::vector<Block> blocks;
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

kedge_code ReadOptions(const kedge_sequence& sequence, const kedge_store_options* from,
                       kedge_store_options& options, PutOperation::Question& question) {
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
  question.variant = Variant::Raw();
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
  given.push_back({block, ExtentsOf(from, writer.model->shape.raw_part_bytes() * first)});
  for (uint32_t part = first; part < first + count; ++part) to.given[part] = true;
  to.given_count += count;
  return KEDGE_OK;
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
  if (kedge_code code = ReadOptions(*sequence, caller_options, options, question);
      code != KEDGE_OK) {
    return code;
  }
  KEDGE_NEED_POINTER(options.buffers);
  const int64_t deadline_us = state.DeadlineUs(options.deadline_ms);
  for (uint32_t i = 0; i < options.block_count; ++i) {
    PutOperation::Item& item = question.items[i];
    item.header = HeaderOf(*sequence->model, sequence->links[options.block_begin + i]);
    ScatterList from;
    if (kedge_code code = ReadExact(state, absl::StrCat("options.buffers[", i, "]"),
                                    options.buffers[i], item.header.payload_bytes(), from);
        code != KEDGE_OK) {
      return code;
    }
    item.extents = ExtentsOf(from, 0);
  }
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
  if (kedge_code code = ReadOptions(*sequence, caller_options, options, question);
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
  if (request == nullptr) {
    taken->state->engine->Cancel(taken->operation, ResultCode::kCancelled);
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
  writer->state->engine->Cancel(writer->operation, ResultCode::kCancelled);
  delete writer;
}

}  // extern "C"
