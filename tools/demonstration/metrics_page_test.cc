#include "tools/demonstration/metrics_page.h"

#include "gtest/gtest.h"

namespace kedge {
namespace {

TEST(MetricsPageTest, SumsSamplesByNameAndLabels) {
  const auto samples = ParseMetrics(
      "# HELP kedge_hits_total Keys found.\n# TYPE kedge_hits_total counter\n"
      "kedge_hits_total{op=\"match\",tier=\"host\"} 5\n"
      "kedge_hits_total{op=\"match\",tier=\"ssd\"} 2\n"
      "kedge_hits_total{op=\"get\",tier=\"ssd\"} 1e3\n"
      "kedge_leases 7\nkedge_leases_total 1\n\nnonsense\nkedge_odd x\nkedge_odd{a=\"b\" 4\n");
  EXPECT_EQ(samples.size(), 5u);
  EXPECT_EQ(SumOf(samples, "kedge_hits_total"), 1007);
  EXPECT_EQ(SumOf(samples, "kedge_hits_total", {"op=\"match\""}), 7);
  EXPECT_EQ(SumOf(samples, "kedge_hits_total", {"tier=\"ssd\"", "op=\"get\""}), 1000);
  EXPECT_EQ(SumOf(samples, "kedge_leases"), 7);
  EXPECT_EQ(SumOf(samples, "kedge_absent"), 0);
}

TEST(MetricsPageTest, NoAnswerNamesTheAddress) {
  const auto samples = ReadMetrics("127.0.0.1:1");
  ASSERT_FALSE(samples.ok());
  EXPECT_NE(std::string(samples.status().message()).find("http://127.0.0.1:1"), std::string::npos);
}

}  // namespace
}  // namespace kedge
