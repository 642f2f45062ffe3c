// What capturing attention scores for pruning costs a prefill: cases of tools/bench codec.
//
// scores/capture/W  a prefill of 1024 tokens that captures the attention of the last W queries,
//                   against the same prefill without; scores/columns: of every query, as profiling
//                   does (not with `quick`). CPU time of one thread on both sides.
#pragma once

#include "absl/status/status.h"
#include "tools/benchmarks/measure.h"

namespace kedge::bench {

absl::Status BenchCapture(bool quick, Reporter& reporter);

}  // namespace kedge::bench
