#include "store/world/histogram.h"

#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace kedge {
namespace {

class Keeper final : public MetricsVisitor {
 public:
  void Counter(std::string_view, std::string_view, MetricLabels, double) override {}
  void Gauge(std::string_view, std::string_view, MetricLabels, double) override {}
  void Histogram(std::string_view name, std::string_view, MetricLabels,
                 const HistogramView& view) override {
    this->name = name;
    counts.assign(view.counts.begin(), view.counts.end());
    sum = view.sum;
    bounds = view.upper_bounds.size();
  }
  std::string name;
  std::vector<uint64_t> counts;
  double sum = 0;
  size_t bounds = 0;
};

TEST(Histogram, CountsAtAndBetweenTheBounds) {
  static constexpr std::array<double, 3> kBounds = {1, 2, 4};
  Histogram histogram(kBounds);
  for (const double value : {0.0, 1.0, 1.5, 2.0, 4.0, 4.5, 1e9}) histogram.Observe(value);
  Keeper keeper;
  histogram.Visit(keeper, "kedge_test_seconds", "Test.", {});
  EXPECT_EQ(keeper.name, "kedge_test_seconds");
  EXPECT_EQ(keeper.counts, (std::vector<uint64_t>{2, 2, 1, 2}));
  EXPECT_EQ(keeper.bounds, 3u);
  EXPECT_DOUBLE_EQ(keeper.sum, 13 + 1e9);
}

TEST(Histogram, LosesNothingBetweenThreads) {
  Histogram histogram;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 10'000; ++i) histogram.ObserveUs(1000);
    });
  }
  for (std::thread& thread : threads) thread.join();
  Keeper keeper;
  histogram.Visit(keeper, "n", "h", {});
  uint64_t total = 0;
  for (const uint64_t count : keeper.counts) total += count;
  EXPECT_EQ(total, 40'000u);
  EXPECT_EQ(keeper.counts[6], 40'000u);  // (500 us, 1 ms]
  EXPECT_NEAR(keeper.sum, 40, 1e-6);
}

}  // namespace
}  // namespace kedge
