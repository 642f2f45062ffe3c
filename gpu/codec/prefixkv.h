// PrefixKV (arXiv 2412.03409, section 3): how many tokens each layer keeps, so that every layer
// keeps the same share of its attention.
//
// "Prefix" is the beginning of a ranking, not of a sequence. A layer's tokens are ranked by
// importance (token_scores.h); its *priority curve* says which share of all importance the first
// share of that ranking holds. Layers differ: some spread their attention over everything, others
// look at little. For a priority p a layer keeps the smallest share of tokens that holds p; the one
// p at which layers keep the budget on average is found by bisection.
//
// Offline (tools/profile_model): curves of samples, averaged. Online: shares follow from the
// profile alone, and only ranking is left to do. The authors average what layers keep at one
// budget; we average curves, so that one profile serves all budgets.
//
// The profile's section `prefixkv`, little endian:
//
//     at  bytes  field
//      0   u16   version   1
//      2   u16   layers
//      4   u16   points    of a curve, 2 to 4097
//      6   u16   0
//      8   u32   samples   that were averaged
//     12   u32   [layers][points]: 0 first, never falling, 2^32 - 1 last
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace kedge::codec {

inline constexpr char kPrefixKvSection[] = "prefixkv";
// The first tokens of a sequence (sinks: part_header.h keeps them raw) and its last one are kept
// whatever their scores.
inline constexpr int64_t kProtectedFirst = 4;
inline constexpr int64_t kProtectedLast = 1;
inline constexpr int64_t kBisections = 60;
inline constexpr int64_t kProfilePoints = 257;

// Equally spaced points from (0, 0) to (1, 1), straight between them; never falls, never gets
// steeper.
using PriorityCurve = std::vector<double>;

// One point more than tokens. All tokens count alike where all importance is 0.
PriorityCurve CurveOf(std::span<const double> importance);
PriorityCurve Resampled(const PriorityCurve& curve, int64_t points);
// The smallest share of tokens that holds `priority`, 0 to 1.
double ShareFor(const PriorityCurve& curve, double priority);

// What each layer keeps, 0 to 1; the mean is `budget` (0 to 1) up to rounding in double. Ends after
// kBisections steps whatever the curves are.
std::vector<double> EqualMassShares(std::span<const PriorityCurve> curves, double budget);

// The same in tokens: multiples of `group`, by largest remainder, at least the protected tokens and
// `least`. The sum is exactly the multiple of `group` that is nearest to budget * layers * tokens
// (or nearest to that among those that there are). InvalidArgument names tokens and group where not
// even the least fits.
absl::StatusOr<std::vector<int64_t>> BudgetRows(std::span<const double> shares, double budget,
                                                int64_t tokens, int64_t group, int64_t least = 0);

// The positions of a layer that are kept, ascending: protected ones and the most important others.
// `rows` must have room for the protected.
std::vector<int32_t> KeptPositions(std::span<const double> importance, int64_t rows);

struct PrefixKvProfile {
  uint32_t samples = 0;
  std::vector<PriorityCurve> curves;  // [layer], all of the same number of points
};

// Averages samples' curves, one Add a sample.
class PrefixKvBuilder {
 public:
  explicit PrefixKvBuilder(int64_t layers);
  void Add(std::span<const PriorityCurve> curves);
  // FailedPrecondition without samples.
  absl::StatusOr<PrefixKvProfile> Build() const;

 private:
  PrefixKvProfile sum_;
};

std::vector<uint8_t> EncodePrefixKv(const PrefixKvProfile& profile);
// Reads hostile bytes; the error names the field and its value.
absl::StatusOr<PrefixKvProfile> DecodePrefixKv(std::span<const uint8_t> bytes);

}  // namespace kedge::codec
