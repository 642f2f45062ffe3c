// When reuse is worth its time: pure functions of measured rates, in seconds. Rates are measured on
// the machine at hand (a prefill by the same runner, a fetch from the tier that holds the donor);
// nothing here knows a machine.
#pragma once

#include <cstdint>

namespace kedge {

// --- Lossy: loading donors and computing some tokens anew, against computing everything. ---

struct BlendRates {
  int64_t layers = 0;
  int64_t check_layer = 0;         // layers before it are computed in full, and not loaded
  double compute_layer = 0.0;      // all tokens of this prompt through one layer
  double load_layer = 0.0;         // the reused tokens' KV of one layer
  double load_start = 0.0;         // before the first byte
  double projection_share = 0.25;  // of a layer's operations: queries, keys, values
  double new_share = 0.0;          // of the prompt's tokens: those that no donor has, 0 to 1
  double floor_ratio = 0.15;       // of reused tokens: below it the model's answers suffer
};

struct BlendChoice {
  bool blend = false;  // false: dense ends as soon, or sooner
  double ratio = 0.0;
  double seconds = 0.0;  // of blending at that ratio
  double dense_seconds = 0.0;
};

// The time that blending takes at a ratio: layer i is computed once it is loaded, and loaded while
// the layers before it are computed.
double BlendSeconds(const BlendRates& rates, double ratio);

// CacheBlend's controller (arXiv 2405.16444): the ratio at which a layer's recompute takes as long
// as its load, since less would only wait; never below the floor. `blend` is false where that does
// not end before dense does.
BlendChoice ChooseBlend(const BlendRates& rates);

// --- Lossless: an exact hit, computed from the front while it is loaded from the back. ---

struct CakeRates {
  double compute_block = 0.0;   // the first block
  double compute_growth = 0.0;  // more for every block before it: attention
  double load_block = 0.0;
  double load_start = 0.0;  // before the first byte
};

struct CakePlan {
  int64_t computed = 0;  // the first blocks
  int64_t loaded = 0;    // the others, to be loaded last block first
  double seconds = 0.0;
};

double CakeComputeSeconds(const CakeRates& rates, int64_t blocks);  // of the first `blocks`
double CakeLoadSeconds(const CakeRates& rates, int64_t blocks);

// Cake (arXiv 2410.03065): the split at which both ends meet soonest. Of equally fast splits the
// one that computes least; 0 computed is a plain load, all computed a plain prefill. What is
// computed stands before all that is loaded and sees nothing of it: the result is exact.
CakePlan PlanCake(int64_t blocks, const CakeRates& rates);

}  // namespace kedge
