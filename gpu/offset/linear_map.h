// Offsets by a linear map: the policy `linear`, past the paper.
//
// For one consumer and placeholder, and each layer from 1 on, a matrix takes a token's base K and V
// (not rotated), a constant and the token's place in its run, and gives its offset of K and V.
// Fitted by ridge regression, online and exactly: what is kept are the sums x x' and x y'
// (recursive least squares in information form), in fp64. So
// - size does not grow with what was seen: features * (features + 2 width) numbers a layer;
// - sums of disjoint requests add up, whatever the order: concurrent updates lose nothing, and maps
//   learnt on several nodes merge;
// - the map is solved when it is asked for, by Cholesky, and cut to `rank` by the outputs' leading
//   directions (reduced-rank regression, Izenman 1975), so that what travels is
//   rank * (features + 2 width) numbers a layer.
//
// Before a run is learnt its offsets are predicted with what is known so far: the errors of those
// predictions are errors on unseen data. Nothing needs to be held out.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "gpu/offset/kv_rows.h"

namespace kedge::offset {

// Of a token, beside its base K and V: a constant, and two of the token's place.
inline constexpr int64_t kExtraFeatures = 3;

struct LinearOptions {
  double ridge = 1e-2;  // times the mean square of a feature, times tokens seen
  int64_t rank = 0;     // 0: full
  double forget = 1.0;  // what is known is multiplied with it at each update
};

// A map that is solved: immutable, any thread.
class LinearMap {
 public:
  // Offsets of a run with this base; the shape that was learnt (any number of tokens). Layer 0 is
  // zeros. Aborts when layers or width differ.
  KvRows Predict(const KvRows& base) const;
  int64_t rank() const { return rank_; }
  // The matrices of a layer from 1 on: [features][rank] and [rank][2 width]; at full rank, which is
  // 0, [features][2 width] and nothing.
  std::span<const float> in(int64_t layer) const { return in_[layer - 1]; }
  std::span<const float> out(int64_t layer) const {
    return rank_ == 0 ? std::span<const float>() : out_[layer - 1];
  }

 private:
  friend class LinearFit;
  int64_t layers_ = 0;
  int64_t width_ = 0;
  int64_t features_ = 0;
  int64_t rank_ = 0;
  // [layers - 1] of [features][rank] and [rank][2 width]; without the second at full rank.
  std::vector<std::vector<float>> in_;
  std::vector<std::vector<float>> out_;
};

// The twin of Predict, one layer: within 1e-5 of the largest offset. All pointers are device
// memory.
struct LinearMapArgs {
  const float* keys = nullptr;  // base: [tokens][width], not rotated
  const float* values = nullptr;
  const float* in = nullptr;   // LinearMap::in
  const float* out = nullptr;  // LinearMap::out; not looked at when rank is 0
  int64_t tokens = 0;
  int64_t width = 0;
  int64_t rank = 0;
  float* scratch = nullptr;      // [tokens][rank]
  float* key_offsets = nullptr;  // [tokens][width]
  float* value_offsets = nullptr;
};
void LinearMapCuda(const LinearMapArgs& args, void* stream);

// What is known. One thread at a time.
class LinearFit {
 public:
  LinearFit(int64_t layers, int64_t width, const LinearOptions& options);

  // Runs of the same shape but for their length: dense KV and base of the same tokens. Aborts when
  // layers or width differ.
  void Update(const KvRows& base, const KvRows& offset);
  // Takes in another's sums. Aborts when the shapes differ.
  void Merge(const LinearFit& other);
  LinearMap Solve() const;

  int64_t tokens() const { return tokens_; }
  int64_t runs() const { return runs_; }
  // Of the numbers that are kept, 8 bytes each.
  int64_t bytes() const;

 private:
  LinearOptions options_;
  int64_t layers_;
  int64_t width_;
  int64_t features_;
  int64_t tokens_ = 0;
  int64_t runs_ = 0;
  // [layers - 1] of [features][features] and [features][2 width].
  std::vector<std::vector<double>> xx_;
  std::vector<std::vector<double>> xy_;
};

}  // namespace kedge::offset
