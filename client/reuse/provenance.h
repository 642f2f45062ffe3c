// Where KV comes from, in the type of what holds it.
//
// Provenance of a token's KV is the least of all that it was computed from: that of its own row and
// of every row before it, since it saw them. So it only falls from a sequence's beginning to its
// end, and so does fidelity: KV computed over blocks that came through a lossy codec is lossy.
//
// Only lossless KV that is exact or dense may be stored under prefix keys, which promise just that.
// AssembledKv lets nothing else out: its cache can be read, decoded behind and taken together with
// its provenance, but handed to a store only as far as it is publishable. The SDK refuses the rest
// a second time (kedge_store_options::provenance).
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "gpu/model/kv_cache.h"
#include "gpu/model/model.h"
#include "proto/block_header.h"

namespace kedge {

// Best first.
enum class Provenance : uint8_t {
  kExact = 0,       // from a store, of these very tokens behind the very same ones
  kDense = 1,       // computed over all that stands before it
  kCorrected = 2,   // base KV and an offset (KVCOMM)
  kRecomputed = 3,  // some tokens computed anew, others moved (DHD, CacheBlend, EPIC)
  kMoved = 4,       // computed elsewhere and moved, nothing more
};
const char* ProvenanceName(Provenance provenance);

// Of a sequence's tokens, from its first on. A value.
class ProvenanceLog {
 public:
  // The next `tokens` tokens' own rows; what stands before them counts by itself.
  void Append(int64_t tokens, Provenance provenance, Fidelity fidelity = Fidelity::kLossless);

  int64_t tokens() const { return runs_.empty() ? 0 : runs_.back().end; }
  // Of token `token` and all before it. Aborts outside [0, tokens()).
  Provenance At(int64_t token) const;
  Fidelity FidelityAt(int64_t token) const;
  // Of all tokens; exact and lossless where there is none.
  Provenance worst() const;
  Fidelity lowest_fidelity() const;
  // Leading tokens that are exact or dense, and lossless: what may stand under prefix keys.
  int64_t publishable_tokens() const;
  // Forgets the tokens from `tokens` on.
  void Truncate(int64_t tokens);

 private:
  struct Run {
    int64_t end = 0;
    Provenance provenance = Provenance::kExact;
    Fidelity fidelity = Fidelity::kLossless;
  };
  const Run& RunOf(int64_t token) const;
  std::vector<Run> runs_;  // falling
};

// A sequence's KV and where it comes from.
class AssembledKv {
 public:
  // `log` is of as many tokens as the cache has: aborts otherwise.
  AssembledKv(KvCache cache, ProvenanceLog log);

  const KvCache& cache() const { return cache_; }
  const ProvenanceLog& provenance() const { return log_; }

  // Computes the tokens behind the cache's, and one more: dense over what is there, and so of no
  // better provenance. Errors as the model's.
  absl::StatusOr<Logits> Prefill(Model& model, std::span<const int32_t> tokens);
  absl::StatusOr<Logits> Decode(Model& model, int32_t token);

  // The cache, for a store of its first `tokens` tokens under prefix keys. PermissionDenied says
  // from which token on it is not exact, dense or lossless, and what it is there.
  absl::StatusOr<KvCache*> ForStore(int64_t tokens);

  // The cache for somebody who asks where it came from.
  std::pair<KvCache, ProvenanceLog> Take() && { return {std::move(cache_), std::move(log_)}; }

 private:
  KvCache cache_;
  ProvenanceLog log_;
};

}  // namespace kedge
