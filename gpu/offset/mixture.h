// The soft mixture of anchors' offsets (KVCOMM, arXiv 2510.12872, Eq. 5 to 7), in parts that merge.
//
//     weight of anchor i = softmax over i of (-sharpness * distance_i / scale)
//
// A mix is kept as largest logit, sum of e, and sum of e * offset, as in online softmax: mixes of
// disjoint sets of anchors, made by different nodes, merge to the mix of all of them, whatever the
// order, up to fp32 rounding. Distances are those of sketches. `scale` is the pool's, so that one
// sharpness serves every model and placeholder.
//
// Sums are fp32. An anchor that is longer than the filling gives its first tokens; the prefix
// offset behind it is whole.
#pragma once

#include <cstdint>
#include <vector>

#include "gpu/offset/kv_rows.h"
#include "gpu/offset/sketch.h"

namespace kedge::offset {

// Where a filling's tokens take their weights from.
enum class Weighting {
  kFilling,  // one weight an anchor, as in the paper
  kToken,    // by each token's own distance, as in the paper's code; prefix rows as kFilling
  kNearest,  // the nearest anchor alone (ablation)
  kMean,     // all alike (ablation)
};

struct MixOptions {
  Weighting weighting = Weighting::kFilling;
  double sharpness = 1.0;
  double scale = 1.0;  // positive
};

class Mix {
 public:
  // Of a filling of `tokens` tokens and a prefix segment of `prefix_tokens`; no anchor yet.
  Mix(int64_t layers, int64_t tokens, int64_t prefix_tokens, int64_t width);

  // One anchor of at least `tokens` tokens, whose prefix segment has prefix_tokens. Aborts when
  // shapes differ.
  void Add(const MixOptions& options, const Sketch& filling, const Sketch& anchor,
           const KvRows& filling_offset, const KvRows& prefix_offset);
  // The same without its offsets: for what is known of the weights alone. A mix is of one kind.
  void Weigh(const MixOptions& options, const Sketch& filling, const Sketch& anchor);
  // Takes in what another mix of the same shape has seen. Aborts when the shapes differ.
  void Merge(const Mix& other);

  int64_t anchors() const { return anchors_; }
  // Of the weights of whole fillings, in nats: what the gate looks at. 0 with one anchor or none.
  double entropy() const;
  // Mean distance of the nearest anchor, in units of scale; infinity without anchors.
  double nearest() const { return nearest_; }
  // Weighted means. Zeros without anchors.
  KvRows FillingOffset() const;
  KvRows PrefixOffset() const;

 private:
  // A softmax that is not finished.
  struct Sum {
    float max_logit = 0;
    float e = 0;        // sum of exp(logit - max_logit); 0: nothing yet
    float e_logit = 0;  // sum of exp(logit - max_logit) * (logit - max_logit)
  };
  struct Factors {
    float kept = 0;   // what stood there is multiplied with it
    float added = 0;  // what comes is
  };
  static Factors Join(Sum& sum, const Sum& other);
  static Sum One(double logit) { return {static_cast<float>(logit), 1.0f, 0.0f}; }

  int64_t anchors_ = 0;
  double nearest_;
  Sum gate_;               // of whole fillings, whatever the weighting
  std::vector<Sum> sums_;  // of each token; the last one is the prefix segment's
  KvRows filling_;         // sums of e * offset
  KvRows prefix_;
};

// The twin of Add over several anchors at once, for the keys or the values of one layer: a softmax
// over anchors for each token. It agrees within 1e-5 of the largest offset; what it makes of
// disjoint sets of anchors merges as mixes do (BlendRowsCuda, by max_logit and e). All pointers are
// device memory.
struct MixRowsArgs {
  const float* const* offsets = nullptr;  // [anchors]: rows of one, [tokens or more][width]
  const float* logits = nullptr;          // [anchors][tokens]: -sharpness * distance / scale
  int64_t anchors = 0;
  int64_t tokens = 0;
  int64_t width = 0;
  bool mean = false;           // rows become weighted means, not sums
  float* rows = nullptr;       // [tokens][width]: sums of e * offset; zeros without anchors
  float* max_logit = nullptr;  // [tokens], or null
  float* e = nullptr;          // [tokens]: sum of exp(logit - max_logit), or null
};
void MixRowsCuda(const MixRowsArgs& args, void* stream);

}  // namespace kedge::offset
