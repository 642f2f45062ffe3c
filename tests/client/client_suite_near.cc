// Text that was computed before is found elsewhere, and its rows are those of its donor.

#include <algorithm>
#include <cstring>

#include "tests/client/client_suite.h"

namespace kedge {
namespace {

using namespace sdk;  // NOLINT: a test of the SDK

// Words of another prompt in front, so that no block border is where it was.
std::vector<int32_t> Moved(const std::vector<int32_t>& donor, size_t shift) {
  std::vector<int32_t> prompt;
  for (size_t i = 0; i < shift; ++i) prompt.push_back(static_cast<int32_t>(900'000 + i));
  prompt.insert(prompt.end(), donor.begin(), donor.end());
  for (size_t i = 0; i < 20; ++i) prompt.push_back(static_cast<int32_t>(800'000 + i));
  return prompt;
}

uint64_t Reused(const Near& near) {
  uint64_t tokens = 0;
  for (const NearRun& run : near.runs()) tokens += run.tokens;
  return tokens;
}

TEST_P(ClientSuite, FindsMovedTextAndItsRows) {
  const std::vector<int32_t> donor = Tokens(6, 31);
  std::vector<uint8_t> memory = Bytes(6 * model_->block_bytes(), 31);
  StoreAll(SequenceOf(6, 31), memory);
  const std::vector<int32_t> prompt = Moved(donor, 37);
  auto before = model_->FindNear(prompt);
  ASSERT_TRUE(before) << before.text();
  EXPECT_TRUE(before->runs().empty()) << "stored, but not registered";

  const Status registered = model_->RegisterText(donor);
  ASSERT_TRUE(registered) << registered.text();
  EXPECT_TRUE(model_->RegisterText(donor)) << "again changes nothing";
  auto near = model_->FindNear(prompt);
  ASSERT_TRUE(near) << near.text();
  EXPECT_EQ(Reused(*near), 6 * kTokens) << "every token of its whole blocks, none of the others";

  // Two spans of blocks: 256 tokens and the rest.
  ASSERT_EQ(near->donors(), 2u);
  for (const NearRun& run : near->runs()) {
    auto found = near->donor(run.donor);
    ASSERT_TRUE(found) << found.text();
    for (uint32_t i = 0; i < run.tokens; ++i) {
      ASSERT_EQ(prompt[run.prompt + i], donor[found->first_token + run.row + i]);
    }
    auto match = found->sequence.MatchRun({.lease_ms = 1000});
    ASSERT_TRUE(match) << match.text();
    ASSERT_EQ(match->blocks(), found->tokens / kTokens);
    std::vector<uint8_t> landed(found->sequence.blocks() * model_->block_bytes());
    std::vector<BlockBuffer> buffers;
    for (uint32_t i = 0; i < found->sequence.blocks(); ++i)
      buffers.push_back({{landed.data() + i * model_->block_bytes(), model_->block_bytes()}});
    auto fetch = found->sequence.Fetch({.block_count = found->sequence.blocks()}, buffers);
    ASSERT_TRUE(fetch && fetch->Wait()) << fetch.text();
    EXPECT_TRUE(fetch->all_ok()) << fetch->text();
    const size_t first = found->first_token / kTokens * model_->block_bytes();
    EXPECT_EQ(std::memcmp(landed.data(), memory.data() + first, landed.size()), 0);
  }
}

TEST_P(ClientSuite, FindsTextWithChangedWords) {
  const std::vector<int32_t> donor = Tokens(8, 32);
  std::vector<uint8_t> memory = Bytes(8 * model_->block_bytes(), 32);
  StoreAll(SequenceOf(8, 32), memory);
  ASSERT_TRUE(model_->RegisterText(donor));
  std::vector<int32_t> prompt = Moved(donor, 50);
  for (size_t at = 60; at < prompt.size(); at += 25) prompt[at] = 700'000 + static_cast<int>(at);
  auto near = model_->FindNear(prompt, {.min_run = 5});
  ASSERT_TRUE(near) << near.text();
  EXPECT_GT(Reused(*near), donor.size() * 8 / 10);
  for (const NearRun& run : near->runs()) {
    auto found = near->donor(run.donor);
    ASSERT_TRUE(found);
    for (uint32_t i = 0; i < run.tokens; ++i) {
      ASSERT_EQ(prompt[run.prompt + i], donor[found->first_token + run.row + i]);
    }
  }
  auto strict = model_->FindNear(prompt, {.min_run = 100});
  ASSERT_TRUE(strict);
  EXPECT_TRUE(strict->runs().empty()) << "no run has 100 tokens";
}

TEST_P(ClientSuite, LeavesWhatHasKvAlone) {
  std::vector<int32_t> donor = Tokens(4, 33);
  donor.resize(4 * kTokens);
  ASSERT_TRUE(model_->RegisterText(donor));
  auto near = model_->FindNear(donor, {.prefix_tokens = 3 * kTokens});
  ASSERT_TRUE(near);
  for (const NearRun& run : near->runs()) EXPECT_GE(run.prompt, 3 * kTokens);
  EXPECT_GT(Reused(*near), 0u);
  EXPECT_LT(Reused(*near), kTokens) << "the last tokens are computed in any case";
}

TEST_P(ClientSuite, OtherModelsAndWrongArgumentsFindNothing) {
  const std::vector<int32_t> donor = Tokens(4, 34);
  ASSERT_TRUE(model_->RegisterText(donor));
  ModelOptions other = ModelOf();
  other.weights_id = "test/model@2";
  auto stranger = client_->OpenModel(other);
  ASSERT_TRUE(stranger);
  auto near = stranger->FindNear(Moved(donor, 7));
  ASSERT_TRUE(near) << near.text();
  EXPECT_TRUE(near->runs().empty());
  EXPECT_EQ(near->donor(0).code(), Code::kInvalid);
  auto empty = model_->FindNear({});
  ASSERT_TRUE(empty);
  EXPECT_TRUE(empty->runs().empty());
  EXPECT_TRUE(model_->RegisterText({})) << "no whole block, nothing to do";
  const auto many = model_->FindNear(donor, {.donors_max = 100'000});
  EXPECT_EQ(many.code(), Code::kInvalid);
  EXPECT_NE(many.text().find("options.donors_max: 100000"), std::string::npos) << many.text();
}

TEST_P(ClientSuite, ADonorWithoutBlocksIsAMiss) {
  const std::vector<int32_t> donor = Tokens(4, 35);
  ASSERT_TRUE(model_->RegisterText(donor));
  auto near = model_->FindNear(Moved(donor, 11));
  ASSERT_TRUE(near);
  ASSERT_EQ(near->donors(), 1u);
  auto found = near->donor(0);
  ASSERT_TRUE(found);
  auto match = found->sequence.MatchRun();
  ASSERT_TRUE(match);
  EXPECT_EQ(match->blocks(), 0u) << "its blocks were never stored: a miss, found out by the match";
}

}  // namespace
}  // namespace kedge
