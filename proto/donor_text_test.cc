#include "proto/donor_text.h"

#include <gtest/gtest.h>

namespace kedge {
namespace {

constexpr uint32_t kBlock = 32;

class DonorTextTest : public testing::Test {
 protected:
  DonorTextTest() : chain_(*TenantSalt::FromText("a"), Fingerprint{}, Keyspace::kPrefix) {
    for (int i = 0; i < 40 * static_cast<int>(kBlock); ++i) tokens_.push_back(i * 31 % 1000);
    links_ = chain_.Links(tokens_, kBlock);
  }
  // Blocks [first, first + count).
  DonorText Span(uint32_t first, uint32_t count) const {
    DonorText text;
    if (first > 0) {
      text.parent = links_[first - 1].key;
      text.placement = links_[first - 1].placement;
    }
    text.depth = first;
    text.tokens.assign(tokens_.begin() + first * kBlock,
                       tokens_.begin() + (first + count) * kBlock);
    return text;
  }

  KeyChain chain_;
  std::vector<int32_t> tokens_;
  std::vector<ChainLink> links_;
};

TEST_F(DonorTextTest, ComesBackAsItWas) {
  const DonorText text = Span(3, 4);
  EXPECT_EQ(*DecodeDonorText(EncodeDonorText(text)), text);
  EXPECT_EQ(*DecodeDonorText(EncodeDonorText(DonorText{})), DonorText{});
}

TEST_F(DonorTextTest, BadBytesAreRefused) {
  const std::vector<uint8_t> good = EncodeDonorText(Span(0, 1));
  for (size_t bytes = 0; bytes < good.size(); ++bytes) {
    EXPECT_FALSE(DecodeDonorText({good.data(), bytes}).ok()) << bytes;
  }
  std::vector<uint8_t> bad = good;
  bad.push_back(0);
  EXPECT_FALSE(DecodeDonorText(bad).ok());
  bad = good;
  bad[0] = 2;
  EXPECT_FALSE(DecodeDonorText(bad).ok());
  bad = good;
  bad[45] = bad[46] = bad[47] = bad[48] = 0xff;  // four milliard tokens
  EXPECT_FALSE(DecodeDonorText(bad).ok());
}

TEST_F(DonorTextTest, LinksAreThoseOfTheWholeChain) {
  // 30 to 34 passes the border of a placement run.
  for (uint32_t first : {0u, 3u, 30u}) {
    const auto links =
        VerifyDonorText(Span(first, 4), chain_, kBlock, links_[first + 3].key, first * kBlock);
    ASSERT_TRUE(links.ok()) << links.status();
    ASSERT_EQ(links->size(), 4u);
    for (uint32_t i = 0; i < 4; ++i) {
      EXPECT_EQ((*links)[i].key, links_[first + i].key);
      EXPECT_EQ((*links)[i].placement, links_[first + i].placement);
      EXPECT_EQ((*links)[i].depth, links_[first + i].depth);
    }
  }
}

TEST_F(DonorTextTest, OtherTokensThanTheDonorsAreFoundOut) {
  const BlockKey donor = links_[6].key;
  const DonorText good = Span(3, 4);
  const auto verify = [&](const DonorText& text, uint32_t begin) {
    return VerifyDonorText(text, chain_, kBlock, donor, begin).ok();
  };
  EXPECT_TRUE(verify(good, 3 * kBlock));
  DonorText bad = good;
  bad.tokens[17] ^= 1;
  EXPECT_FALSE(verify(bad, 3 * kBlock));
  bad = good;
  bad.tokens.pop_back();
  EXPECT_FALSE(verify(bad, 3 * kBlock));
  bad = good;
  bad.tokens.clear();
  EXPECT_FALSE(verify(bad, 3 * kBlock));
  bad = good;
  bad.parent = links_[3].key;
  EXPECT_FALSE(verify(bad, 3 * kBlock));
  bad = good;
  bad.depth = 0;
  EXPECT_FALSE(verify(bad, 0));
  bad = good;
  bad.depth = UINT32_MAX;
  EXPECT_FALSE(verify(bad, 3 * kBlock));
  EXPECT_FALSE(verify(good, 4 * kBlock));
}

}  // namespace
}  // namespace kedge
