// Requests of every kind: waiting, results, cancelling.

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/c/handles.h"
#include "client/operation.h"

using namespace kedge;     // NOLINT: the ABI's functions live in no namespace
using namespace kedge::c;  // NOLINT

namespace {

// Calls on a request are good after kedge_close, which has ended it; not after a fork.
kedge_code Check(const kedge_request* request) {
  KEDGE_NEED_POINTER(request);
  if (CarriedThroughFork(*request->state)) return Usable(*request->state);
  return Ok();
}

kedge_item ToItem(const ItemResult& result) {
  kedge_item item{};
  item.code = result.ended ? static_cast<kedge_code>(result.code) : KEDGE_PENDING;
  item.tier = static_cast<uint8_t>(result.tier);
  item.fidelity = result.fidelity;
  item.provenance = result.exact ? KEDGE_PROVENANCE_EXACT : KEDGE_PROVENANCE_NONE;
  item.variant = result.variant;
  item.bytes = result.bytes;
  return item;
}

kedge_code CheckCount(const kedge_request* request, uint32_t count) {
  if (count <= request->operation->count()) return KEDGE_OK;
  return Fail(KEDGE_INVALID,
              absl::StrCat("count: ", count, " of a batch of ", request->operation->count()));
}

}  // namespace

extern "C" {

kedge_code kedge_wait(kedge_request* request, uint32_t timeout_ms) {
  if (kedge_code code = Check(request); code != KEDGE_OK) return code;
  return request->operation->Wait(timeout_ms) ? KEDGE_OK : KEDGE_PENDING;
}

kedge_code kedge_poll(kedge_request* request) {
  if (kedge_code code = Check(request); code != KEDGE_OK) return code;
  return request->operation->ended() ? KEDGE_OK : KEDGE_PENDING;
}

kedge_code kedge_wait_layers(kedge_request* request, uint32_t layers, uint32_t timeout_ms,
                             uint32_t* blocks) {
  if (kedge_code code = Check(request); code != KEDGE_OK) return code;
  const bool there = request->operation->WaitLayers(layers, timeout_ms);
  if (blocks != nullptr) *blocks = there ? request->operation->Prefix(/*running=*/true) : 0;
  return there ? KEDGE_OK : KEDGE_PENDING;
}

kedge_code kedge_cancel(kedge_request* request) {
  if (kedge_code code = Check(request); code != KEDGE_OK) return code;
  request->state->engine->Cancel(request->operation, ResultCode::kCancelled);
  return Ok();
}

void kedge_request_free(kedge_request* request) {
  if (request == nullptr || CarriedThroughFork(*request->state)) return;
  request->state->engine->Cancel(request->operation, ResultCode::kCancelled);
  delete request;
}

kedge_code kedge_request_items(kedge_request* request, kedge_item* items, uint32_t count) {
  if (kedge_code code = Check(request); code != KEDGE_OK) return code;
  if (count == 0) return Ok();
  KEDGE_NEED_POINTER(items);
  if (kedge_code code = CheckCount(request, count); code != KEDGE_OK) return code;
  std::vector<ItemResult> results(count);
  request->operation->CopyItems(results);
  for (uint32_t i = 0; i < count; ++i) items[i] = ToItem(results[i]);
  return Ok();
}

kedge_code kedge_request_codes(kedge_request* request, kedge_code* codes, uint32_t count) {
  if (kedge_code code = Check(request); code != KEDGE_OK) return code;
  if (count == 0) return Ok();
  KEDGE_NEED_POINTER(codes);
  if (kedge_code code = CheckCount(request, count); code != KEDGE_OK) return code;
  std::vector<ItemResult> results(count);
  request->operation->CopyItems(results);
  for (uint32_t i = 0; i < count; ++i) codes[i] = ToItem(results[i]).code;
  return Ok();
}

const char* kedge_request_variant(kedge_request* request, uint32_t item) {
  if (Check(request) != KEDGE_OK || item >= request->operation->count()) return "";
  std::vector<ItemResult> results(item + 1);
  request->operation->CopyItems(results);
  return request->operation->variant_name(results[item].variant).data();  // zero-padded names
}

uint32_t kedge_request_count(const kedge_request* request) {
  return request == nullptr ? 0 : request->operation->count();
}

uint32_t kedge_request_prefix(kedge_request* request) {
  if (Check(request) != KEDGE_OK) return 0;
  return request->operation->Prefix(/*running=*/false);
}

const char* kedge_request_text(kedge_request* request) {
  if (Check(request) != KEDGE_OK || !request->operation->ended()) return "";
  return request->operation->final_text().c_str();
}

kedge_code kedge_finish(kedge_request* request, kedge_code* codes, uint32_t count) {
  if (kedge_code code = kedge_wait(request, KEDGE_FOREVER); code != KEDGE_OK) return code;
  if (codes != nullptr) {
    if (kedge_code code = kedge_request_codes(request, codes, count); code != KEDGE_OK) {
      kedge_request_free(request);
      return code;
    }
  }
  const uint32_t prefix = request->operation->Prefix(/*running=*/false);
  kedge_code first = KEDGE_OK;
  std::string text;
  if (prefix < request->operation->count()) {
    std::vector<ItemResult> results(prefix + 1);
    request->operation->CopyItems(results);
    first = static_cast<kedge_code>(results[prefix].code);
    text = request->operation->text();
  }
  kedge_request_free(request);
  return first == KEDGE_OK ? Ok() : Fail(first, std::move(text));
}

}  // extern "C"
