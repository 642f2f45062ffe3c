// Opaque values: put, get, exists, remove.

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/c/handles.h"
#include "client/get.h"
#include "client/lookup.h"
#include "client/put.h"
#include "proto/block_header.h"
#include "proto/block_key.h"

using namespace kedge;     // NOLINT: the ABI's functions live in no namespace
using namespace kedge::c;  // NOLINT

namespace {

std::string At(const char* field, uint32_t index) { return absl::StrCat(field, "[", index, "]"); }

kedge_code ReadKeys(const kedge_key* keys, uint32_t count, std::vector<KeyItem>& items) {
  if (kedge_code code = CheckBatch("count", count); code != KEDGE_OK) return code;
  KEDGE_NEED_POINTER(keys);
  items.reserve(count);
  for (uint32_t i = 0; i < count; ++i) {
    const BlockKey key = ToBlockKey(keys[i]);
    items.push_back({key, PlacementOf(key)});
  }
  return KEDGE_OK;
}

// The item and its header, which gets its digest as the bytes go out: a value is a block of one
// part.
kedge_code ReadPutItem(const ClientState& state, const kedge_put_item& item, uint32_t index,
                       PutOperation::Item& out) {
  if (item.bytes == 0 || item.bytes > kBlockBytesMax) {
    return Fail(KEDGE_INVALID, absl::StrCat(At("items", index), ".bytes: ", item.bytes,
                                            " is not within 1 to ", kBlockBytesMax));
  }
  if (item.data == nullptr) return Fail(KEDGE_INVALID, At("items", index) + ".data is NULL");
  if (absl::Status status = state.memory.Check(At("items", index).c_str(), item.data, item.bytes);
      !status.ok()) {
    return Fail(status);
  }
  BlockHeader& header = out.header;
  header.key = ToBlockKey(item.key);
  if (header.key.is_zero()) return Fail(KEDGE_INVALID, At("items", index) + ".key is zero");
  header.placement = PlacementOf(header.key);
  header.keyspace = Keyspace::kOpaque;
  header.fidelity = Fidelity::kLossless;
  header.variant = Variant::Raw();
  header.shape = KvShape::Opaque();
  header.parts = {{static_cast<uint32_t>(item.bytes), {}}};
  out.extents = {{0, static_cast<const uint8_t*>(item.data), item.bytes}};
  return KEDGE_OK;
}

}  // namespace

extern "C" {

kedge_code kedge_key_of_name(const kedge_client* client, const void* name, uint64_t name_bytes,
                             kedge_key* key) {
  KEDGE_NEED_POINTER(client);
  KEDGE_NEED_POINTER(key);
  if (name == nullptr && name_bytes > 0) return Fail(KEDGE_INVALID, "name is NULL");
  const BlockKey block =
      OpaqueKey(client->state->salt, {static_cast<const uint8_t*>(name), name_bytes});
  std::memcpy(key->bytes, block.bytes.data(), sizeof key->bytes);
  return Ok();
}

kedge_code kedge_key_from_hex(const char* hex, kedge_key* key) {
  KEDGE_NEED_POINTER(hex);
  KEDGE_NEED_POINTER(key);
  auto block = BlockKey::FromHex(hex);
  if (!block.ok()) return Fail(block.status());
  std::memcpy(key->bytes, block->bytes.data(), sizeof key->bytes);
  return Ok();
}

void kedge_key_to_hex(const kedge_key* key, char hex[65]) {
  const std::string text = ToBlockKey(*key).ToHex();
  std::memcpy(hex, text.c_str(), 65);
}

kedge_code kedge_put(kedge_client* client, const kedge_put_item* items, uint32_t count,
                     uint32_t durability, uint32_t deadline_ms, kedge_request** request) {
  KEDGE_NEED(client);
  KEDGE_NEED_POINTER(request);
  *request = nullptr;
  if (kedge_code code = CheckBatch("count", count); code != KEDGE_OK) return code;
  KEDGE_NEED_POINTER(items);
  const ClientState& state = *client->state;
  const int64_t deadline_us = state.DeadlineUs(deadline_ms);
  PutOperation::Question question;
  if (kedge_code code = ReadDurability(durability, question.durability); code != KEDGE_OK) {
    return code;
  }
  question.variant = Variant::Raw();
  question.items.resize(count);
  for (uint32_t i = 0; i < count; ++i) {
    if (kedge_code code = ReadPutItem(state, items[i], i, question.items[i]); code != KEDGE_OK) {
      return code;
    }
  }
  return Start(client->state,
               std::make_shared<PutOperation>(std::move(question), state.window_bytes, deadline_us),
               request);
}

kedge_code kedge_get(kedge_client* client, const kedge_get_item* items, uint32_t count,
                     uint32_t deadline_ms, kedge_request** request) {
  KEDGE_NEED(client);
  KEDGE_NEED_POINTER(request);
  *request = nullptr;
  if (kedge_code code = CheckBatch("count", count); code != KEDGE_OK) return code;
  KEDGE_NEED_POINTER(items);
  const ClientState& state = *client->state;
  GetOperation::Question question;
  question.items.resize(count);
  for (uint32_t i = 0; i < count; ++i) {
    GetOperation::Item& item = question.items[i];
    item.key = ToBlockKey(items[i].key);
    item.placement = PlacementOf(item.key);
    const kedge_segment segment{items[i].data, items[i].capacity};
    if (kedge_code code = ReadBuffer(state, At("items", i).c_str(), {&segment, 1}, item.to);
        code != KEDGE_OK) {
      return code;
    }
  }
  return Start(client->state,
               std::make_shared<GetOperation>(std::move(question), state.window_bytes,
                                              state.DeadlineUs(deadline_ms)),
               request);
}

kedge_code kedge_exists(kedge_client* client, const kedge_key* keys, uint32_t count,
                        uint32_t deadline_ms, kedge_request** request) {
  KEDGE_NEED(client);
  KEDGE_NEED_POINTER(request);
  *request = nullptr;
  LookupOperation::Question question;
  if (kedge_code code = ReadKeys(keys, count, question.keys); code != KEDGE_OK) return code;
  return Start(client->state,
               std::make_shared<LookupOperation>(std::move(question),
                                                 client->state->DeadlineUs(deadline_ms)),
               request);
}

kedge_code kedge_remove(kedge_client* client, const kedge_key* keys, uint32_t count,
                        uint32_t deadline_ms, kedge_request** request) {
  KEDGE_NEED(client);
  KEDGE_NEED_POINTER(request);
  *request = nullptr;
  std::vector<KeyItem> items;
  if (kedge_code code = ReadKeys(keys, count, items); code != KEDGE_OK) return code;
  return Start(
      client->state,
      std::make_shared<RemoveOperation>(std::move(items), client->state->DeadlineUs(deadline_ms)),
      request);
}

}  // extern "C"
