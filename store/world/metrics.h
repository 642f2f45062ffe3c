// Numbers as an argument: parts report to a visitor and know no exporter.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <utility>

namespace kedge {

using MetricLabels = std::span<const std::pair<std::string_view, std::string_view>>;

// Counts per bucket as Prometheus wants them: upper bounds in seconds (or bytes), counts not yet
// summed up.
struct HistogramView {
  std::span<const double> upper_bounds;
  std::span<const uint64_t> counts;  // one more than bounds: the last is +Inf
  double sum = 0;
};

// Names are full ("kedge_requests_total"); the same name always comes with the same help text and
// label names.
class MetricsVisitor {
 public:
  virtual ~MetricsVisitor() = default;
  virtual void Counter(std::string_view name, std::string_view help, MetricLabels labels,
                       double value) = 0;
  virtual void Gauge(std::string_view name, std::string_view help, MetricLabels labels,
                     double value) = 0;
  virtual void Histogram(std::string_view name, std::string_view help, MetricLabels labels,
                         const HistogramView& view) = 0;
};

}  // namespace kedge
