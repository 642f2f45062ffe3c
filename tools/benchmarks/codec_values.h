// Made-up KV for benchmarks of codecs, and the profile that a model with such KV would have.
//
// A model's rows are correlated: a few directions carry most of them. Here a row, un-rotated, is
//
//     x = D H z      z_c normal, its deviation proportional to 2^(-7 c / width)
//
// H being the orthonormal Walsh-Hadamard transform over all heads and D random signs; a channel's
// variance is 1. The fall is such that one bit a value keeps about 40% of the components, as it
// does on the evaluation model. The basis of such rows is known without looking for it. All this is
// right for speed and memory; what it takes in bits a value says nothing about any model.
//
// The profile has tables for `kivi2g32+rans` and `kivi4g32+rans`, counted from the rows, and
// `archive1`: all kept components have one step (reverse water-filling), that at which their codes
// take one bit for each value. Every layer has bases and tables of its own, in memory too, though
// they are equal.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "gpu/kernels/rope.h"
#include "proto/kv_shape.h"
#include "proto/model_profile.h"

namespace kedge::bench {

// A part as an engine has it, [block_tokens][kv_heads * head_size] of the shape's dtype; keys are
// turned by `rope`. The same for the same number. kv_heads * head_size is a power of two.
std::vector<uint8_t> MakeCodecPart(const KvShape& shape, Component component, uint64_t number,
                                   const kernels::RopeTable& rope);

// The profile of a model with such parts; it admits nothing.
absl::StatusOr<ModelProfile> MakeCodecProfile(const KvShape& shape, const kernels::RopeTable& rope);

}  // namespace kedge::bench
