// What the calls on pruned sequences have in common.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "client/c/handles.h"
#include "client/pruned.h"
#include "client/put.h"

namespace kedge::c {

// The first `block_count` blocks of a sequence under a pruned chain that the gate lets through.
kedge_code ReadPruned(const kedge_sequence& sequence, uint32_t block_count, const char* variant,
                      std::optional<PrunedSequence>& pruned);

// A sidecar that pruned chains of this shape can use.
kedge_code ReadScores(const void* scores, uint64_t bytes, const KvShape& shape,
                      codec::ScoreSidecar& sidecar);

// One layer's keys and values, [tokens][kv_heads][head_size] each.
struct LayerMemory {
  std::vector<uint8_t> keys;
  std::vector<uint8_t> values;

  explicit LayerMemory(uint64_t bytes) : keys(bytes), values(bytes) {}
};

// The put of one object, which it owns.
std::shared_ptr<Operation> PutOf(const ClientState& state, codec::EncodedBlock block,
                                 uint8_t durability, int64_t deadline_us);

}  // namespace kedge::c
