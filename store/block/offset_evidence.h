// What a pool says of itself and of a filling that it is asked about: everything that a gate looks
// at, in some hundred bytes, so that it travels.
#pragma once

#include <cstdint>

namespace kedge {

// How well a pool predicts what it holds, each run from the others (anchors) or before it was
// learnt (a map): shares of the offsets' squares that are left, of all tokens and of the worst
// hundredth of them.
struct PoolErrorShares {
  int64_t predicted = 0;  // runs; 0: nothing is known
  double filling = 0;
  double filling_worst = 0;
  double prefix = 0;
  double prefix_worst = 0;
};

struct OffsetEvidence {
  int64_t runs = 0;      // anchors, or contexts that a map was fitted on
  int64_t longest = 0;   // tokens of the longest anchor; of a map: no limit
  int64_t eligible = 0;  // anchors as long as the filling
  bool same = false;     // an anchor of this very filling behind the very same text
  bool linear = false;   // no anchors: length, entropy and distance do not apply
  double entropy = 0;    // nats
  double nearest = 0;    // in the pool's mean distances
  PoolErrorShares error;
};

}  // namespace kedge
