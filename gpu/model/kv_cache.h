// The keys and values of one sequence, as the runner reads and writes them.
//
// Each layer has one array of keys and one of values, [capacity][kv_heads][head_size] in the
// cache's dtype, tokens contiguous. Keys are stored rotated at their true positions, as engines
// keep them. So a block's part (proto/kv_shape.h) is one contiguous span, and moving KV to and from
// a store is a copy of `PartSpan`, without any conversion.
//
// `length()` tokens from the front are valid. Filling tokens from elsewhere is: write their parts,
// then `set_length`. The memory is the device's; on the CPU device spans may be read and written
// directly. Not thread-safe, but different layers may be filled and read by different threads.
//
// A cache may be *pruned* (gpu/codec/pruned_chain.h): of its first tokens each layer holds only
// some, in ascending order, and the tokens behind them one after the other. `length()` still counts
// the sequence's tokens, so new ones stand at their true positions; `rows(layer)` counts what the
// layer holds. A row of PartSpan is then no longer the token's index. Filling one is:
// `SetPruned`, then write each layer's first rows.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gpu/device/device.h"
#include "proto/kv_shape.h"

namespace kedge {

class KvCache {
 public:
  struct Geometry {
    int64_t layers = 0;
    int64_t kv_heads = 0;
    int64_t head_size = 0;
    DType dtype = DType::kF32;  // f32, f16 or bf16
  };

  // Room for `capacity` tokens. The device must outlive the cache. ResourceExhausted when the
  // memory is refused, InvalidArgument for a geometry or capacity that is not positive.
  static absl::StatusOr<KvCache> Create(Device& device, const Geometry& geometry, int64_t capacity);

  int64_t length() const { return length_; }
  // Aborts outside [0, capacity()], and in a pruned cache below pruned_tokens(). Shortening forgets
  // the tokens at the end.
  void set_length(int64_t length);

  // Makes this a cache of the first `tokens` tokens of a sequence, of which a layer holds those at
  // the positions kept[layer]; their rows are the caller's to write. InvalidArgument names layer
  // and position when there is not one list a layer or a list does not ascend inside [0, tokens),
  // OutOfRange when tokens pass the capacity; the cache is as it was then.
  absl::Status SetPruned(int64_t tokens, std::vector<std::vector<int32_t>> kept);
  bool pruned() const { return !kept_.empty(); }
  // The tokens that may be missing are those before this one; 0 when nothing was pruned.
  int64_t pruned_tokens() const { return pruned_tokens_; }
  // Positions of the layer's first rows, where pruned() is true.
  std::span<const int32_t> kept(int64_t layer) const { return kept_[layer]; }
  // Rows of the layer for a sequence of `tokens` tokens, at least pruned_tokens(); `tokens` itself
  // when nothing was pruned.
  int64_t RowsFor(int64_t layer, int64_t tokens) const {
    if (kept_.empty()) return tokens;
    return tokens - pruned_tokens_ + static_cast<int64_t>(kept_[layer].size());
  }
  int64_t rows(int64_t layer) const { return RowsFor(layer, length_); }

  int64_t capacity() const { return capacity_; }
  const Geometry& geometry() const { return geometry_; }
  // Bytes of one token in one part.
  int64_t token_bytes() const { return token_bytes_; }

  // The bytes of tokens [first_token, first_token + tokens) in one layer, of rows in a pruned
  // cache; `component` is kK or kV. They may lie beyond length(), but not beyond capacity(). Aborts
  // on arguments out of range.
  std::span<uint8_t> PartSpan(int64_t layer, Component component, int64_t first_token,
                              int64_t tokens);
  std::span<const uint8_t> PartSpan(int64_t layer, Component component, int64_t first_token,
                                    int64_t tokens) const;

 private:
  KvCache() = default;
  int64_t Offset(int64_t layer, Component component, int64_t first_token, int64_t tokens) const;

  Geometry geometry_;
  int64_t capacity_ = 0;
  int64_t token_bytes_ = 0;
  int64_t length_ = 0;
  int64_t pruned_tokens_ = 0;
  std::vector<std::vector<int32_t>> kept_;  // [layer]; empty when nothing was pruned
  DeviceBuffer memory_;                     // [layers][k, v][capacity][kv_heads][head_size]
};

}  // namespace kedge
