// How far a policy's KV leads attention astray, layer by layer.
//
// The queries of one question's and its answer's tokens, as they are over dense KV, are put to a
// policy's keys and values of the context (and to the dense ones of their own tokens). The error of
// a layer is |o - o'| / |o|, o the dense output of one head for one token, in the mean over heads
// and tokens. Since every layer gets dense queries, errors do not add up over layers: this is what
// the codec does, apart from what the model makes of it.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "gpu/model/kv_cache.h"
#include "gpu/model/model.h"
#include "tests/quality/eval_context.h"

namespace kedge::quality {

class AttentionProbe {
 public:
  // Runs the question over `dense`, whose length is the context's and stays so.
  static absl::StatusOr<AttentionProbe> Record(Model& model, KvCache& dense,
                                               const EvalContext& context,
                                               const EvalQuestion& question);

  // One error a layer. `cache` holds the context, of the same model; it may be pruned.
  std::vector<double> ErrorsOf(Model& model, const KvCache& cache) const;

 private:
  struct Layer {
    std::vector<float> queries;  // [rows, heads * head_size]
    std::vector<uint8_t> keys;   // of the question's tokens
    std::vector<uint8_t> values;
    std::vector<float> outputs;  // over dense KV
  };

  std::vector<float> OutputsOf(Model& model, const KvCache& cache, size_t layer) const;

  std::vector<Layer> layers_;
  int64_t rows_ = 0;
};

}  // namespace kedge::quality
