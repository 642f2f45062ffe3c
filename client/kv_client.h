// The Kedge client SDK: all of it, header-only over the C ABI (client/c/kedge.h, libkedge.so).
//
//   #include "client/kv_client.h"
//   using namespace kedge::sdk;
//
//   auto client = Client::Open({.address = "tcp://127.0.0.1:7420", .salt = "secret of this
//   tenant"}); if (!client) return Fail(client.text()); auto model = client->OpenModel({.weights_id
//   = "org/name@rev", .tokenizer_id = "org/name",
//                                   .dtype = DType::kBf16, .layer_count = 32, .kv_heads = 8,
//                                   .head_size = 128, .rope_theta = 1e4});
//   auto sequence = model->FromTokens(prompt);
//
//   auto match = sequence->MatchRun({.lease_ms = 5000});           // the longest held run; leased
//   auto fetch = sequence->Fetch({.block_count = match->blocks(), .layer_group = 4}, buffers);
//   for (uint32_t layer = 4; layer <= 32; layer += 4) {
//     fetch->WaitLayers(layer);                                    // layers [0, layer) are there,
//     verified Attend(layer - 4, 4);
//   }
//   fetch->Wait();
//   uint32_t usable = fetch->prefix();                             // compute the rest
//   auto stored = sequence->Store({.block_begin = usable, .block_count = blocks - usable},
//   computed);
//
// Standard types only; nothing here throws (std::bad_alloc excepted). Every call that can fail
// returns a Result; a Result says why in words. Handles are movable, not copyable, and free
// themselves. Threads, blocking, memory and fork: the rules at the top of client/c/kedge.h, and at
// each call there, hold here word by word. In short: any thread may make any call; memory given to
// a request is the request's until it ended (Wait, Cancel, or the Request's destruction); a client
// does not survive fork().
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "client/c/kedge.h"

namespace kedge::sdk {

enum class Code : int32_t {
  kPending = KEDGE_PENDING,
  kOk = KEDGE_OK,
  kAbsent = KEDGE_ABSENT,
  kEvicted = KEDGE_EVICTED,
  kRemoved = KEDGE_REMOVED,
  kNoVariant = KEDGE_NO_VARIANT,
  kCorrupt = KEDGE_CORRUPT,
  kExists = KEDGE_EXISTS,
  kExhausted = KEDGE_EXHAUSTED,
  kDeadline = KEDGE_DEADLINE,
  kCancelled = KEDGE_CANCELLED,
  kUnavailable = KEDGE_UNAVAILABLE,
  kInvalid = KEDGE_INVALID,
  kTooSmall = KEDGE_TOO_SMALL,
  kMismatch = KEDGE_MISMATCH,
  kStaleEpoch = KEDGE_STALE_EPOCH,
  kDenied = KEDGE_DENIED,
  kInternal = KEDGE_INTERNAL,
};
inline const char* CodeName(Code code) { return kedge_code_name(static_cast<kedge_code>(code)); }
inline bool IsSuccess(Code code) { return code == Code::kOk || code == Code::kExists; }

enum class DType : uint32_t {
  kF32 = KEDGE_F32,
  kF16 = KEDGE_F16,
  kBf16 = KEDGE_BF16,
  kF8E4m3 = KEDGE_F8E4M3,
  kU8 = KEDGE_U8,
};
enum class Component : uint32_t {
  kK = KEDGE_K,
  kV = KEDGE_V,
  kLatent = KEDGE_LATENT,
  kState = KEDGE_STATE,
  kIndex = KEDGE_INDEX,
};
constexpr uint32_t Bit(Component c) { return 1u << (static_cast<uint32_t>(c) - 1); }

enum class Durability : uint32_t {
  kDefault = KEDGE_DURABILITY_DEFAULT,
  kHost = KEDGE_DURABILITY_HOST,
  kSsd = KEDGE_DURABILITY_SSD,
};

// What was lost on the way: a call names the lowest that it takes.
enum class Provenance : uint32_t {
  kNone = KEDGE_PROVENANCE_NONE,
  kExact = KEDGE_PROVENANCE_EXACT,
  kDense = KEDGE_PROVENANCE_DENSE,
  kCorrected = KEDGE_PROVENANCE_CORRECTED,
  kRecomputed = KEDGE_PROVENANCE_RECOMPUTED,
  kMoved = KEDGE_PROVENANCE_MOVED,
};
enum class Fidelity : uint32_t {
  kNone = KEDGE_FIDELITY_NONE,
  kLossless = KEDGE_FIDELITY_LOSSLESS,
  kQuantized = KEDGE_FIDELITY_QUANTIZED,
  kPruned = KEDGE_FIDELITY_PRUNED,
};

using Key = kedge_key;          // 32 bytes
using Item = kedge_item;        // code, tier, fidelity, provenance, variant, bytes
using Segment = kedge_segment;  // {data, bytes}
using PutItem = kedge_put_item;
using GetItem = kedge_get_item;
using Info = kedge_info;

// What a call without a value returns: true when it succeeded.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string text) : code_(code), text_(std::move(text)) {}
  // From the code of the C call that this thread has just made.
  static Status Last(kedge_code code) {
    return code == KEDGE_OK ? Status() : Status(static_cast<Code>(code), kedge_last_error());
  }
  explicit operator bool() const { return IsSuccess(code_); }
  Code code() const { return code_; }
  const std::string& text() const { return text_; }  // why not

 private:
  Code code_ = Code::kOk;
  std::string text_;
};

// A value, or why there is none. Asking for a value that is not there aborts.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}
  Result(Status status) : status_(std::move(status)) {}
  explicit operator bool() const { return value_.has_value(); }
  Code code() const { return status_.code(); }
  const std::string& text() const { return status_.text(); }
  const Status& status() const { return status_; }
  T& value() {
    if (!value_) std::abort();
    return *value_;
  }
  const T& value() const {
    if (!value_) std::abort();
    return *value_;
  }
  T& operator*() { return value(); }
  const T& operator*() const { return value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  Status status_;
  std::optional<T> value_;
};

namespace internal {
// Sole owner of a C handle.
template <typename T, void (*Free)(T*)>
class Handle {
 public:
  Handle() = default;
  explicit Handle(T* raw) : raw_(raw) {}
  Handle(Handle&& other) noexcept : raw_(std::exchange(other.raw_, nullptr)) {}
  Handle& operator=(Handle&& other) noexcept {
    if (this != &other) {
      if (raw_ != nullptr) Free(raw_);
      raw_ = std::exchange(other.raw_, nullptr);
    }
    return *this;
  }
  ~Handle() {
    if (raw_ != nullptr) Free(raw_);
  }
  T* get() const { return raw_; }
  T* release() { return std::exchange(raw_, nullptr); }

 private:
  T* raw_ = nullptr;
};

inline uint32_t Milliseconds(std::chrono::milliseconds time) {
  if (time.count() < 0) return 0;
  if (time.count() >= static_cast<int64_t>(KEDGE_FOREVER)) return KEDGE_FOREVER;
  return static_cast<uint32_t>(time.count());
}
}  // namespace internal

inline constexpr auto kForever = std::chrono::milliseconds(KEDGE_FOREVER);

inline std::string ToHex(const Key& key) {
  char hex[65];
  kedge_key_to_hex(&key, hex);
  return hex;
}
inline Result<Key> KeyFromHex(const std::string& hex) {
  Key key;
  if (auto s = Status::Last(kedge_key_from_hex(hex.c_str(), &key)); !s) return s;
  return key;
}

// An asynchronous operation on a batch. Its destruction cancels it when it has not ended, and
// blocks until its buffers are not in use any more.
class Request {
 public:
  explicit Request(kedge_request* raw) : handle_(raw) {}
  // True when it ended within `time`, whatever its items' codes are. Blocks.
  bool Wait(std::chrono::milliseconds time = kForever) {
    return kedge_wait(raw(), internal::Milliseconds(time)) == KEDGE_OK;
  }
  bool ended() const { return kedge_poll(raw()) == KEDGE_OK; }
  // Leading blocks whose first `layers` layers of the range are there; nothing when `time` passed
  // first. Blocks.
  std::optional<uint32_t> WaitLayers(uint32_t layers, std::chrono::milliseconds time = kForever) {
    uint32_t blocks = 0;
    if (kedge_wait_layers(raw(), layers, internal::Milliseconds(time), &blocks) != KEDGE_OK)
      return std::nullopt;
    return blocks;
  }
  // Ends it early; after it no buffer is read or written. Blocks for milliseconds.
  void Cancel() { (void)kedge_cancel(raw()); }

  uint32_t count() const { return kedge_request_count(raw()); }
  // Leading items that succeeded: the usable prefix.
  uint32_t prefix() const { return kedge_request_prefix(raw()); }
  bool all_ok() const { return prefix() == count(); }
  std::vector<Item> items() const {
    std::vector<Item> items(count());
    (void)kedge_request_items(raw(), items.data(), count());
    return items;
  }
  Code code(uint32_t item = 0) const {
    std::vector<Item> all = items();
    return item < all.size() ? static_cast<Code>(all[item].code) : Code::kInvalid;
  }
  // The codec chain that an item of a fetch came as; "raw" is the lossless one.
  std::string variant(uint32_t item = 0) const { return kedge_request_variant(raw(), item); }
  // Why the first item that failed did; "" when none did. After it has ended.
  std::string text() const { return kedge_request_text(raw()); }
  kedge_request* raw() const { return handle_.get(); }

 private:
  internal::Handle<kedge_request, kedge_request_free> handle_;
};

// What is held of a prefix as a pruned sequence; owns its lease and gives it back. blocks() is 0
// when nothing is. Must not outlive its Client.
class PrunedMatch {
 public:
  PrunedMatch(kedge_client* client, const kedge_match_pruned_result& result)
      : client_(client), result_(result) {}
  PrunedMatch(PrunedMatch&& other) noexcept
      : client_(other.client_),
        result_(std::exchange(other.result_, kedge_match_pruned_result{})) {}
  PrunedMatch& operator=(PrunedMatch&& other) noexcept {
    std::swap(client_, other.client_);
    std::swap(result_, other.result_);
    return *this;
  }
  ~PrunedMatch() {
    if (result_.lease != 0) (void)kedge_release(client_, result_.lease);
  }
  uint32_t blocks() const { return result_.block_count; }
  uint64_t tokens() const { return result_.tokens; }
  std::string variant() const { return result_.variant; }
  uint64_t payload_bytes() const { return result_.payload_bytes; }
  bool leased() const { return result_.lease != 0; }
  Fidelity fidelity() const { return static_cast<Fidelity>(result_.fidelity); }

 private:
  kedge_client* client_;
  kedge_match_pruned_result result_;
};

// The longest held run of a sequence; owns its lease and gives it back. Must not outlive its
// Client.
class Match {
 public:
  Match(kedge_client* client, const kedge_match_result& result)
      : client_(client), result_(result) {}
  Match(Match&& other) noexcept
      : client_(other.client_), result_(std::exchange(other.result_, kedge_match_result{})) {}
  Match& operator=(Match&& other) noexcept {
    if (this != &other) {
      Release();
      client_ = other.client_;
      result_ = std::exchange(other.result_, kedge_match_result{});
    }
    return *this;
  }
  ~Match() { Release(); }
  uint32_t blocks() const { return result_.blocks; }
  uint64_t tokens() const { return result_.tokens; }
  bool leased() const { return result_.lease != 0; }
  // The lowest of the matched blocks: KV computed over them is no better.
  Fidelity fidelity() const { return static_cast<Fidelity>(result_.fidelity); }
  const kedge_match_result& result() const { return result_; }
  void Release() {
    if (result_.lease != 0) (void)kedge_release(client_, std::exchange(result_.lease, 0));
  }

 private:
  kedge_client* client_;
  kedge_match_result result_;
};

struct MatchOptions {
  uint32_t lease_ms = 0;
  std::vector<std::string> variants;  // accepted, best first; empty: any lossless
  uint32_t deadline_ms = 0;
  Fidelity lowest_fidelity = Fidelity::kNone;  // in place of names: see kedge_match_options
};

struct FetchOptions {
  uint32_t block_begin = 0;
  uint32_t block_count = 0;
  uint32_t layer_begin = 0;
  uint32_t layer_count = 0;  // 0: to the last
  uint32_t layer_group = 0;  // layers that arrive together, in order; 0: in any order
  std::vector<std::string> variants;
  uint32_t deadline_ms = 0;
  Fidelity lowest_fidelity = Fidelity::kNone;
};

struct StoreOptions {
  uint32_t block_begin = 0;
  uint32_t block_count = 0;
  Durability durability = Durability::kDefault;
  uint32_t deadline_ms = 0;
  std::string variant;  // codec chain to store as; "": raw
  // kLossless: the caller's promise that no lossy KV went into these blocks, whatever was fetched.
  Fidelity computed_over = Fidelity::kNone;
  // The worst of these blocks; anything but exact and dense is denied.
  Provenance provenance = Provenance::kNone;
};

// Pruned sequences (see client/c/kedge.h): the KV of a prefix's first blocks without the tokens
// that matter least.
struct StorePrunedOptions {
  uint32_t block_count = 0;
  std::string variant;              // a pruned chain
  std::span<const uint8_t> scores;  // a score sidecar, where the chain ranks by attention
  Durability durability = Durability::kDefault;
  uint32_t deadline_ms = 0;
  Fidelity computed_over = Fidelity::kNone;
};

struct MatchPrunedOptions {
  uint32_t lease_ms = 0;
  std::vector<std::string> variants;  // accepted, best first; empty: all that the gate lets through
  uint32_t deadline_ms = 0;
  uint32_t block_count_min = 0;
};

struct FetchPrunedOptions {
  uint32_t block_count = 0;  // as it was matched
  std::string variant;
  uint32_t layer_begin = 0;
  uint32_t layer_group = 0;
  uint32_t deadline_ms = 0;
};

// Caller memory for one block: segments that are filled, or read, one after the other.
using BlockBuffer = std::vector<Segment>;

// Caller memory for one layer of a pruned sequence: its rows (Sequence::PrunedRows), and where they
// stand.
struct PrunedLayer {
  BlockBuffer keys;
  BlockBuffer values;
  std::span<int32_t> positions;
};

namespace internal {
inline std::vector<kedge_buffer> Views(std::span<const BlockBuffer> buffers) {
  std::vector<kedge_buffer> views;
  views.reserve(buffers.size());
  for (const BlockBuffer& b : buffers) views.push_back({b.data(), static_cast<uint32_t>(b.size())});
  return views;
}
inline std::vector<const char*> Names(const std::vector<std::string>& texts) {
  std::vector<const char*> names;
  names.reserve(texts.size());
  for (const std::string& text : texts) names.push_back(text.c_str());
  return names;
}
inline Status CountsAgree(size_t buffers, uint32_t blocks) {
  if (buffers == blocks) return {};
  return Status(Code::kInvalid, "buffers: " + std::to_string(buffers) + " given, block_count is " +
                                    std::to_string(blocks));
}
}  // namespace internal

// A store in layers, while the prefill runs. One thread at a time. Destroyed without Commit it
// aborts.
class Writer {
 public:
  explicit Writer(kedge_writer* raw) : handle_(raw) {}
  // `block` counts from the store's first. The memory stays the writer's until the commit's request
  // has ended.
  Status Part(uint32_t block, uint32_t layer, Component component, std::span<const uint8_t> bytes) {
    return Status::Last(kedge_store_part(
        handle_.get(), block, layer, static_cast<uint32_t>(component), bytes.data(), bytes.size()));
  }
  // One layer of all blocks, one buffer for each. `buffers.size()` must be the store's block_count.
  Status Layer(uint32_t layer, std::span<const BlockBuffer> buffers) {
    std::vector<kedge_buffer> views = internal::Views(buffers);
    return Status::Last(kedge_store_layer(handle_.get(), layer, views.data()));
  }
  // The writer is used up, whatever comes back.
  Result<Request> Commit() {
    kedge_request* request = nullptr;
    if (auto s = Status::Last(kedge_store_commit(handle_.release(), &request)); !s) return s;
    return Request(request);
  }

 private:
  internal::Handle<kedge_writer, kedge_store_abort> handle_;
};

// A prompt as a chain of blocks under one model. Const calls on any thread.
class Sequence {
 public:
  Sequence(kedge_client* client, kedge_sequence* raw) : client_(client), handle_(raw) {}
  uint32_t blocks() const { return kedge_sequence_blocks(handle_.get()); }
  Result<Key> key(uint32_t block) const {
    Key key;
    if (auto s = Status::Last(kedge_sequence_key(handle_.get(), block, &key)); !s) return s;
    return key;
  }
  // The longest held run. A node that is away is a Result without value, code kUnavailable: a miss.
  // Blocks for a round trip.
  Result<Match> MatchRun(const MatchOptions& options = {}) const {
    std::vector<const char*> names = internal::Names(options.variants);
    kedge_match_options c{};
    c.size = sizeof c;
    c.lease_ms = options.lease_ms;
    c.variants = names.data();
    c.variant_count = static_cast<uint32_t>(names.size());
    c.deadline_ms = options.deadline_ms;
    c.lowest_fidelity = static_cast<uint32_t>(options.lowest_fidelity);
    kedge_match_result result{};
    result.size = sizeof result;
    if (auto s = Status::Last(kedge_match(handle_.get(), &c, &result)); !s) return s;
    return Match(client_, result);
  }
  // One buffer for each block, filled with the parts of the layers in range, in order.
  Result<Request> Fetch(const FetchOptions& options, std::span<const BlockBuffer> buffers) const {
    if (auto s = internal::CountsAgree(buffers.size(), options.block_count); !s) return s;
    std::vector<kedge_buffer> views = internal::Views(buffers);
    std::vector<const char*> names = internal::Names(options.variants);
    kedge_fetch_options c{};
    c.size = sizeof c;
    c.block_begin = options.block_begin;
    c.block_count = options.block_count;
    c.layer_begin = options.layer_begin;
    c.layer_count = options.layer_count;
    c.layer_group = options.layer_group;
    c.buffers = views.data();
    c.variants = names.data();
    c.variant_count = static_cast<uint32_t>(names.size());
    c.deadline_ms = options.deadline_ms;
    c.lowest_fidelity = static_cast<uint32_t>(options.lowest_fidelity);
    kedge_request* request = nullptr;
    if (auto s = Status::Last(kedge_fetch(handle_.get(), &c, &request)); !s) return s;
    return Request(request);
  }
  // One buffer for each block, a whole block each.
  Result<Request> Store(const StoreOptions& options, std::span<const BlockBuffer> buffers) const {
    if (auto s = internal::CountsAgree(buffers.size(), options.block_count); !s) return s;
    std::vector<kedge_buffer> views = internal::Views(buffers);
    kedge_store_options c = ToC(options);
    c.buffers = views.data();
    kedge_request* request = nullptr;
    if (auto s = Status::Last(kedge_store(handle_.get(), &c, &request)); !s) return s;
    return Request(request);
  }
  Result<Writer> StoreBegin(const StoreOptions& options) const {
    kedge_store_options c = ToC(options);
    kedge_writer* writer = nullptr;
    if (auto s = Status::Last(kedge_store_begin(handle_.get(), &c, &writer)); !s) return s;
    return Writer(writer);
  }

  // --- Pruned: the rules are in client/c/kedge.h ---
  // Rows that each layer keeps.
  Result<std::vector<uint32_t>> PrunedRows(uint32_t block_count, const std::string& variant,
                                           uint32_t layers) const {
    std::vector<uint32_t> rows(layers);
    if (auto s = Status::Last(
            kedge_pruned_rows(handle_.get(), block_count, variant.c_str(), rows.data(), layers));
        !s)
      return s;
    return rows;
  }
  Result<Key> PrunedKey(uint32_t block_count, const std::string& variant) const {
    Key key;
    if (auto s = Status::Last(kedge_pruned_key(handle_.get(), block_count, variant.c_str(), &key));
        !s)
      return s;
    return key;
  }
  // A score sidecar beside the raw blocks that it is of.
  Result<Request> StoreScores(std::span<const uint8_t> scores,
                              Durability durability = Durability::kDefault,
                              Fidelity computed_over = Fidelity::kNone) const {
    kedge_store_scores_options c{};
    c.size = sizeof c;
    c.durability = static_cast<uint32_t>(durability);
    c.scores = scores.data();
    c.score_bytes = scores.size();
    c.computed_over = static_cast<uint32_t>(computed_over);
    kedge_request* request = nullptr;
    if (auto s = Status::Last(kedge_store_scores(handle_.get(), &c, &request)); !s) return s;
    return Request(request);
  }
  // All KV of the first blocks, one buffer for each; it is pruned and encoded inside the call.
  Result<Request> StorePruned(const StorePrunedOptions& options,
                              std::span<const BlockBuffer> buffers) const {
    if (auto s = internal::CountsAgree(buffers.size(), options.block_count); !s) return s;
    std::vector<kedge_buffer> views = internal::Views(buffers);
    kedge_store_pruned_options c{};
    c.size = sizeof c;
    c.block_count = options.block_count;
    c.variant = options.variant.c_str();
    c.buffers = views.data();
    c.scores = options.scores.data();
    c.score_bytes = options.scores.size();
    c.durability = static_cast<uint32_t>(options.durability);
    c.deadline_ms = options.deadline_ms;
    c.computed_over = static_cast<uint32_t>(options.computed_over);
    kedge_request* request = nullptr;
    if (auto s = Status::Last(kedge_store_pruned(handle_.get(), &c, &request)); !s) return s;
    return Request(request);
  }
  // The same from the raw blocks, and scores, that the store holds. Blocks. Item::code is kOk or
  // kExists.
  Result<Item> Prune(uint32_t block_count, const std::string& variant,
                     Durability durability = Durability::kDefault, uint32_t deadline_ms = 0) const {
    kedge_prune_options c{};
    c.size = sizeof c;
    c.block_count = block_count;
    c.variant = variant.c_str();
    c.durability = static_cast<uint32_t>(durability);
    c.deadline_ms = deadline_ms;
    Item item{};
    if (auto s = Status::Last(kedge_prune(handle_.get(), &c, &item)); !s) return s;
    return item;
  }
  // The longest prefix that is held pruned. Blocks for a round trip.
  Result<PrunedMatch> MatchPruned(const MatchPrunedOptions& options = {}) const {
    std::vector<const char*> names = internal::Names(options.variants);
    kedge_match_pruned_options c{};
    c.size = sizeof c;
    c.lease_ms = options.lease_ms;
    c.variants = names.empty() ? nullptr : names.data();
    c.variant_count = static_cast<uint32_t>(names.size());
    c.deadline_ms = options.deadline_ms;
    c.block_count_min = options.block_count_min;
    kedge_match_pruned_result result{};
    result.size = sizeof result;
    if (auto s = Status::Last(kedge_match_pruned(handle_.get(), &c, &result)); !s) return s;
    return PrunedMatch(client_, result);
  }
  // Into ragged pages: one entry for each layer from layer_begin on.
  Result<Request> FetchPruned(const FetchPrunedOptions& options,
                              std::span<const PrunedLayer> layers) const {
    std::vector<kedge_pruned_layer> views;
    for (const PrunedLayer& layer : layers) {
      views.push_back({{layer.keys.data(), static_cast<uint32_t>(layer.keys.size())},
                       {layer.values.data(), static_cast<uint32_t>(layer.values.size())},
                       layer.positions.data(),
                       static_cast<uint32_t>(layer.positions.size())});
    }
    kedge_fetch_pruned_options c{};
    c.size = sizeof c;
    c.block_count = options.block_count;
    c.variant = options.variant.c_str();
    c.layer_begin = options.layer_begin;
    c.layer_count = static_cast<uint32_t>(layers.size());
    c.layer_group = options.layer_group;
    c.deadline_ms = options.deadline_ms;
    c.layers = views.data();
    kedge_request* request = nullptr;
    if (auto s = Status::Last(kedge_fetch_pruned(handle_.get(), &c, &request)); !s) return s;
    return Request(request);
  }
  kedge_sequence* raw() const { return handle_.get(); }

 private:
  static kedge_store_options ToC(const StoreOptions& options) {
    kedge_store_options c{};
    c.size = sizeof c;
    c.block_begin = options.block_begin;
    c.block_count = options.block_count;
    c.durability = static_cast<uint32_t>(options.durability);
    c.deadline_ms = options.deadline_ms;
    c.computed_over = static_cast<uint32_t>(options.computed_over);
    c.variant = options.variant.empty() ? nullptr : options.variant.c_str();  // of the caller's
    c.provenance = static_cast<uint32_t>(options.provenance);
    return c;
  }
  kedge_client* client_;
  internal::Handle<kedge_sequence, kedge_sequence_free> handle_;
};

struct ModelOptions {
  std::string weights_id;
  std::string adapter_id;
  std::string tokenizer_id;
  DType dtype = DType::kBf16;
  uint32_t layer_begin = 0;  // of this shard
  uint32_t layer_count = 0;
  uint32_t kv_head_begin = 0;
  uint32_t kv_heads = 0;
  uint32_t head_size = 0;
  uint32_t block_tokens = 64;
  uint32_t components = Bit(Component::kK) | Bit(Component::kV);
  double rope_theta = 0;  // 0: keys are not rotated
  std::string rope_scaling;
  std::string kv_scales_id;
  // Lossy variants: the model's profile, a file; or the plain word that they may be used without.
  std::string profile;
  bool allow_unprofiled = false;
};

struct NearOptions {
  uint32_t prefix_tokens = 0;  // the prompt's first tokens, which have KV already
  uint32_t min_run = 0;        // 0: 5
  uint32_t last_tokens = 0;    // computed in any case; 0: 3
  uint32_t donors_max = 0;     // 0: 64
  uint32_t deadline_ms = 0;
};
using NearRun = kedge_near_run;

// Where a prompt's text was computed before: see kedge.h. Must not outlive its Client.
class Near {
 public:
  struct Donor {
    uint32_t first_token = 0;  // position of its row 0 in the text that it was computed in
    uint32_t tokens = 0;
    Sequence sequence;
  };
  Near(kedge_client* client, kedge_near* raw) : client_(client), handle_(raw) {}
  std::span<const NearRun> runs() const {
    const NearRun* runs = nullptr;
    const uint32_t count = kedge_near_runs(handle_.get(), &runs);
    return {runs, count};
  }
  uint32_t donors() const { return kedge_near_donors(handle_.get()); }
  Result<Donor> donor(uint32_t index) const {
    kedge_near_donor info{};
    info.size = sizeof info;
    kedge_sequence* sequence = nullptr;
    if (auto s = Status::Last(kedge_near_donor_get(handle_.get(), index, &info, &sequence)); !s)
      return s;
    return Donor{info.first_token, info.tokens, Sequence(client_, sequence)};
  }

 private:
  kedge_client* client_;
  internal::Handle<kedge_near, kedge_near_free> handle_;
};

// Const calls on any thread. Must not outlive its Client (nor may its sequences).
class Model {
 public:
  Model(kedge_client* client, kedge_model* raw) : client_(client), handle_(raw) {}
  uint64_t part_bytes() const { return kedge_model_part_bytes(handle_.get()); }
  uint64_t layer_bytes() const { return kedge_model_layer_bytes(handle_.get()); }
  uint64_t block_bytes() const { return kedge_model_block_bytes(handle_.get()); }
  std::string fingerprint() const {
    char hex[65];
    kedge_model_fingerprint(handle_.get(), hex);
    return hex;
  }
  // The whole blocks in `tokens`. `extra`: ids of multimodal inputs beside them.
  Result<Sequence> FromTokens(std::span<const int32_t> tokens, std::string_view extra = {}) const {
    kedge_sequence* sequence = nullptr;
    if (auto s = Status::Last(kedge_sequence_from_tokens(
            handle_.get(), tokens.data(), tokens.size(), extra.data(), extra.size(), &sequence));
        !s)
      return s;
    return Sequence(client_, sequence);
  }
  // An engine's own chained block hashes, `hash_bytes` each.
  Result<Sequence> FromHashes(std::span<const uint8_t> hashes, uint32_t hash_bytes) const {
    if (hash_bytes == 0 || hashes.size() % hash_bytes != 0)
      return Status(Code::kInvalid, "hash_bytes: " + std::to_string(hash_bytes) +
                                        " does not divide the " + std::to_string(hashes.size()) +
                                        " bytes of hashes");
    kedge_sequence* sequence = nullptr;
    if (auto s = Status::Last(kedge_sequence_from_hashes(handle_.get(), hashes.data(), hash_bytes,
                                                         hashes.size() / hash_bytes, &sequence));
        !s)
      return s;
    return Sequence(client_, sequence);
  }
  // Makes a prompt's whole blocks findable by their text. With every prompt that is served. Blocks.
  Status RegisterText(std::span<const int32_t> tokens, Durability durability = Durability::kDefault,
                      uint32_t deadline_ms = 0) const {
    return Status::Last(kedge_near_register(handle_.get(), tokens.data(), tokens.size(),
                                            static_cast<uint32_t>(durability), deadline_ms));
  }
  // Where text of this prompt was computed before, unchanged or nearly. Blocks.
  Result<Near> FindNear(std::span<const int32_t> tokens, const NearOptions& options = {}) const {
    kedge_near_options c{};
    c.size = sizeof c;
    c.prefix_tokens = options.prefix_tokens;
    c.min_run = options.min_run;
    c.last_tokens = options.last_tokens;
    c.donors_max = options.donors_max;
    c.deadline_ms = options.deadline_ms;
    kedge_near* near = nullptr;
    if (auto s =
            Status::Last(kedge_near_find(handle_.get(), tokens.data(), tokens.size(), &c, &near));
        !s)
      return s;
    return Near(client_, near);
  }
  kedge_model* raw() const { return handle_.get(); }

 private:
  kedge_client* client_;
  internal::Handle<kedge_model, kedge_model_free> handle_;
};

struct ClientOptions {
  std::string address;  // "tcp://host:port", "shm://host:port", "embedded:?host=256MiB"
  std::string salt;     // the tenant's secret; never leaves the process
  std::string client_name;
  uint64_t tenant = 0;
  uint32_t deadline_ms = 0;   // of requests that name none; 0: 10 s
  uint32_t connect_ms = 0;    // how long Open waits; 0: 3 s
  uint64_t window_bytes = 0;  // bulk bytes in flight in each direction; 0: the default
  bool wait = true;           // false: Open returns at once, requests miss until the node answers
};

class Client {
 public:
  explicit Client(kedge_client* raw) : handle_(raw) {}
  // Blocks until the node answered.
  static Result<Client> Open(const ClientOptions& options) {
    kedge_options c{};
    c.size = sizeof c;
    c.flags = options.wait ? 0 : KEDGE_OPEN_NO_WAIT;
    c.address = options.address.c_str();
    c.salt = options.salt.c_str();
    c.client_name = options.client_name.empty() ? nullptr : options.client_name.c_str();
    c.tenant = options.tenant;
    c.deadline_ms = options.deadline_ms;
    c.connect_ms = options.connect_ms;
    c.window_bytes = options.window_bytes;
    kedge_client* client = nullptr;
    if (auto s = Status::Last(kedge_open(&c, &client)); !s) return s;
    return Client(client);
  }
  Result<Model> OpenModel(const ModelOptions& options) const {
    kedge_model_options c{};
    c.size = sizeof c;
    c.dtype = static_cast<uint32_t>(options.dtype);
    c.weights_id = options.weights_id.c_str();
    c.adapter_id = options.adapter_id.c_str();
    c.tokenizer_id = options.tokenizer_id.c_str();
    c.rope_scaling = options.rope_scaling.c_str();
    c.kv_scales_id = options.kv_scales_id.c_str();
    c.rope_theta = options.rope_theta;
    c.layer_begin = options.layer_begin;
    c.layer_count = options.layer_count;
    c.kv_head_begin = options.kv_head_begin;
    c.kv_heads = options.kv_heads;
    c.head_size = options.head_size;
    c.block_tokens = options.block_tokens;
    c.components = options.components;
    c.flags = options.allow_unprofiled ? KEDGE_MODEL_ALLOW_UNPROFILED : 0;
    c.profile = options.profile.empty() ? nullptr : options.profile.c_str();
    kedge_model* model = nullptr;
    if (auto s = Status::Last(kedge_model_open(raw(), &c, &model)); !s) return s;
    return Model(raw(), model);
  }

  // The key of a name of any bytes under this client's salt.
  Key KeyOf(std::string_view name) const {
    Key key{};
    (void)kedge_key_of_name(raw(), name.data(), name.size(), &key);
    return key;
  }

  // Batches on opaque keys: asynchronous; the data is the request's until it ended. deadline_ms 0:
  // the client's.
  Result<Request> Put(std::span<const PutItem> items, Durability durability = Durability::kDefault,
                      uint32_t deadline_ms = 0) const {
    kedge_request* request = nullptr;
    if (auto s = Status::Last(kedge_put(raw(), items.data(), Count(items),
                                        static_cast<uint32_t>(durability), deadline_ms, &request));
        !s)
      return s;
    return Request(request);
  }
  Result<Request> Get(std::span<const GetItem> items, uint32_t deadline_ms = 0) const {
    kedge_request* request = nullptr;
    if (auto s = Status::Last(kedge_get(raw(), items.data(), Count(items), deadline_ms, &request));
        !s)
      return s;
    return Request(request);
  }
  Result<Request> Exists(std::span<const Key> keys, uint32_t deadline_ms = 0) const {
    kedge_request* request = nullptr;
    if (auto s = Status::Last(kedge_exists(raw(), keys.data(), Count(keys), deadline_ms, &request));
        !s)
      return s;
    return Request(request);
  }
  Result<Request> Remove(std::span<const Key> keys, uint32_t deadline_ms = 0) const {
    kedge_request* request = nullptr;
    if (auto s = Status::Last(kedge_remove(raw(), keys.data(), Count(keys), deadline_ms, &request));
        !s)
      return s;
    return Request(request);
  }

  // One value under a name, synchronously. Block for a round trip (get: two, the first asks for the
  // size).
  Status Put(std::string_view name, std::string_view value,
             Durability durability = Durability::kDefault) const {
    PutItem item{KeyOf(name), value.data(), value.size()};
    auto request = Put(std::span<const PutItem>(&item, 1), durability);
    return request ? Finish(*request) : request.status();
  }
  Result<std::string> Get(std::string_view name) const {
    Key key = KeyOf(name);
    auto found = Exists(std::span<const Key>(&key, 1));
    if (!found) return found.status();
    if (auto s = Finish(*found); !s) return s;
    std::string value(found->items()[0].bytes, '\0');
    GetItem item{key, value.data(), value.size()};
    auto request = Get(std::span<const GetItem>(&item, 1));
    if (!request) return request.status();
    if (auto s = Finish(*request); !s) return s;
    value.resize(request->items()[0].bytes);
    return value;
  }

  Status RegisterMemory(void* data, uint64_t bytes) const {
    return Status::Last(kedge_register_memory(raw(), data, bytes));
  }
  Status UnregisterMemory(void* data) const {
    return Status::Last(kedge_unregister_memory(raw(), data));
  }
  Info info() const {
    Info info{};
    info.size = sizeof info;
    (void)kedge_client_info(raw(), &info);
    return info;
  }
  kedge_client* raw() const { return handle_.get(); }

  // Waits; the first item's failure, or success.
  static Status Finish(Request& request) {
    request.Wait();
    for (const Item& item : request.items())
      if (!IsSuccess(static_cast<Code>(item.code)))
        return Status(static_cast<Code>(item.code), request.text());
    return {};
  }

 private:
  template <typename T>
  static uint32_t Count(std::span<T> items) {
    return items.size() > UINT32_MAX ? UINT32_MAX : static_cast<uint32_t>(items.size());
  }
  internal::Handle<kedge_client, kedge_close> handle_;
};

// tidy: long-file, the whole SDK in one header is what a user wants to read
}  // namespace kedge::sdk
