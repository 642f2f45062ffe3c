// KV of a run of tokens as numbers to calculate with: fp32, keys not rotated.
//
// What offsets are made of (KVCOMM, arXiv 2510.12872, section 3.2): the KV of a text in its context
// less the KV of the same text computed alone, keys of both turned back to position 0. A difference
// of turned-back keys may be added at any position: rotation is linear.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "proto/kv_shape.h"

namespace kedge::offset {

struct KvRows {
  int64_t layers = 0;
  int64_t tokens = 0;
  int64_t width = 0;  // kv_heads * head_size
  // [layers][tokens][width]
  std::vector<float> keys;
  std::vector<float> values;

  // Zeros.
  static KvRows Of(int64_t layers, int64_t tokens, int64_t width);

  bool SameShape(const KvRows& other) const {
    return layers == other.layers && tokens == other.tokens && width == other.width;
  }
  std::span<float> Key(int64_t layer, int64_t token) { return Row(keys, layer, token); }
  std::span<float> Value(int64_t layer, int64_t token) { return Row(values, layer, token); }
  std::span<const float> Key(int64_t layer, int64_t token) const { return Row(keys, layer, token); }
  std::span<const float> Value(int64_t layer, int64_t token) const {
    return Row(values, layer, token);
  }

 private:
  std::span<float> Row(std::vector<float>& array, int64_t layer, int64_t token) const {
    return {array.data() + (layer * tokens + token) * width, static_cast<size_t>(width)};
  }
  std::span<const float> Row(const std::vector<float>& array, int64_t layer, int64_t token) const {
    return {array.data() + (layer * tokens + token) * width, static_cast<size_t>(width)};
  }
};

// `real` less `base`; the rows of layer 0 are zeros, whatever they hold: its KV depends on the
// token alone, so what differs there is rounding. Aborts when the shapes differ.
KvRows OffsetOf(const KvRows& real, const KvRows& base);

// base += offset, but for layer 0. Aborts when the shapes differ.
void AddOffset(const KvRows& offset, KvRows& base);

// The twin of AddOffset and of what follows it where rows are placed (kernels::Rope at the rows'
// true positions, kernels::CastFromFloat), in one pass: the keys or the values of one layer, to
// pages.
// All pointers are device memory. The CPU's bits where the CPU does not fuse products with sums.
struct PlaceRowsArgs {
  DType dtype = DType::kF16;      // of base and target: f32, f16 or bf16
  const void* base = nullptr;     // [tokens][heads * head_size], keys not rotated
  const float* offset = nullptr;  // the same shape; null: moved, not corrected
  const float* cos = nullptr;     // [tokens][head_size / 2]: a RopeTable's; null for values
  const float* sin = nullptr;
  uint8_t* const* rows = nullptr;  // [tokens]: where each token's row goes
  int64_t tokens = 0;
  int64_t heads = 0;
  int64_t head_size = 0;  // even
};
void PlaceRowsCuda(const PlaceRowsArgs& args, void* stream);

// What a prediction of offsets leaves, in sums that add up over runs.
struct OffsetError {
  double left = 0;     // squares of real offset less predicted offset
  double offsets = 0;  // squares of the real offset
  int64_t tokens = 0;
  // Of each token: the same share, against the mean token of its run.
  std::vector<float> by_token;

  // Share of the offsets' squares that is left; 1 where nothing was predicted, may be more.
  double share() const { return offsets > 0 ? left / offsets : 0; }
  // The token with the `quantile` largest error: what a mean over many harmless tokens hides.
  double TokenShare(double quantile) const;
  void Add(const OffsetError& other);
};

// Values and keys weigh alike in each layer: both are measured against their own offset. Aborts
// when the shapes differ.
OffsetError ErrorOf(const KvRows& predicted, const KvRows& real);

}  // namespace kedge::offset
