// How long each treatment of a segment takes, from rates that were measured on the machine at hand.
#pragma once

#include <cstdint>
#include <span>

#include "client/reuse/recompute_plan.h"

namespace kedge {

// Seconds; of one model on one machine, and one store.
struct ReuseRates {
  int64_t layers = 1;
  double start = 0;                // of any forward pass
  double token = 0;                // a token through all layers, but for its attention
  double token_key = 0;            // its attention to one key, all layers
  double projection_share = 0.25;  // of `token`: queries, keys, values
  double place = 0;                // a moved token: its keys rotated, all written
  double correct = 0;              // a corrected token: offset added, placed
  double load_byte = 0;            // from the store
  double load_start = 0;           // before the first byte
};

// A run of a prompt by what is done with its rows.
struct TimedRun {
  enum class Kind : uint8_t { kComputed, kFixed, kChosenFrom };
  Kind kind = Kind::kComputed;
  int64_t first = 0;
  int64_t count = 0;
};

// Of the forward pass alone: computed rows through all layers, those that a policy chooses from
// through the layers before the check layer and then their share.
double ForwardSeconds(const ReuseRates& rates, std::span<const TimedRun> runs,
                      const RecomputeConfig& config);

}  // namespace kedge
