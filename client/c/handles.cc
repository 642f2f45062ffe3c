#include "client/c/handles.h"

#include <pthread.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "client/client_limits.h"
#include "proto/result_code.h"

namespace kedge::c {
namespace {

thread_local std::string last_error;
std::atomic<uint32_t> forks{0};

// Counts from the first client on: before it there is nothing to protect.
void WatchForks() {
  static const int registered =
      pthread_atfork(nullptr, nullptr, [] { forks.fetch_add(1, std::memory_order_relaxed); });
  (void)registered;
}

}  // namespace

uint32_t Forks() {
  WatchForks();
  return forks.load(std::memory_order_relaxed);
}

bool CarriedThroughFork(const ClientState& state) { return state.forks != Forks(); }

kedge_code Fail(kedge_code code, std::string text) {
  last_error = std::move(text);
  return code;
}

kedge_code Fail(const absl::Status& status) {
  return Fail(static_cast<kedge_code>(FromStatus(status)), std::string(status.message()));
}

kedge_code Ok() {
  last_error.clear();
  return KEDGE_OK;
}

const std::string& LastError() { return last_error; }

kedge_code Usable(const ClientState& state) {
  if (CarriedThroughFork(state)) {
    return Fail(KEDGE_DENIED,
                "client: it was opened before fork(), and this is the child; open a new one here");
  }
  if (state.engine->closed()) return Fail(KEDGE_UNAVAILABLE, "client: it was closed");
  return Ok();
}

// --- MemoryRegistry ---

absl::Status MemoryRegistry::Add(const void* data, uint64_t bytes) {
  const auto begin = reinterpret_cast<uintptr_t>(data);
  if (data == nullptr || bytes == 0 || begin + bytes < begin) {
    return absl::InvalidArgumentError(
        absl::StrCat("bytes: ", bytes, " from ", absl::Hex(begin), " is no range of memory"));
  }
  std::lock_guard lock(mutex_);
  auto next = ranges_.lower_bound(begin);
  const bool meets_next = next != ranges_.end() && next->first < begin + bytes;
  const bool meets_last =
      next != ranges_.begin() && std::prev(next)->first + std::prev(next)->second > begin;
  if (meets_next || meets_last) {
    return absl::InvalidArgumentError(absl::StrCat("data: ", bytes, " bytes from 0x",
                                                   absl::Hex(begin),
                                                   " meet memory that is registered already"));
  }
  ranges_.emplace(begin, bytes);
  count_.store(ranges_.size(), std::memory_order_release);
  return absl::OkStatus();
}

absl::Status MemoryRegistry::Remove(const void* data) {
  std::lock_guard lock(mutex_);
  if (ranges_.erase(reinterpret_cast<uintptr_t>(data)) == 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "data: 0x", absl::Hex(reinterpret_cast<uintptr_t>(data)), " is not registered"));
  }
  count_.store(ranges_.size(), std::memory_order_release);
  return absl::OkStatus();
}

absl::Status MemoryRegistry::Check(const char* field, const void* data, uint64_t bytes) const {
  if (count_.load(std::memory_order_acquire) == 0) return absl::OkStatus();
  const auto begin = reinterpret_cast<uintptr_t>(data);
  std::lock_guard lock(mutex_);
  auto range = ranges_.upper_bound(begin);
  if (range == ranges_.begin()) return absl::OkStatus();
  --range;
  const uint64_t inside = begin - range->first;
  if (inside >= range->second || bytes <= range->second - inside) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": ", bytes, " bytes from 0x", absl::Hex(begin),
                   " pass the end of the registered memory they start in by ",
                   bytes - (range->second - inside)));
}

// --- LeaseTable ---

uint64_t LeaseTable::Add(std::vector<uint64_t> leases, int64_t now_us, uint32_t lease_ms) {
  std::lock_guard lock(mutex_);
  // Leases that nobody gave back: numbers grow with time, so the oldest are in front.
  while (!entries_.empty() && entries_.begin()->second.expires_us < now_us) {
    entries_.erase(entries_.begin());
  }
  entries_.emplace(next_, Entry{std::move(leases), now_us + int64_t{lease_ms} * 1000});
  return next_++;
}

std::vector<uint64_t> LeaseTable::Take(uint64_t number) {
  std::lock_guard lock(mutex_);
  auto entry = entries_.extract(number);
  return entry.empty() ? std::vector<uint64_t>{} : std::move(entry.mapped().leases);
}

// --- Arguments ---

kedge_code ReadVariants(const char* const* names, uint32_t count, std::vector<Variant>& variants) {
  if (count > kVariantsMax) {
    return Fail(KEDGE_INVALID,
                absl::StrCat("variant_count: ", count, " is more than ", kVariantsMax));
  }
  if (count > 0 && names == nullptr) return Fail(KEDGE_INVALID, "variants is NULL");
  for (uint32_t i = 0; i < count; ++i) {
    if (names[i] == nullptr) return Fail(KEDGE_INVALID, absl::StrCat("variants[", i, "] is NULL"));
    auto variant = Variant::Parse(names[i]);
    if (!variant.ok()) return Fail(variant.status());
    variants.push_back(*variant);
  }
  return KEDGE_OK;
}

kedge_code ReadAccepted(const ModelVariants& model, const char* const* names, uint32_t count,
                        uint32_t lowest_fidelity, std::vector<Variant>& variants,
                        std::vector<codec::CodecChain>* chains) {
  if (lowest_fidelity > KEDGE_FIDELITY_PRUNED) {
    return Fail(KEDGE_INVALID, absl::StrCat("options.lowest_fidelity: ", lowest_fidelity,
                                            " is not within 1 to ", KEDGE_FIDELITY_PRUNED));
  }
  if (lowest_fidelity != KEDGE_FIDELITY_NONE && count != 0) {
    return Fail(KEDGE_INVALID, "options.lowest_fidelity: variants are named as well; give one");
  }
  if (kedge_code code = ReadVariants(names, count, variants); code != KEDGE_OK) return code;
  if (lowest_fidelity > KEDGE_FIDELITY_LOSSLESS) {
    variants = model.NoWorseThan(static_cast<Fidelity>(lowest_fidelity));
  }
  bool lossy = false;
  std::vector<codec::CodecChain> made;
  for (const Variant& variant : variants) {
    auto chain = model.Chain(variant);
    if (!chain.ok()) return Fail(chain.status());
    lossy = lossy || chain->fidelity() != Fidelity::kLossless;
    made.push_back(*std::move(chain));
  }
  if (lossy && chains != nullptr) *chains = std::move(made);
  return KEDGE_OK;
}

kedge_code ReadBuffer(const ClientState& state, const char* field, const kedge_buffer& buffer,
                      ScatterList& list) {
  if (buffer.segment_count > KEDGE_SEGMENTS_MAX) {
    return Fail(KEDGE_INVALID, absl::StrCat(field, ".segment_count: ", buffer.segment_count,
                                            " is more than ", KEDGE_SEGMENTS_MAX));
  }
  if (buffer.segment_count > 0 && buffer.segments == nullptr) {
    return Fail(KEDGE_INVALID, absl::StrCat(field, ".segments is NULL"));
  }
  for (uint32_t i = 0; i < buffer.segment_count; ++i) {
    const kedge_segment& segment = buffer.segments[i];
    if (segment.bytes > 0 && segment.data == nullptr) {
      return Fail(KEDGE_INVALID, absl::StrCat(field, ".segments[", i, "].data is NULL"));
    }
    if (segment.bytes > UINT64_MAX / 2 - list.bytes()) {
      return Fail(KEDGE_INVALID, absl::StrCat(field, ".segments[", i, "].bytes: ", segment.bytes,
                                              " is no size of memory"));
    }
    if (absl::Status status = state.memory.Check(field, segment.data, segment.bytes);
        !status.ok()) {
      return Fail(status);
    }
    list.Add(segment.data, segment.bytes);
  }
  return KEDGE_OK;
}

kedge_code ReadDurability(uint32_t durability, uint8_t& wire) {
  switch (durability) {
    case KEDGE_DURABILITY_DEFAULT:
      wire = kDurabilityDefault;
      return KEDGE_OK;
    case KEDGE_DURABILITY_HOST:
      wire = kDurabilityHost;
      return KEDGE_OK;
    case KEDGE_DURABILITY_SSD:
      wire = kDurabilitySsd;
      return KEDGE_OK;
    default:
      return Fail(KEDGE_INVALID, absl::StrCat("durability: ", durability,
                                              " is none of 0 (default), 1 (host), 2 (ssd)"));
  }
}

kedge_code ReadLayerRange(const KvShape& shape, uint32_t begin, uint32_t count, LayerRange& range) {
  const uint32_t end = uint32_t{shape.layer_begin} + shape.layer_count;
  range.begin = begin != 0 ? begin : shape.layer_begin;
  if (range.begin < shape.layer_begin || range.begin >= end || count > end - range.begin) {
    return Fail(KEDGE_INVALID,
                absl::StrCat("options.layer_begin: ", range.begin, " and layer_count ", count,
                             " pass the shard's layers, ", shape.layer_begin, " to ", end));
  }
  range.count = count != 0 ? count : end - range.begin;
  return KEDGE_OK;
}

kedge_code CheckBatch(const char* field, uint32_t count) {
  if (count >= 1 && count <= KEDGE_BATCH_MAX) return KEDGE_OK;
  return Fail(KEDGE_INVALID,
              absl::StrCat(field, ": ", count, " is not within 1 to ", KEDGE_BATCH_MAX));
}

BlockKey ToBlockKey(const kedge_key& key) {
  BlockKey block;
  std::copy(std::begin(key.bytes), std::end(key.bytes), block.bytes.begin());
  return block;
}

kedge_code Start(const std::shared_ptr<ClientState>& state, std::shared_ptr<Operation> operation,
                 kedge_request** request) {
  *request = new kedge_request{state, operation};
  state->engine->Run(std::move(operation));
  return Ok();
}

}  // namespace kedge::c
