// Models, sequences, and what is read by them: match and fetch.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/c/handles.h"
#include "client/client_limits.h"
#include "client/get.h"
#include "client/lookup.h"

using namespace kedge;     // NOLINT: the ABI's functions live in no namespace
using namespace kedge::c;  // NOLINT

namespace {

constexpr uint32_t kBlockTokensDefault = 64;
constexpr uint32_t kComponentsDefault = 0b11;  // K and V
constexpr uint32_t kEngineHashBytesMax = 64;

kedge_code ReadU16(const char* field, uint32_t value, uint16_t& out) {
  if (value > UINT16_MAX) {
    return Fail(KEDGE_INVALID, absl::StrCat("options.", field, ": ", value, " is more than 65535"));
  }
  out = static_cast<uint16_t>(value);
  return KEDGE_OK;
}

std::string TextOf(const char* text) { return text == nullptr ? "" : text; }

kedge_code ReadShape(const kedge_model_options& options, KvShape& shape) {
  const uint32_t tokens = options.block_tokens != 0 ? options.block_tokens : kBlockTokensDefault;
  const struct {
    const char* field;
    uint32_t value;
    uint16_t& out;
  } fields[] = {
      {"layer_begin", options.layer_begin, shape.layer_begin},
      {"layer_count", options.layer_count, shape.layer_count},
      {"kv_head_begin", options.kv_head_begin, shape.kv_head_begin},
      {"kv_heads", options.kv_heads, shape.kv_heads},
      {"head_size", options.head_size, shape.head_size},
      {"block_tokens", tokens, shape.block_tokens},
  };
  for (const auto& field : fields) {
    if (kedge_code code = ReadU16(field.field, field.value, field.out); code != KEDGE_OK) {
      return code;
    }
  }
  if (options.dtype < KEDGE_F32 || options.dtype > KEDGE_U8) {
    return Fail(KEDGE_INVALID,
                absl::StrCat("options.dtype: ", options.dtype, " is not within 1 to 5"));
  }
  const uint32_t components = options.components != 0 ? options.components : kComponentsDefault;
  if (components >= 1u << kComponentCount) {
    return Fail(KEDGE_INVALID, absl::StrCat("options.components: ", components, " has a bit past ",
                                            kComponentCount));
  }
  shape.dtype = static_cast<DType>(options.dtype);
  shape.components = static_cast<uint8_t>(components);
  const absl::Status status = shape.Validate();
  return status.ok() ? KEDGE_OK : Fail(status);
}

kedge_sequence* NewSequence(const kedge_model& model, std::vector<ChainLink> links) {
  return new kedge_sequence{model.state, model.model, std::move(links),
                            std::make_shared<LossyLog>()};
}

kedge_code ReadProfile(const char* path, std::optional<ModelProfile>& profile) {
  if (path == nullptr) return KEDGE_OK;
  const auto wrong = [path](kedge_code code, std::string_view why) {
    return Fail(code, absl::StrCat("options.profile: ", path, ": ", std::string(why)));
  };
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) return wrong(KEDGE_INVALID, "cannot be read");
  const auto bytes = static_cast<uint64_t>(file.tellg());
  if (bytes > kModelProfileBytesMax) return wrong(KEDGE_INVALID, "is too large for a profile");
  std::vector<uint8_t> content(bytes);
  file.seekg(0);
  file.read(reinterpret_cast<char*>(content.data()), static_cast<std::streamsize>(bytes));
  if (!file) return wrong(KEDGE_INVALID, "cannot be read");
  auto parsed = ModelProfile::Parse(std::move(content));
  if (!parsed.ok()) return wrong(KEDGE_INVALID, std::string(parsed.status().message()));
  profile = *std::move(parsed);
  return KEDGE_OK;
}

kedge_code CheckBlocks(uint64_t blocks) {
  if (blocks <= kSequenceBlocksMax) return KEDGE_OK;
  return Fail(KEDGE_INVALID,
              absl::StrCat("sequence: ", blocks, " blocks are more than ", kSequenceBlocksMax));
}

}  // namespace

extern "C" {

kedge_code kedge_model_open(kedge_client* client, const kedge_model_options* caller_options,
                            kedge_model** model) {
  KEDGE_NEED(client);
  KEDGE_NEED_POINTER(model);
  *model = nullptr;
  kedge_model_options options;
  if (kedge_code code = ReadStruct("options", caller_options, options); code != KEDGE_OK) {
    return code;
  }
  ModelIdentity identity;
  if (kedge_code code = ReadShape(options, identity.shape); code != KEDGE_OK) return code;
  if (!std::isfinite(options.rope_theta) || options.rope_theta < 0) {
    return Fail(KEDGE_INVALID, absl::StrCat("options.rope_theta: ", options.rope_theta,
                                            " is no base of rotations"));
  }
  identity.weights_id = TextOf(options.weights_id);
  identity.adapter_id = TextOf(options.adapter_id);
  identity.tokenizer_id = TextOf(options.tokenizer_id);
  identity.rope_theta = options.rope_theta;
  identity.rope_scaling = TextOf(options.rope_scaling);
  identity.kv_scales_id = TextOf(options.kv_scales_id);
  if (identity.weights_id.empty()) {
    return Fail(KEDGE_INVALID,
                "options.weights_id is empty: KV of different weights must not meet");
  }
  if ((options.flags & ~KEDGE_MODEL_ALLOW_UNPROFILED) != 0) {
    return Fail(KEDGE_INVALID, absl::StrCat("options.flags: ", options.flags, " is unknown"));
  }
  auto fingerprint = Fingerprint::Of(identity);
  if (!fingerprint.ok()) return Fail(fingerprint.status());
  std::optional<ModelProfile> profile;
  if (kedge_code code = ReadProfile(options.profile, profile); code != KEDGE_OK) return code;
  auto variants = ModelVariants::Make(identity, std::move(profile),
                                      (options.flags & KEDGE_MODEL_ALLOW_UNPROFILED) != 0);
  if (!variants.ok()) {
    return Fail(KEDGE_INVALID, absl::StrCat("options.profile: ", variants.status().message()));
  }
  auto state = std::make_shared<ModelState>();
  state->client = client->state;
  state->fingerprint = *fingerprint;
  state->shape = identity.shape;
  state->rotated = options.rope_theta > 0;
  state->tenant = client->state->tenant;
  state->variants = *std::move(variants);
  *model = new kedge_model{client->state, std::move(state)};
  return Ok();
}

void kedge_model_free(kedge_model* model) { delete model; }

uint64_t kedge_model_part_bytes(const kedge_model* model) {
  return model == nullptr ? 0 : model->model->shape.raw_part_bytes();
}
uint64_t kedge_model_layer_bytes(const kedge_model* model) {
  if (model == nullptr) return 0;
  return model->model->shape.raw_part_bytes() * model->model->shape.components_per_layer();
}
uint64_t kedge_model_block_bytes(const kedge_model* model) {
  return model == nullptr ? 0 : model->model->shape.raw_block_bytes();
}
void kedge_model_fingerprint(const kedge_model* model, char hex[65]) {
  const std::string text = model == nullptr ? "" : model->model->fingerprint.ToHex();
  std::memcpy(hex, text.c_str(), text.size() + 1);
}

kedge_code kedge_sequence_from_tokens(kedge_model* model, const int32_t* tokens,
                                      uint64_t token_count, const void* extra, uint64_t extra_bytes,
                                      kedge_sequence** sequence) {
  KEDGE_NEED(model);
  KEDGE_NEED_POINTER(sequence);
  *sequence = nullptr;
  if (tokens == nullptr && token_count > 0) return Fail(KEDGE_INVALID, "tokens is NULL");
  if (extra == nullptr && extra_bytes > 0) return Fail(KEDGE_INVALID, "extra is NULL");
  const ModelState& state = *model->model;
  if (kedge_code code = CheckBlocks(token_count / state.shape.block_tokens); code != KEDGE_OK) {
    return code;
  }
  const KeyChain chain(model->state->salt, state.fingerprint, Keyspace::kPrefix,
                       {static_cast<const char*>(extra), extra_bytes});
  *sequence = NewSequence(*model, chain.Links({tokens, token_count}, state.shape.block_tokens));
  return Ok();
}

kedge_code kedge_sequence_from_hashes(kedge_model* model, const void* hashes, uint32_t hash_bytes,
                                      uint64_t hash_count, kedge_sequence** sequence) {
  KEDGE_NEED(model);
  KEDGE_NEED_POINTER(sequence);
  *sequence = nullptr;
  if (hash_bytes == 0 || hash_bytes > kEngineHashBytesMax) {
    return Fail(KEDGE_INVALID, absl::StrCat("hash_bytes: ", hash_bytes, " is not within 1 to ",
                                            kEngineHashBytesMax));
  }
  if (hashes == nullptr && hash_count > 0) return Fail(KEDGE_INVALID, "hashes is NULL");
  if (kedge_code code = CheckBlocks(hash_count); code != KEDGE_OK) return code;
  const KeyChain chain(model->state->salt, model->model->fingerprint);
  const auto* bytes = static_cast<const uint8_t*>(hashes);
  std::vector<ChainLink> links;
  links.reserve(hash_count);
  for (uint64_t i = 0; i < hash_count; ++i) {
    links.push_back(chain.NextFromEngineHash(links.empty() ? nullptr : &links.back(),
                                             {bytes + i * hash_bytes, hash_bytes}));
  }
  *sequence = NewSequence(*model, std::move(links));
  return Ok();
}

void kedge_sequence_free(kedge_sequence* sequence) { delete sequence; }

uint32_t kedge_sequence_blocks(const kedge_sequence* sequence) {
  return sequence == nullptr ? 0 : static_cast<uint32_t>(sequence->links.size());
}

kedge_code kedge_sequence_key(const kedge_sequence* sequence, uint32_t block, kedge_key* key) {
  KEDGE_NEED_POINTER(sequence);
  KEDGE_NEED_POINTER(key);
  if (block >= sequence->links.size()) {
    return Fail(KEDGE_INVALID, absl::StrCat("block: ", block, " of a sequence with ",
                                            sequence->links.size(), " blocks"));
  }
  std::memcpy(key->bytes, sequence->links[block].key.bytes.data(), sizeof key->bytes);
  return Ok();
}

kedge_code kedge_match(kedge_sequence* sequence, const kedge_match_options* caller_options,
                       kedge_match_result* caller_result) {
  KEDGE_NEED(sequence);
  kedge_match_result result;
  if (kedge_code code = ReadStruct("result", caller_result, result); code != KEDGE_OK) return code;
  result = {};
  WriteStruct(result, caller_result);
  kedge_match_options options{};
  if (caller_options != nullptr) {
    if (kedge_code code = ReadStruct("options", caller_options, options); code != KEDGE_OK) {
      return code;
    }
  }
  std::vector<codec::CodecChain> chains;
  LookupOperation::Question question;
  question.run = true;
  question.lease_ms = options.lease_ms;
  if (kedge_code code =
          ReadAccepted(*sequence->model->variants, options.variants, options.variant_count,
                       options.lowest_fidelity, question.variants, &chains);
      code != KEDGE_OK) {
    return code;
  }
  if (sequence->links.empty()) return Ok();
  question.keys.reserve(sequence->links.size());
  for (const ChainLink& link : sequence->links) {
    question.keys.push_back({link.key, link.placement});
  }
  ClientState& state = *sequence->state;
  auto lookup =
      std::make_shared<LookupOperation>(std::move(question), state.DeadlineUs(options.deadline_ms));
  state.engine->Run(lookup);
  lookup->Wait(UINT32_MAX);

  std::vector<ItemResult> items(lookup->count());
  lookup->CopyItems(items);
  for (const ItemResult& item : items) {
    if (item.code != ResultCode::kOk) break;
    ++result.blocks;
    result.payload_bytes += item.bytes;
    result.blocks_gpu += item.tier == TierId::kGpu;
    result.blocks_host += item.tier == TierId::kHost;
    result.blocks_ssd += item.tier == TierId::kSsd;
    const Fidelity fidelity =
        item.variant < chains.size() ? chains[item.variant].fidelity() : Fidelity::kLossless;
    result.fidelity = std::max(result.fidelity, static_cast<uint32_t>(fidelity));
    result.blocks_lossy += fidelity != Fidelity::kLossless;
  }
  result.tokens = uint64_t{result.blocks} * sequence->model->shape.block_tokens;
  if (!lookup->leases().empty()) {
    result.lease_ms = lookup->lease_ms();
    result.lease = state.leases.Add(lookup->leases(), state.engine->NowUs(), result.lease_ms);
  }
  WriteStruct(result, caller_result);
  // A miss is an answer; no answer is an error.
  const ResultCode first = items[0].code;
  const bool answered = result.blocks > 0 || first == ResultCode::kAbsent ||
                        first == ResultCode::kEvicted || first == ResultCode::kRemoved ||
                        first == ResultCode::kNoVariant || first == ResultCode::kCorrupt;
  return answered ? Ok() : Fail(static_cast<kedge_code>(first), lookup->text());
}

kedge_code kedge_fetch(kedge_sequence* sequence, const kedge_fetch_options* caller_options,
                       kedge_request** request) {
  KEDGE_NEED(sequence);
  KEDGE_NEED_POINTER(request);
  *request = nullptr;
  kedge_fetch_options options;
  if (kedge_code code = ReadStruct("options", caller_options, options); code != KEDGE_OK) {
    return code;
  }
  const ClientState& state = *sequence->state;
  const KvShape& shape = sequence->model->shape;
  if (kedge_code code = CheckBatch("options.block_count", options.block_count); code != KEDGE_OK) {
    return code;
  }
  if (uint64_t{options.block_begin} + options.block_count > sequence->links.size()) {
    return Fail(KEDGE_INVALID,
                absl::StrCat("options.block_begin: ", options.block_begin, " and block_count ",
                             options.block_count, " pass the sequence's ", sequence->links.size(),
                             " blocks"));
  }
  KEDGE_NEED_POINTER(options.buffers);
  LayerRange range;
  if (kedge_code code = ReadLayerRange(shape, options.layer_begin, options.layer_count, range);
      code != KEDGE_OK) {
    return code;
  }

  GetOperation::Question question;
  question.shape = shape;
  question.layer_parts = shape.components_per_layer();
  question.part_begin = (range.begin - shape.layer_begin) * question.layer_parts;
  question.part_count = range.count * question.layer_parts;
  if (options.layer_group != 0) {
    const uint64_t layer_bytes =
        shape.raw_part_bytes() * question.layer_parts * options.block_count;
    const uint64_t least = (kLayerGroupBytesMin + layer_bytes - 1) / layer_bytes;
    const uint64_t group = std::max<uint64_t>(options.layer_group, least);
    question.group_parts =
        static_cast<uint32_t>(std::min<uint64_t>(group, range.count)) * question.layer_parts;
  }
  if (kedge_code code =
          ReadAccepted(*sequence->model->variants, options.variants, options.variant_count,
                       options.lowest_fidelity, question.variants, &question.chains);
      code != KEDGE_OK) {
    return code;
  }
  if (!question.chains.empty()) {
    question.rotation = sequence->model->variants->rotation();
    question.lossy = sequence->lossy;
  }
  question.items.resize(options.block_count);
  for (uint32_t i = 0; i < options.block_count; ++i) {
    const ChainLink& link = sequence->links[options.block_begin + i];
    GetOperation::Item& item = question.items[i];
    item.key = link.key;
    item.placement = link.placement;
    item.block = link.depth;
    const std::string field = absl::StrCat("options.buffers[", i, "]");
    if (kedge_code code = ReadBuffer(state, field.c_str(), options.buffers[i], item.to);
        code != KEDGE_OK) {
      return code;
    }
  }
  return Start(sequence->state,
               std::make_shared<GetOperation>(std::move(question), state.window_bytes,
                                              state.DeadlineUs(options.deadline_ms)),
               request);
}

}  // extern "C"
