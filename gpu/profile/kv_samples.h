// What a profile is made from: keys and values of sample texts, and what looks at them.
//
// Keys are un-rotated, as lossy codecs see them. A *metric* says which errors of a key or a value
// matter, in one matrix for each KV head:
//
//   keys    sum over queries and the keys that they see of w q~ q~^T, where q~ is the query turned
//           back by the key's angles, so that (q~ . error) is the error of the logit. The weight w
//           = a^2 |v - out|^2 is how much an error of this logit moves the attention's output
//           (a: the attention that the key gets). Four keys a query are drawn by w.
//   values  sum over the heads of the group of a^2 W^T W, W being the head's columns of the output
//           projection: an error of a value, as the residual stream sees it.
//
// The first tokens of a sequence are left out: codecs keep them raw.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gpu/model/model.h"
#include "proto/kv_shape.h"

namespace kedge::profile {

struct PartSamples {
  std::vector<float> rows;     // [tokens][kv_heads * head_size]
  std::vector<double> metric;  // [kv_heads][head_size][head_size]
};

struct KvSamples {
  int64_t layers = 0;
  int64_t kv_heads = 0;
  int64_t head_size = 0;
  int64_t tokens = 0;
  std::vector<PartSamples> parts;  // [layers][k, v]

  int64_t width() const { return kv_heads * head_size; }
  PartSamples& part(int64_t layer, Component component) {
    return parts[layer * 2 + (component == Component::kV ? 1 : 0)];
  }
};

// One layer's output projection, [hidden][heads * head_size], as the checkpoint has it.
using OutputProjections = std::vector<std::vector<float>>;
absl::StatusOr<OutputProjections> ReadOutputProjections(const std::string& directory,
                                                        const ModelConfig& config);

// Runs texts through a model and collects. Not thread-safe.
class KvSampler {
 public:
  // `projections` must outlive the sampler. At most `tokens_max` tokens are kept.
  KvSampler(Model& model, const OutputProjections& projections, int64_t tokens_max);

  // Computes `context` and, behind it, each of `continuations` (questions with their answers; may
  // be none). Rows are taken of the context; every query counts in the metrics.
  absl::Status Add(std::span<const int32_t> context,
                   std::span<const std::vector<int32_t>> continuations);

  // Of all that was added; the sampler is empty afterwards.
  KvSamples Take();

 private:
  void TakeRows(const KvCache& cache, int64_t tokens);
  void Observe(int64_t layer, const kernels::AttentionArgs& attention);
  // One query head: its attention over the keys, and what follows for the metrics.
  void ObserveHead(int64_t layer, int64_t head, const float* query, int64_t keys);

  Model& model_;
  const OutputProjections& projections_;
  const int64_t tokens_max_;
  KvSamples samples_;
  std::vector<double> attention_squared_;  // [layers][heads]
  kernels::RopeTable rope_;                // of all positions seen so far
  uint64_t random_ = 0x9e3779b97f4a7c15u;
  // Of the layer that is looked at: [keys][kv_heads * head_size].
  std::vector<float> keys_;
  std::vector<float> values_;
  float scale_ = 1.0f;
};

}  // namespace kedge::profile
