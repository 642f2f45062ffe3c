// Stores the blocks that a prefill computes, part by part, as each layer of a chunk is done. The
// parts are read from the KV cache itself: it must stay as it is until the store has ended.
//
// A store that fails, at any step, only says so: a prefill goes on without it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "client/kv_client.h"
#include "gpu/model/kv_cache.h"

namespace kedge {

class LayerStore {
 public:
  // Blocks [begin, begin + count) of the sequence; none of them yet computed. The cache must
  // outlive the LayerStore. Does nothing when count is 0.
  LayerStore(const sdk::Sequence& sequence, KvCache& cache, int64_t block_tokens,
             const sdk::StoreOptions& options);
  // Ends it: what was not committed never becomes visible. Blocks until the cache is not read any
  // more.
  ~LayerStore() = default;

  // A hook for PrefillOptions::on_layer_done: ignores tokens that are not a whole block of the
  // range.
  void OnLayerDone(int64_t layer, int64_t first_token, int64_t tokens);
  // After the prefill: asks the node to make the blocks visible. Does not wait.
  void Commit();
  // Waits for the node's answer. Blocks.
  void Wait();

  uint32_t stored_blocks() const { return stored_blocks_; }  // without those held already
  uint64_t stored_bytes() const { return stored_bytes_; }
  const std::string& trouble() const { return trouble_; }  // "" while all is well

 private:
  KvCache& cache_;
  const int64_t block_tokens_;
  const uint32_t begin_;
  const uint32_t count_;
  std::optional<sdk::Writer> writer_;
  std::optional<sdk::Request> request_;
  uint32_t stored_blocks_ = 0;
  uint64_t stored_bytes_ = 0;
  std::string trouble_;
};

}  // namespace kedge
