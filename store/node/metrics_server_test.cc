#include "store/node/metrics_server.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>

#include "store/node/node_testing.h"

namespace kedge {
namespace {

class MetricsServerTest : public testing::Test {
 protected:
  void SetUp() override {
    world_.with_ssd = true;
    ASSERT_TRUE(world_.Start().ok());
  }
  TestWorld world_;
};

TEST_F(MetricsServerTest, AnAddressInUseIsNamed) {
  const auto first = MetricsServer::Start(*world_.node, "127.0.0.1:0");
  ASSERT_TRUE(first.ok()) << first.status();
  const auto second = MetricsServer::Start(*world_.node, (*first)->address());
  ASSERT_FALSE(second.ok());
  EXPECT_NE(second.status().ToString().find((*first)->address()), std::string::npos);
}

TEST_F(MetricsServerTest, MetricsCountWhatHappened) {
  const std::string before = MetricsText(*world_.node);
  for (const char* line : {"kedge_requests_total{op=\"get\",code=\"ok\"} 0",
                           "kedge_miss_total{op=\"get\",reason=\"evicted\"} 0",
                           "kedge_checksum_failures_total{tier=\"ssd\"} 0",
                           "kedge_frame_errors_total{reason=\"crc\"} 0"}) {
    EXPECT_NE(before.find(line), std::string::npos) << line << " is not there from the start";
  }
  TestClient client(world_);
  const TestBlock block = MakeTestBlock(1);
  client.Get(block);
  client.Put(block);
  client.Get(block);
  const std::string after = MetricsText(*world_.node);
  for (const char* line :
       {"kedge_lookup_keys_total{op=\"get\"} 2",
        "kedge_lookup_hit_keys_total{op=\"get\",tier=\"host\"} 1",
        "kedge_miss_total{op=\"get\",reason=\"absent\"} 1", "kedge_put_blocks_total 1"}) {
    EXPECT_NE(after.find(line), std::string::npos) << line << "\n" << after;
  }
}

// The rules of `promtool check metrics` that a text can be checked for; promtool itself where it is
// installed.
TEST_F(MetricsServerTest, MetricsFollowTheConventions) {
  const std::string text = MetricsText(*world_.node);
  std::istringstream lines(text);
  std::set<std::string> families;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string hash, kind, name, type;
    words >> hash >> kind >> name >> type;
    if (hash != "#" || kind != "TYPE") continue;
    EXPECT_TRUE(families.insert(name).second) << name << " comes twice";
    EXPECT_EQ(name.rfind("kedge_", 0), 0u) << name;
    const bool total = name.size() > 6 && name.substr(name.size() - 6) == "_total";
    EXPECT_EQ(total, type == "counter") << name << " is a " << type;
  }
  EXPECT_GT(families.size(), 30u);
  if (std::system("command -v promtool > /dev/null 2>&1") != 0) return;
  const std::string path = testing::TempDir() + "/metrics.txt";
  std::ofstream(path) << text;
  EXPECT_EQ(std::system(("promtool check metrics < " + path).c_str()), 0);
}

}  // namespace
}  // namespace kedge
