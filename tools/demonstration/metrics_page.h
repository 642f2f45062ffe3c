// Reads a node's /metrics: Prometheus' text format, as far as a node writes it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace kedge {

struct MetricSample {
  std::string name;
  std::string labels;  // as they stand: `op="match",tier="ssd"`; "" for none
  double value = 0;
};

// Lines that are no samples are skipped.
std::vector<MetricSample> ParseMetrics(std::string_view page);

// From http://ADDRESS/metrics; ADDRESS is "host:port", with or without "http://". Unavailable names
// it.
absl::StatusOr<std::vector<MetricSample>> ReadMetrics(const std::string& address);

// Sum of the samples of this name whose labels have all of `labels` (`tier="ssd"`); 0 when there is
// none.
double SumOf(const std::vector<MetricSample>& samples, std::string_view name,
             const std::vector<std::string>& labels = {});

}  // namespace kedge
