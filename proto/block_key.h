// Names of blocks: 32-byte keys that only the holder of a tenant's salt can compute.
//
// key = HMAC-SHA-256(salt, domain || ...), one domain for each keyspace, so that a key of one space
// can never equal one of another. Nodes store and compare keys; they never hold a salt.
//
//   prefix  chained over (fingerprint, parent key, token ids of one block): same tokens, same
//           positions, same everything before. Or over (fingerprint, the engine's own chained
//           hash).
//   chunk   a prefix chain whose root is a canonical recipe of the model: position-free.
//   anchor  KVCOMM objects.
//   opaque  any bytes of the caller: put, get, exists, remove.
//
// A variant that depends on more than one block (gpu/codec/pruned_chain.h) has a key of its own
// beside them: SequenceKey.
//
// A *placement id* (8 bytes) travels with a key. Blocks of one run (32 blocks of one chain) share
// it, so that they live on the same node and are evicted together, tail first.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/kv_shape.h"

namespace kedge {

enum class Keyspace : uint8_t { kPrefix = 1, kChunk = 2, kAnchor = 3, kOpaque = 4 };
const char* KeyspaceName(Keyspace keyspace);

struct BlockKey {
  std::array<uint8_t, 32> bytes{};

  std::string ToHex() const;
  // InvalidArgument that names the text: not 64 hex digits.
  static absl::StatusOr<BlockKey> FromHex(std::string_view hex);
  bool is_zero() const { return *this == BlockKey{}; }

  friend bool operator==(const BlockKey&, const BlockKey&) = default;
  friend auto operator<=>(const BlockKey&, const BlockKey&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const BlockKey& key) {
    return H::combine_contiguous(std::move(h), key.bytes.data(), key.bytes.size());
  }
};

// The secret of a tenant (or of a sharing group). Never sent, never logged.
struct TenantSalt {
  std::array<uint8_t, 32> bytes{};
  // From 64 hex digits, or SHA-256 of any other non-empty text. Empty text is InvalidArgument.
  static absl::StatusOr<TenantSalt> FromText(std::string_view text);
};

// Everything that makes KV interchangeable. Two engines share KV only when all of it is equal.
struct ModelIdentity {
  std::string weights_id;  // e.g. a digest of the weights, or "org/name@revision"
  std::string adapter_id;  // LoRA; empty for none
  std::string tokenizer_id;
  KvShape shape;             // includes dtype, block_tokens and the shard
  double rope_theta = 0;     // 0: no RoPE
  std::string rope_scaling;  // canonical text of the scaling parameters; empty for none
  std::string kv_scales_id;  // id of fp8 scales; empty for none
};

struct Fingerprint {
  std::array<uint8_t, 32> bytes{};
  static absl::StatusOr<Fingerprint> Of(const ModelIdentity& model);
  std::string ToHex() const;
  friend bool operator==(const Fingerprint&, const Fingerprint&) = default;
};

// What the bytes of a block belong to, however it was cut: weights, adapter and rotation, but not
// tokenizer, block_tokens or shard. Block headers carry it, so that a node finds the model's
// profile (proto/model_profile.h). All zeros: no model.
struct ModelId {
  std::array<uint8_t, 16> bytes{};

  static ModelId Of(std::string_view weights_id, std::string_view adapter_id,
                    std::string_view rope_scaling, double rope_theta);
  static ModelId Of(const ModelIdentity& model) {
    return Of(model.weights_id, model.adapter_id, model.rope_scaling, model.rope_theta);
  }
  bool is_zero() const { return *this == ModelId{}; }
  std::string ToHex() const;
  friend bool operator==(const ModelId&, const ModelId&) = default;
  friend auto operator<=>(const ModelId&, const ModelId&) = default;
};

inline constexpr uint32_t kPlacementRunBlocks = 32;

// One block of a chain: its name and where it belongs.
struct ChainLink {
  BlockKey key;
  BlockKey parent;  // zero for the first block
  uint64_t placement = 0;
  uint32_t depth = 0;  // 0 for the first block
};

// Computes the links of prefix (or chunk) chains. Const methods; any thread.
class KeyChain {
 public:
  // `extra` are multimodal input ids that stand beside the tokens; they enter the root.
  KeyChain(const TenantSalt& salt, const Fingerprint& model, Keyspace keyspace = Keyspace::kPrefix,
           std::string_view extra = {});

  // The link of the block that holds `tokens`, after `parent` (nullptr: the first block).
  ChainLink Next(const ChainLink* parent, std::span<const int32_t> tokens) const;
  // The same over an engine's own chained hash of that block (opaque bytes, 1 to 64 of them).
  ChainLink NextFromEngineHash(const ChainLink* parent, std::span<const uint8_t> engine_hash) const;

  // Links of the whole blocks in `tokens`; a tail shorter than block_tokens has no block.
  std::vector<ChainLink> Links(std::span<const int32_t> tokens, uint32_t block_tokens) const;

 private:
  ChainLink Link(const ChainLink* parent, uint8_t source, std::span<const uint8_t> content) const;

  TenantSalt salt_;
  std::array<uint8_t, 32> root_;  // SHA-256 over fingerprint, keyspace and extra
};

// The key of a caller's own name, and its placement (a run of its own).
BlockKey OpaqueKey(const TenantSalt& salt, std::span<const uint8_t> name);
// A key of the anchor keyspace; what `name` holds is said in gpu/offset/anchor.h.
BlockKey AnchorNameKey(const TenantSalt& salt, const Fingerprint& model,
                       std::span<const uint8_t> name);
// The key of a pool's roster (store/block/pool_roster.h): nodes make it, without a salt.
BlockKey RosterKey(const BlockKey& pool, uint32_t sequence);
// The name of what was made of a whole sequence: its first `tokens` tokens, whose last block has
// the prefix key `tail`, by a chain and a profile (proto/model_profile.h; its id). Its placement is
// the tail's: it lives beside the blocks that it was made of. Aborts when the chain's name is empty
// or has more than 47 characters.
BlockKey SequenceKey(const TenantSalt& salt, const BlockKey& tail, uint32_t tokens,
                     std::string_view chain, std::span<const uint8_t, 16> profile_id);
// Placement of a key that stands alone: its first 8 bytes, little endian.
uint64_t PlacementOf(const BlockKey& key);

}  // namespace kedge

template <>
struct std::hash<kedge::BlockKey> {
  size_t operator()(const kedge::BlockKey& key) const noexcept {
    uint64_t h;  // keys are uniform: any 8 bytes are a hash
    __builtin_memcpy(&h, key.bytes.data() + 8, sizeof h);
    return h;
  }
};
