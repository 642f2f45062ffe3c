// Learns from samples what pruned chains need to know of a model: the sections `prefixkv` and
// `query_stats` of its profile (gpu/codec/prefixkv.h, expected_attention.h).
//
//     PruneProfiler profiler(*model);
//     for (const auto& tokens : samples) status = profiler.Add(*model, tokens);
//     auto sections = profiler.Build();
//
// Offline: scores are the exact attention of every query. About ten samples settle it.
#pragma once

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gpu/codec/pruned_chain.h"
#include "gpu/model/model.h"

namespace kedge {

class PruneProfiler {
 public:
  explicit PruneProfiler(const Model& model);

  // Prefills the sample, of the same model. Errors as Model::Prefill's.
  absl::Status Add(Model& model, std::span<const int32_t> tokens);

  // FailedPrecondition without samples of more than codec::kQueriesSkipped tokens.
  absl::StatusOr<codec::PruneProfile> Build() const;

 private:
  codec::PrefixKvBuilder budgets_;
  codec::QueryStatsBuilder queries_;
};

}  // namespace kedge
