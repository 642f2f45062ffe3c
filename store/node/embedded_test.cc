#include "store/node/embedded.h"

#include <gtest/gtest.h>

#include "store/node/byte_size.h"

namespace kedge {
namespace {

TEST(ByteSizeTest, ReadsWhatPeopleWrite) {
  EXPECT_EQ(*ParseByteSize("4096"), 4096u);
  EXPECT_EQ(*ParseByteSize("64KiB"), 65536u);
  EXPECT_EQ(*ParseByteSize("1.5 GiB"), 3ull << 29);
  EXPECT_EQ(*ParseByteSize("2GB"), 2'000'000'000u);
  for (const char* wrong : {"", "KiB", "12XB", "1.5", "-1MiB", "1e3", "..", "9999999TiB", "1 2"}) {
    EXPECT_FALSE(ParseByteSize(wrong).ok()) << wrong;
  }
  for (const uint64_t bytes : {0ull, 1ull, 4097ull, 64ull << 20, 3ull << 40}) {
    EXPECT_EQ(*ParseByteSize(FormatByteSize(bytes)), bytes);
  }
}

TEST(EmbeddedTest, AddressesSayWhatTheNodeIs) {
  EXPECT_EQ(ParseEmbeddedAddress("embedded:")->host_bytes, EmbeddedOptions().host_bytes);
  const auto options = ParseEmbeddedAddress("embedded:?host=128MiB&ssd=/tmp/x&ssd_size=2GiB");
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->host_bytes, 128ull << 20);
  EXPECT_EQ(options->ssd_directory, "/tmp/x");
  EXPECT_EQ(options->ssd_bytes, 2ull << 30);
  const auto lossy = ParseEmbeddedAddress(
      "embedded:?recode=ssd: kivi4g32&recode=ssd after 1d: "
      "kivi2g32&profile=/p&allow_unprofiled=true");
  ASSERT_TRUE(lossy.ok()) << lossy.status();
  EXPECT_EQ(lossy->recode.size(), 2u);
  EXPECT_EQ(lossy->profiles, std::vector<std::string>{"/p"});
  EXPECT_TRUE(lossy->allow_unprofiled);
  for (const char* wrong : {"tcp://x", "embedded:x", "embedded:?host", "embedded:?host=a lot",
                            "embedded:?color=red", "embedded:?ssd=", "embedded:?recode=zip",
                            "embedded:?profile=", "embedded:?allow_unprofiled=maybe"}) {
    EXPECT_EQ(ParseEmbeddedAddress(wrong).status().code(), absl::StatusCode::kInvalidArgument)
        << wrong;
  }
}

TEST(EmbeddedTest, StartsAndEndsWithAnSsdTier) {
  EmbeddedOptions options;
  options.host_bytes = 128ull << 20;
  options.ssd_directory = std::string(testing::TempDir()) + "/embedded_ssd";
  for (int round = 0; round < 2; ++round) {
    const auto node = EmbeddedNode::Start(options);
    ASSERT_TRUE(node.ok()) << node.status();
    EXPECT_EQ((*node)->address(), "memory://kedged");
  }
  options.ssd_directory = "/proc/no/such/place";
  const auto refused = EmbeddedNode::Start(options);
  EXPECT_FALSE(refused.ok());
  EXPECT_NE(refused.status().ToString().find("/proc/no"), std::string::npos) << refused.status();
}

}  // namespace
}  // namespace kedge
