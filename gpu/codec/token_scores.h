// How much each token of a sequence matters, as one number a layer and head: what pruning ranks by.
//
// Where they come from: attention (score_sidecar.h), keys alone (key_scores.h), queries as they
// usually are (expected_attention.h). What is made of them: prefixkv.h, kvcrush.h.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace kedge::codec {

struct TokenScores {
  int64_t layers = 0;
  int64_t heads = 0;  // query heads, or KV heads where only keys are looked at
  int64_t tokens = 0;
  std::vector<float> values;  // [layers][heads][tokens], 0 or more

  static TokenScores Zeros(int64_t layers, int64_t heads, int64_t tokens);

  std::span<float> of(int64_t layer, int64_t head) {
    return {values.data() + (layer * heads + head) * tokens, static_cast<size_t>(tokens)};
  }
  std::span<const float> of(int64_t layer, int64_t head) const {
    return {values.data() + (layer * heads + head) * tokens, static_cast<size_t>(tokens)};
  }
};

// One number a token of a layer: each head's scores divided by their sum, so that no head speaks
// louder than another, then the mean over heads; it adds up to 1. A head of zeros counts all tokens
// alike.
std::vector<double> LayerImportance(const TokenScores& scores, int64_t layer);

// Indices from the largest value to the smallest; of equal ones the first comes first.
std::vector<int32_t> Ranked(std::span<const double> values);

}  // namespace kedge::codec
