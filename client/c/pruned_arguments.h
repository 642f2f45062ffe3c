// What the calls on pruned sequences have in common.
#pragma once

#include <cstdint>
#include <optional>

#include "client/c/handles.h"
#include "client/pruned.h"

namespace kedge::c {

// The first `block_count` blocks of a sequence under a pruned chain that the gate lets through.
kedge_code ReadPruned(const kedge_sequence& sequence, uint32_t block_count, const char* variant,
                      std::optional<PrunedSequence>& pruned);

}  // namespace kedge::c
