// What stands behind the C ABI's opaque handles, and the checks that every call makes.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "client/c/kedge.h"
#include "client/engine.h"
#include "client/match/matcher.h"
#include "client/scatter.h"
#include "client/variants.h"
#include "proto/block_key.h"

namespace kedge::c {

// Ranges of memory that the caller registered. A range that starts inside one must end inside it.
// Any thread.
class MemoryRegistry {
 public:
  absl::Status Add(const void* data, uint64_t bytes);
  absl::Status Remove(const void* data);
  absl::Status Check(const char* field, const void* data, uint64_t bytes) const;

 private:
  std::atomic<size_t> count_{0};  // most callers register nothing: no lock then
  mutable std::mutex mutex_;
  std::map<uintptr_t, uint64_t> ranges_;  // begin -> bytes
};

// The caller's lease numbers, and the node's leases behind each. Any thread.
class LeaseTable {
 public:
  uint64_t Add(std::vector<uint64_t> leases, int64_t now_us, uint32_t lease_ms);
  std::vector<uint64_t> Take(uint64_t number);  // empty when it is not there

 private:
  struct Entry {
    std::vector<uint64_t> leases;
    int64_t expires_us = 0;
  };
  std::mutex mutex_;
  uint64_t next_ = 1;
  std::map<uint64_t, Entry> entries_;
};

// Shared by the client's handle and all that were made from it.
struct ClientState {
  std::shared_ptr<Engine> engine;
  TenantSalt salt;
  uint32_t deadline_ms = 0;
  uint64_t window_bytes = 0;
  uint64_t tenant = 0;
  uint32_t forks = 0;  // of the process when it was opened
  MemoryRegistry memory;
  LeaseTable leases;

  // 0: the client's default.
  int64_t DeadlineUs(uint32_t ms) const {
    return engine->NowUs() + int64_t{ms == 0 ? deadline_ms : ms} * 1000;
  }
};

struct ModelState {
  std::shared_ptr<ClientState> client;
  Fingerprint fingerprint;
  KvShape shape;
  bool rotated = false;
  uint64_t tenant = 0;
  std::unique_ptr<const ModelVariants> variants;
};

// How often this process is the child of a fork. Counted by pthread_atfork.
uint32_t Forks();
bool CarriedThroughFork(const ClientState& state);

// Sets the thread's last error and returns the code; Ok() clears it.
kedge_code Fail(kedge_code code, std::string text);
kedge_code Fail(const absl::Status& status);
kedge_code Ok();
const std::string& LastError();

// May a call on this client go ahead? KEDGE_OK (and no error text), KEDGE_DENIED after a fork,
// KEDGE_UNAVAILABLE once closed.
kedge_code Usable(const ClientState& state);
// The same after a check for NULL, which names the argument.
#define KEDGE_NEED(handle)                                                             \
  if ((handle) == nullptr) return ::kedge::c::Fail(KEDGE_INVALID, #handle " is NULL"); \
  if (kedge_code usable_ = ::kedge::c::Usable(*(handle)->state); usable_ != KEDGE_OK) return usable_
#define KEDGE_NEED_POINTER(argument) \
  if ((argument) == nullptr) return ::kedge::c::Fail(KEDGE_INVALID, #argument " is NULL")

inline constexpr uint32_t kStructBytesMax = 4096;

// A versioned struct of the caller as this library knows it. Fields that an older caller lacks are
// zero; fields that only a newer caller has must be zero.
template <typename T>
kedge_code ReadStruct(const char* name, const T* from, T& to) {
  std::memset(static_cast<void*>(&to), 0, sizeof to);
  if (from == nullptr) return Fail(KEDGE_INVALID, std::string(name) + " is NULL");
  const uint32_t size = from->size;
  if (size < sizeof(uint32_t) || size > kStructBytesMax) {
    return Fail(KEDGE_INVALID, std::string(name) + ".size: " + std::to_string(size) +
                                   " is no size of this struct; set it to sizeof");
  }
  const auto* bytes = reinterpret_cast<const uint8_t*>(from);
  for (uint32_t at = sizeof(T); at < size; ++at) {
    if (bytes[at] != 0) {
      return Fail(KEDGE_INVALID, std::string(name) + ".size: " + std::to_string(size) +
                                     " has fields set that this library does not know (" +
                                     std::to_string(sizeof(T)) + " bytes)");
    }
  }
  std::memcpy(static_cast<void*>(&to), from, size < sizeof(T) ? size : sizeof(T));
  return KEDGE_OK;
}

// Fills the caller's struct as far as the caller knows it; its size stays.
template <typename T>
void WriteStruct(T from, T* to) {
  from.size = to->size;
  std::memcpy(static_cast<void*>(to), &from, to->size < sizeof(T) ? to->size : sizeof(T));
}

// Caller's arguments as ours; each failure names the field.
kedge_code ReadVariants(const char* const* names, uint32_t count, std::vector<Variant>& variants);
// The variants that a call on blocks of a model accepts, by name or by `lowest_fidelity`. Refuses
// what the model's gate does not let through. `chains`, if any, gets one for each.
kedge_code ReadAccepted(const ModelVariants& model, const char* const* names, uint32_t count,
                        uint32_t lowest_fidelity, std::vector<Variant>& variants,
                        std::vector<codec::CodecChain>* chains);
kedge_code ReadBuffer(const ClientState& state, const char* field, const kedge_buffer& buffer,
                      ScatterList& list);
kedge_code ReadDurability(uint32_t durability, uint8_t& wire);
// Layers of a fetch, as they count in the model; `begin` 0 is the shard's first, `count` 0 goes to
// its last.
struct LayerRange {
  uint32_t begin = 0;
  uint32_t count = 0;
};
kedge_code ReadLayerRange(const KvShape& shape, uint32_t begin, uint32_t count, LayerRange& range);
kedge_code CheckBatch(const char* field, uint32_t count);
BlockKey ToBlockKey(const kedge_key& key);

// Runs it and makes a handle.
kedge_code Start(const std::shared_ptr<ClientState>& state, std::shared_ptr<Operation> operation,
                 kedge_request** request);

}  // namespace kedge::c

struct kedge_client {
  std::shared_ptr<kedge::c::ClientState> state;
};

struct kedge_model {
  std::shared_ptr<kedge::c::ClientState> state;
  std::shared_ptr<const kedge::c::ModelState> model;
};

struct kedge_sequence {
  std::shared_ptr<kedge::c::ClientState> state;
  std::shared_ptr<const kedge::c::ModelState> model;
  std::vector<kedge::ChainLink> links;
  std::shared_ptr<kedge::LossyLog> lossy;
};

struct kedge_near {
  std::shared_ptr<kedge::c::ClientState> state;
  std::shared_ptr<const kedge::c::ModelState> model;
  std::vector<kedge_near_run> runs;
  std::vector<kedge::match::PlanDonor> donors;
};

struct kedge_request {
  std::shared_ptr<kedge::c::ClientState> state;
  std::shared_ptr<kedge::Operation> operation;
};
