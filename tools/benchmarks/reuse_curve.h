// DHD against the count of its operations, for tools/bench reuse: at 90% reuse and ratio 0.15, and
// at 98% and 0.05.
//
// dhd/reuseN/ttft         one prompt whose first N% are reused, against dense
// dhd/of-bound/reuseN     that speed-up against the one that its operations give
// dhd/count32/reuseN      by count alone, on 32 layers of Llama-3.1-8B's shape
#pragma once

#include "absl/status/status.h"
#include "gpu/model/model.h"
#include "tools/benchmarks/measure.h"

namespace kedge::bench {

absl::Status RunCurve(Model& model, int rounds, Reporter& reporter);

}  // namespace kedge::bench
