// A way of obtaining a context's KV: by computing it, from a store, through a codec, by reuse.
//
// Whatever changes KV is judged here by answers: the harness asks the same questions over every
// policy's KV and over the dense one. A new way is one file with a class of this shape, and a line
// in policies.cc.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/reuse/recompute_plan.h"
#include "gpu/model/kv_cache.h"
#include "gpu/model/model.h"
#include "tests/quality/eval_context.h"

namespace kedge::quality {

// Where KV comes from (the least of all that it was made of).
enum class KvProvenance {
  kDense,       // computed over what really stands before it
  kExact,       // came from a store, and was that
  kCorrected,   // offsets were added (KVCOMM)
  kRecomputed,  // some tokens were computed anew (DHD, CacheBlend, EPIC)
  kMoved,       // computed elsewhere and moved, nothing more
};
const char* KvProvenanceName(KvProvenance provenance);

struct PolicyKv {
  KvCache cache;  // length: the context's tokens; room for `capacity` tokens
  KvProvenance provenance = KvProvenance::kDense;
  bool lossless = true;  // no codec that loses bits had a part in it
  DecodeRepair repair;   // tokens that decoding repairs, in a copy of its own for every question
};

struct PolicyInput {
  const EvalContext& context;
  // The same context's dense KV: for codecs, and to measure against. What a policy of reuse looks
  // at it makes that policy an oracle, and must say so.
  const KvCache& dense;
  int64_t capacity = 0;  // of the cache to return: the context, the longest question and answer
};

class KvPolicy {
 public:
  virtual ~KvPolicy() = default;

  virtual std::string name() const = 0;

  // Once before a task's contexts, for what learns from a consumer's past: `calibration` are
  // contexts of the same task with other seeds. One thread.
  virtual absl::Status Calibrate(Model& model, const std::vector<EvalContext>& calibration) {
    (void)model;
    (void)calibration;
    return absl::OkStatus();
  }

  // Bits a value of the whole blocks of a context of `tokens` tokens takes where it is stored,
  // headers and all; 0 where nothing is encoded. Where sizes depend on what is encoded: the mean
  // over all that Obtain has encoded.
  virtual double BitsPerValue(const Model& model, int64_t tokens) const {
    (void)model;
    (void)tokens;
    return 0.0;
  }

  // The same of blocks that begin no sequence, whose first tokens stay raw: what long contexts come
  // near to. 0 where it is not known.
  virtual double LaterBitsPerValue() const { return 0.0; }

  // Share of the placeholders that Obtain did not compute densely, so far; 0 where no gate decides.
  virtual double AcceptedShare() const { return 0.0; }

  // Operations that Obtain took so far as a share of a dense prefill's, without what a store has
  // computed before; 0 where that is not counted.
  virtual double OperationsShare() const { return 0.0; }

  // Tokens of KV that Obtain took from elsewhere and did not compute through all layers, as a share
  // of all fillings' tokens, which is the most that could be; 0 where that is not counted.
  virtual double ReusedShare() const { return 0.0; }

  // Called by several threads at once, each with a model of its own (all of the same weights).
  virtual absl::StatusOr<PolicyKv> Obtain(Model& model, const PolicyInput& input) const = 0;
};

// The whole context computed from its first token.
absl::StatusOr<KvCache> DenseKv(Model& model, const EvalContext& context, int64_t capacity);

}  // namespace kedge::quality
