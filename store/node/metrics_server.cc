#include "store/node/metrics_server.h"

#include <prometheus/collectable.h>
#include <prometheus/exposer.h>
#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <exception>
#include <limits>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace kedge {
namespace {

// Builds prometheus-cpp's families from what the parts say.
class FamilyBuilder final : public MetricsVisitor {
 public:
  void Counter(std::string_view name, std::string_view help, MetricLabels labels,
               double value) override {
    Add(name, help, prometheus::MetricType::Counter, labels).counter.value = value;
  }
  void Gauge(std::string_view name, std::string_view help, MetricLabels labels,
             double value) override {
    Add(name, help, prometheus::MetricType::Gauge, labels).gauge.value = value;
  }
  void Histogram(std::string_view name, std::string_view help, MetricLabels labels,
                 const HistogramView& view) override {
    prometheus::ClientMetric& metric = Add(name, help, prometheus::MetricType::Histogram, labels);
    uint64_t sum = 0;
    for (size_t i = 0; i < view.counts.size(); ++i) {
      sum += view.counts[i];
      const double bound = i < view.upper_bounds.size() ? view.upper_bounds[i]
                                                        : std::numeric_limits<double>::infinity();
      metric.histogram.bucket.push_back({sum, bound});
    }
    metric.histogram.sample_count = sum;
    metric.histogram.sample_sum = view.sum;
  }
  std::vector<prometheus::MetricFamily> Take() { return std::move(families_); }

 private:
  prometheus::ClientMetric& Add(std::string_view name, std::string_view help,
                                prometheus::MetricType type, MetricLabels labels) {
    auto [found, fresh] = places_.try_emplace(std::string(name), families_.size());
    if (fresh) {
      families_.push_back({std::string(name), std::string(help), type, {}});
    }
    prometheus::ClientMetric& metric = families_[found->second].metric.emplace_back();
    for (const auto& [label, value] : labels) {
      metric.label.push_back({std::string(label), std::string(value)});
    }
    return metric;
  }

  std::vector<prometheus::MetricFamily> families_;
  std::map<std::string, size_t> places_;
};

class NodeCollectable final : public prometheus::Collectable {
 public:
  explicit NodeCollectable(const Node& node) : node_(node) {}
  std::vector<prometheus::MetricFamily> Collect() const override {
    FamilyBuilder builder;
    node_.VisitMetrics(builder);
    return builder.Take();
  }

 private:
  const Node& node_;
};

class MetricsServerImpl final : public MetricsServer {
 public:
  explicit MetricsServerImpl(const Node& node)
      : collectable_(std::make_shared<NodeCollectable>(node)) {}

  absl::Status Open(const std::string& address) {
    try {
      exposer_ = std::make_unique<prometheus::Exposer>(address, /*num_threads=*/1);
    } catch (const std::exception& error) {
      return absl::AlreadyExistsError(absl::StrCat(
          "metrics: ", address, " cannot be bound; is it in use? (", error.what(), ")"));
    }
    exposer_->RegisterCollectable(collectable_);
    const std::vector<int> ports = exposer_->GetListeningPorts();
    address_ =
        absl::StrCat(address.substr(0, address.rfind(':')), ":", ports.empty() ? 0 : ports.front());
    return absl::OkStatus();
  }
  const std::string& address() const override { return address_; }

 private:
  std::shared_ptr<NodeCollectable> collectable_;
  std::unique_ptr<prometheus::Exposer> exposer_;
  std::string address_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(const Node& node,
                                                                    const std::string& address) {
  auto server = std::make_unique<MetricsServerImpl>(node);
  if (absl::Status status = server->Open(address); !status.ok()) return status;
  return server;
}

std::string MetricsText(const Node& node) {
  FamilyBuilder builder;
  node.VisitMetrics(builder);
  return prometheus::TextSerializer().Serialize(builder.Take());
}

}  // namespace kedge
