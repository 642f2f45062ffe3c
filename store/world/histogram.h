// Counts of durations or sizes in fixed buckets. Lock-free, no allocation; any thread.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/base/internal/raw_logging.h"
#include "store/world/metrics.h"

namespace kedge {

// Seconds, 10 us to 10 s.
inline constexpr std::array<double, 19> kLatencyBucketsSeconds = {
    10e-6, 25e-6, 50e-6,  100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3,
    25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1,      2.5,  5,      10};

class Histogram {
 public:
  static constexpr size_t kBucketsMax = 31;  // and one for what is larger than all bounds

  // `upper_bounds` grow, and outlive the histogram (a constant array).
  explicit Histogram(std::span<const double> upper_bounds = kLatencyBucketsSeconds)
      : upper_bounds_(upper_bounds) {
    ABSL_RAW_CHECK(upper_bounds.size() <= kBucketsMax, "histogram has too many buckets");
    ABSL_RAW_CHECK(std::is_sorted(upper_bounds.begin(), upper_bounds.end()), "bounds must grow");
  }

  void Observe(double value) {
    const auto bound = std::lower_bound(upper_bounds_.begin(), upper_bounds_.end(), value);
    counts_[bound - upper_bounds_.begin()].fetch_add(1, std::memory_order_relaxed);
    sum_.fetch_add(value, std::memory_order_relaxed);
  }
  void ObserveUs(int64_t us) { Observe(static_cast<double>(us) * 1e-6); }

  // What was counted before the call is in the view; what comes meanwhile may be.
  void Visit(MetricsVisitor& visitor, std::string_view name, std::string_view help,
             MetricLabels labels) const {
    std::array<uint64_t, kBucketsMax + 1> counts{};
    const size_t used = upper_bounds_.size() + 1;
    for (size_t i = 0; i < used; ++i) counts[i] = counts_[i].load(std::memory_order_relaxed);
    HistogramView view;
    view.upper_bounds = upper_bounds_;
    view.counts = std::span<const uint64_t>(counts.data(), used);
    view.sum = sum_.load(std::memory_order_relaxed);
    visitor.Histogram(name, help, labels, view);
  }

 private:
  std::span<const double> upper_bounds_;
  std::array<std::atomic<uint64_t>, kBucketsMax + 1> counts_{};
  std::atomic<double> sum_{0};
};

}  // namespace kedge
