#include "client/reuse/reuse_rates.h"

namespace kedge {

double ForwardSeconds(const ReuseRates& rates, std::span<const TimedRun> runs,
                      const RecomputeConfig& config) {
  // Rows of each kind, and the keys that they see.
  double rows = 0;
  double keys = 0;
  double chosen_rows = 0;
  double chosen_keys = 0;
  for (const TimedRun& run : runs) {
    const auto count = static_cast<double>(run.count);
    const double seen = count * (static_cast<double>(run.first) + (count + 1) / 2);
    if (run.kind == TimedRun::Kind::kComputed) {
      rows += count;
      keys += seen;
    } else if (run.kind == TimedRun::Kind::kChosenFrom) {
      chosen_rows += count;
      chosen_keys += seen;
    }
  }
  double seconds = rates.start + rows * rates.token + keys * rates.token_key;
  if (chosen_rows == 0) return seconds;
  if (config.policy == RecomputePolicy::kNone || config.ratio <= 0) return seconds;
  const auto layers = static_cast<double>(rates.layers);
  const double full = config.policy == RecomputePolicy::kEpic
                          ? 0.0
                          : static_cast<double>(config.check_layer) / layers;
  const double share = full + (1.0 - full) * config.ratio;
  // Of the check layer's projection all rows have a part.
  const double compared = config.policy == RecomputePolicy::kEpic
                              ? 0.0
                              : (1.0 - config.ratio) * rates.projection_share / layers;
  seconds += chosen_rows * rates.token * (share + compared) + chosen_keys * rates.token_key * share;
  return seconds;
}

}  // namespace kedge
