#include "tests/quality/bootstrap.h"

#include <algorithm>
#include <map>

#include "gpu/kernels/sampling.h"

namespace kedge::quality {
namespace {

struct Cluster {
  double sum = 0;
  double count = 0;
};

}  // namespace

Interval Bootstrap(const std::vector<ClusteredValue>& values, int draws) {
  Interval interval;
  std::map<std::string, Cluster> by_name;
  for (const ClusteredValue& value : values) {
    Cluster& cluster = by_name[value.cluster];
    cluster.sum += value.value;
    cluster.count += 1;
  }
  interval.values = static_cast<int64_t>(values.size());
  interval.clusters = static_cast<int64_t>(by_name.size());
  if (values.empty()) return interval;
  std::vector<Cluster> clusters;
  Cluster all;
  for (const auto& [name, cluster] : by_name) {
    clusters.push_back(cluster);
    all.sum += cluster.sum;
    all.count += cluster.count;
  }
  interval.mean = all.sum / all.count;
  kernels::SamplingGenerator generator(20261121);
  std::vector<double> means(draws);
  for (double& mean : means) {
    Cluster drawn;
    for (size_t i = 0; i < clusters.size(); ++i) {
      const Cluster& cluster = clusters[generator.NextBits() % clusters.size()];
      drawn.sum += cluster.sum;
      drawn.count += cluster.count;
    }
    mean = drawn.sum / drawn.count;
  }
  std::sort(means.begin(), means.end());
  interval.low = means[static_cast<size_t>(0.025 * draws)];
  interval.high = means[static_cast<size_t>(0.975 * draws)];
  return interval;
}

}  // namespace kedge::quality
