// How the runner's KV lies in a store's blocks: the model's geometry and name, and the memory of a
// block inside a KvCache.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "client/kv_client.h"
#include "gpu/model/kv_cache.h"
#include "gpu/model/model.h"

namespace kedge {

// What names this model's blocks: all its layers and heads, keys rotated as the config says.
sdk::ModelOptions StoreModel(const Model& model, const std::string& weights_id,
                             const std::string& tokenizer_id);

// The memory of `count` blocks from block `begin` on: for each, layer by layer, keys then values.
// Nothing is copied: a fetch writes into the cache itself, a store reads from it. Aborts on a
// pruned cache: its rows are no blocks of tokens.
std::vector<sdk::BlockBuffer> BlockSpans(KvCache& cache, int64_t block_tokens, uint32_t begin,
                                         uint32_t count);

}  // namespace kedge
