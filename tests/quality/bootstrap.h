// A confidence interval for a mean over questions that were asked in clusters.
//
// Questions of one context share its KV, so they are not independent: the paired bootstrap draws
// whole clusters with replacement (Efron and Tibshirani, "An Introduction to the Bootstrap",
// chapter 8; percentile interval). Differences between two policies on the same question go in as
// one value: that is the pairing.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace kedge::quality {

struct ClusteredValue {
  std::string cluster;
  double value = 0;
};

struct Interval {
  double mean = 0;
  double low = 0;   // 2.5%
  double high = 0;  // 97.5%
  int64_t values = 0;
  int64_t clusters = 0;

  double width() const { return high - low; }
};

// Deterministic: the draws are seeded by nothing but their number. All zero when there are no
// values; low = high = mean when there is one cluster, or when no two clusters differ.
Interval Bootstrap(const std::vector<ClusteredValue>& values, int draws = 2000);

}  // namespace kedge::quality
