// Scores from keys alone, for where an engine gives no attention: nothing needs to be captured.
//
// KeyDiff (arXiv 2504.15364): a key that differs from the others tells more. 1 - cos(k_j, mean of
// k / |k| over the tokens), 0 to 2. Key norm (Devoto et al., arXiv 2406.11430): small keys get much
// attention. The head's largest norm less the key's.
//
// A key that is not finite has NaN for its score, and no part in the others' scores.
//
// Keys are taken as engines keep them, rotated at their positions. Sums in one fixed order, in
// double: every machine gives the same scores.
#pragma once

#include <cstdint>
#include <span>

#include "gpu/codec/token_scores.h"
#include "proto/kv_shape.h"

namespace kedge::codec {

// One layer's keys, [tokens][kv_heads][head_size] of an f32, f16 or bf16, into the scores of the
// layer; scores.heads is kv_heads.
void KeyDiffScores(DType dtype, std::span<const uint8_t> keys, int64_t head_size, int64_t layer,
                   TokenScores& scores);
void KeyNormScores(DType dtype, std::span<const uint8_t> keys, int64_t head_size, int64_t layer,
                   TokenScores& scores);

}  // namespace kedge::codec
