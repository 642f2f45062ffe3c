#include "store/tier/recode_policy.h"

#include <gtest/gtest.h>

namespace kedge {
namespace {

RecodePolicy Policy(const std::vector<std::string>& lines) {
  auto policy = RecodePolicy::Parse(lines);
  EXPECT_TRUE(policy.ok()) << policy.status();
  return policy.ok() ? *std::move(policy) : RecodePolicy();
}

TEST(RecodePolicy, NothingIsRecodedByDefault) {
  for (const RecodePolicy& policy : {RecodePolicy(), Policy({"host: raw", "ssd: raw"})}) {
    EXPECT_TRUE(policy.empty());
    EXPECT_EQ(policy.OnSsd(7).view(), "raw");
    EXPECT_EQ(policy.AfterIdle(7, 60'000, Variant::Raw()).view(), "raw");
  }
}

TEST(RecodePolicy, ATenantsLinesTakeThePlaceOfTheOthers) {
  const RecodePolicy policy =
      Policy({"host: raw", "ssd: kivi8g32", "ssd after 7d: kivi4g32", "ssd after 36h: fp8",
              "tenant 42: ssd: raw", "tenant 42: ssd after 1d: kivi2g32"});
  EXPECT_FALSE(policy.empty());
  EXPECT_EQ(policy.OnSsd(0).view(), "kivi8g32");
  EXPECT_EQ(policy.AfterIdle(0, 35, Variant::Raw()).view(), "raw");
  EXPECT_EQ(policy.AfterIdle(0, 36, Variant::Raw()).view(), "fp8");
  EXPECT_EQ(policy.AfterIdle(0, 167, Variant::Raw()).view(), "fp8");
  EXPECT_EQ(policy.AfterIdle(0, 168, Variant::Raw()).view(), "kivi4g32");
  EXPECT_EQ(policy.OnSsd(42).view(), "raw");
  EXPECT_EQ(policy.AfterIdle(42, 24, Variant::Raw()).view(), "kivi2g32");
  EXPECT_EQ(policy.shortest_idle_hours(), 24u);
  EXPECT_EQ(policy.variants().size(), 4u);
}

TEST(RecodePolicy, WhatWentDownALadderDoesNotClimbIt) {
  const RecodePolicy policy =
      Policy({"ssd: fp8", "ssd after 1d: kivi4g32", "ssd after 7d: kivi2g32"});
  const Variant kivi2 = *Variant::Parse("kivi2g32");
  EXPECT_EQ(policy.AfterIdle(0, 24, *Variant::Parse("fp8")).view(), "kivi4g32");
  EXPECT_EQ(policy.AfterIdle(0, 24, kivi2).view(), "raw") << "used again, and idle for a day";
  EXPECT_EQ(policy.AfterIdle(0, 168, kivi2).view(), "kivi2g32");
  EXPECT_EQ(policy.AfterIdle(0, 168, *Variant::Parse("kivi4g32")).view(), "kivi2g32");
}

TEST(RecodePolicy, ErrorsNameTheLine) {
  for (const char* line : {"", "ssd", "ssd: KIVI", "ssd: nonsense", "disk: kivi4g32",
                           "host: kivi4g32", "ssd after: kivi4g32", "ssd after 7: kivi4g32",
                           "ssd after 0d: kivi4g32", "ssd after 9999d: kivi4g32",
                           "ssd after -1h: fp8", "tenant x: ssd: fp8", "tenant 1 ssd: fp8"}) {
    const auto policy = RecodePolicy::Parse(std::vector<std::string>{line});
    ASSERT_FALSE(policy.ok()) << line;
    EXPECT_NE(policy.status().message().find("'" + std::string(line) + "'"), std::string::npos);
  }
  EXPECT_FALSE(RecodePolicy::Parse(std::vector<std::string>{"ssd: fp8", "ssd: kivi4g32"}).ok());
}

}  // namespace
}  // namespace kedge
