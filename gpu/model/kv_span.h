// KV of a run of tokens that belongs to no position: keys are not rotated, so the run can be placed
// anywhere.
//
// What reuse beyond exact prefixes is made of: compute a text once, alone behind a lead of fixed
// tokens whose rows are dropped (the *canonical recipe*), and place it wherever it occurs. Keys and
// values are kept in the KV dtype; a key that is placed is rotated in fp32 and rounded once more.
// Values move as they are.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gpu/model/kv_cache.h"
#include "gpu/model/model.h"

namespace kedge {

struct KvSpan {
  KvCache::Geometry geometry;
  int64_t tokens = 0;
  // [layers][tokens][kv_heads * head_size] of geometry.dtype; keys not rotated.
  std::vector<uint8_t> keys;
  std::vector<uint8_t> values;

  int64_t token_bytes() const;
  // The bytes of one layer.
  std::span<uint8_t> Layer(std::vector<uint8_t>& array, int64_t layer) const;
  std::span<const uint8_t> Layer(const std::vector<uint8_t>& array, int64_t layer) const;
};

// Room for `tokens` tokens, zeros.
KvSpan MakeSpan(const Model& model, int64_t tokens);

// Computes `tokens` behind `lead` and nothing else. Keys are rounded to the KV dtype once, before
// any rotation. Errors as Model::Prefill's.
absl::StatusOr<KvSpan> ComputeAlone(Model& model, std::span<const int32_t> lead,
                                    std::span<const int32_t> tokens);

// Takes tokens [first, first + count) of a cache, whose keys stand rotated at their index: they are
// turned back in fp32 and rounded. InvalidArgument when they are not in the cache.
absl::StatusOr<KvSpan> LiftSpan(const Model& model, const KvCache& cache, int64_t first,
                                int64_t count);

// Writes the span at positions [first, first + span.tokens) of a cache, keys rotated there.
// set_length stays the caller's. InvalidArgument when it does not fit or the geometries differ.
absl::Status PlaceSpan(const Model& model, const KvSpan& span, int64_t first, KvCache& cache);

}  // namespace kedge
