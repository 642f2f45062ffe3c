// Expected Attention (arXiv 2510.00636): the attention that queries as they usually are will give a
// key, when nobody knows yet what will be asked.
//
// A model's queries of a head, before rotation, have a mean mu and a covariance S, which its
// profile holds. The next kQueriesAhead positions turn them by R on average: mu' = R mu,
// S' = R S R^T. A key k_j (rotated at its position) then expects
//
//     w_j = softmax_j(k_j . mu' / sqrt(d) + k_j^T S' k_j / (2 d))
//
// and its score is w_j |v_j|, one a query head.
//
// The profile's section `query_stats`, little endian:
//
//     at  bytes  field
//      0   u16   version    1
//      2   u16   layers
//      4   u16   heads      query heads
//      6   u16   head_size  even
//      8   u64   queries    that were counted, for each head
//     16   f32   mean       [layers][heads][head_size]
//          f32   covariance [layers][heads][head_size (head_size + 1) / 2], rows of the lower
//          triangle
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "gpu/codec/token_scores.h"
#include "gpu/kernels/rope.h"
#include "proto/kv_shape.h"

namespace kedge::codec {

inline constexpr char kQueryStatsSection[] = "query_stats";
inline constexpr int64_t kQueriesAhead = 512;
// Of a sample, the first queries are not counted: those of sinks are like no others.
inline constexpr int64_t kQueriesSkipped = 4;

struct QueryStats {
  uint16_t layers = 0;
  uint16_t heads = 0;
  uint16_t head_size = 0;
  uint64_t queries = 0;
  std::vector<float> mean;
  std::vector<float> covariance;

  int64_t triangle() const { return int64_t{head_size} * (head_size + 1) / 2; }
  const float* mean_of(int64_t layer, int64_t head) const {
    return mean.data() + (layer * heads + head) * head_size;
  }
  const float* covariance_of(int64_t layer, int64_t head) const {
    return covariance.data() + (layer * heads + head) * triangle();
  }
};

// Gathers the statistics from samples. Not thread-safe.
class QueryStatsBuilder {
 public:
  QueryStatsBuilder(int64_t layers, int64_t heads, int64_t head_size);

  // Rows of heads * head_size floats, `stride` apart, before rotation (PrefillOptions::on_queries).
  void Add(int64_t layer, const float* queries, int64_t rows, int64_t stride);
  // FailedPrecondition when a layer saw no queries.
  absl::StatusOr<QueryStats> Build() const;

 private:
  const int64_t layers_;
  const int64_t heads_;
  const int64_t head_size_;
  std::vector<uint64_t> queries_;  // [layer]
  std::vector<double> sums_;       // [layer][head][head_size]
  std::vector<double> products_;   // [layer][head][triangle]
};

std::vector<uint8_t> EncodeQueryStats(const QueryStats& stats);
// Reads hostile bytes; the error names the field and its value.
absl::StatusOr<QueryStats> DecodeQueryStats(std::span<const uint8_t> bytes);

// One layer's rotated keys and values, [tokens][kv_heads][head_size] of an f32, f16 or bf16, into
// the scores of the layer; `ahead` are the angles of the positions behind the last token. Aborts
// when the geometries differ: scores.heads is stats.heads, a multiple of kv_heads.
void ExpectedAttentionScores(const QueryStats& stats, int64_t stats_layer, DType dtype,
                             std::span<const uint8_t> keys, std::span<const uint8_t> values,
                             int64_t kv_heads, const kernels::RopeTable& ahead, int64_t layer,
                             TokenScores& scores);

}  // namespace kedge::codec
