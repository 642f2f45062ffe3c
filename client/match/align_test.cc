#include "client/match/align.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "store/world/random.h"

namespace kedge::match {
namespace {

using Tokens = std::vector<int32_t>;

Tokens RandomTokens(size_t count, int32_t vocabulary, Random& random) {
  Tokens tokens(count);
  for (int32_t& token : tokens) token = static_cast<int32_t>(random.Below(vocabulary));
  return tokens;
}

AlignDonor Donor(uint8_t key, const Tokens& tokens) {
  AlignDonor donor{.tokens = tokens};
  donor.key.bytes.fill(key);
  return donor;
}

uint32_t Reused(const std::vector<RowSource>& rows) {
  return static_cast<uint32_t>(std::count_if(
      rows.begin(), rows.end(), [](const RowSource& row) { return row.donor != kNoDonor; }));
}

TEST(Align, EmptyAndShortInputsHaveNoDonors) {
  const Tokens donor(20, 1);
  const AlignDonor donors[] = {Donor(1, donor), Donor(2, {})};
  EXPECT_TRUE(Align({}, donors, {}).empty());
  for (uint32_t count = 1; count < 8; ++count) {  // a run of 5, and 3 last tokens
    EXPECT_EQ(Reused(Align(Tokens(count, 1), donors, {})), 0u);
  }
  EXPECT_EQ(Reused(Align(Tokens(8, 1), donors, {})), 5u);
  EXPECT_EQ(Reused(Align(donor, {}, {})), 0u);
}

TEST(Align, MovedBlocksAreFoundAndOrderIsFree) {
  Tokens donor(100);
  std::iota(donor.begin(), donor.end(), 0);
  Tokens prompt(donor.begin() + 60, donor.end());  // the second half first
  prompt.insert(prompt.end(), donor.begin(), donor.begin() + 60);
  prompt.insert(prompt.end(), {7, 7, 7});
  const AlignDonor donors[] = {Donor(1, donor)};
  const auto rows = Align(prompt, donors, {});
  for (uint32_t i = 0; i < 100; ++i) EXPECT_EQ(rows[i], (RowSource{0, (i + 60) % 100}));
}

TEST(Align, SeveralDonorsAreMixedAndTheLongerRunWins) {
  Tokens prompt(60);
  std::iota(prompt.begin(), prompt.end(), 0);
  const Tokens first(prompt.begin(), prompt.begin() + 30);
  const Tokens second(prompt.begin() + 20, prompt.begin() + 57);
  const AlignDonor donors[] = {Donor(1, first), Donor(2, second)};
  const auto rows = Align(prompt, donors, {});
  for (uint32_t i = 0; i < 57; ++i) {
    EXPECT_EQ(rows[i], i < 20 ? (RowSource{0, i}) : (RowSource{1, i - 20})) << i;
  }
  EXPECT_EQ(Reused(rows), 57u);
}

TEST(Align, PrefixAndKnownRunsComeFirst) {
  Tokens prompt(60);
  std::iota(prompt.begin(), prompt.end(), 0);
  const Tokens part(prompt.begin() + 25, prompt.begin() + 35);
  const AlignDonor donors[] = {Donor(1, prompt), Donor(2, part)};
  const KnownRun known[] = {{25, 1, 0, 10}, {0, 1, 0, 10}, {55, 1, 5, 10}, {70, 0, 0, 1}};
  const auto rows = Align(prompt, donors, {.prefix_tokens = 10}, known);
  for (uint32_t i = 0; i < 60; ++i) {
    const RowSource want = i < 10 || i >= 57   ? RowSource{}
                           : i >= 25 && i < 35 ? RowSource{1, i - 25}
                                               : RowSource{0, i};
    EXPECT_EQ(rows[i], want) << i;
  }
}

TEST(Align, EveryAnswerIsValidAndDoesNotDependOnTheOrderOfDonors) {
  Random random(11);
  for (int round = 0; round < 300; ++round) {
    const int32_t vocabulary = 2 + static_cast<int32_t>(random.Below(40));
    const Tokens base = RandomTokens(300, vocabulary, random);
    std::vector<Tokens> texts;
    for (int i = 0; i < 6; ++i) {
      const size_t begin = random.Below(200);
      texts.emplace_back(base.begin() + begin, base.begin() + begin + random.Below(100));
      for (int32_t& token : texts.back()) {
        if (random.Chance(0.05)) token = static_cast<int32_t>(random.Below(vocabulary));
      }
    }
    std::vector<AlignDonor> donors;
    for (const Tokens& text : texts) donors.push_back(Donor(donors.size() * 3, text));
    const AlignOptions options{.min_run = 1 + static_cast<uint32_t>(random.Below(8)),
                               .last_tokens = 1 + static_cast<uint32_t>(random.Below(5)),
                               .prefix_tokens = static_cast<uint32_t>(random.Below(50))};
    const auto rows = Align(base, donors, options);
    ASSERT_TRUE(ValidateRows(base, donors, options, rows).ok())
        << ValidateRows(base, donors, options, rows);

    std::vector<uint32_t> order(donors.size());
    std::iota(order.begin(), order.end(), 0u);
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.Below(i)]);
    std::vector<AlignDonor> shuffled;
    for (uint32_t i : order) shuffled.push_back(donors[i]);
    auto again = Align(base, shuffled, options);
    for (RowSource& row : again) {
      if (row.donor != kNoDonor) row.donor = order[row.donor];
    }
    ASSERT_EQ(again, rows);
  }
}

TEST(Align, FindsAllThatAQuadraticSearchFinds) {
  Random random(12);
  for (int round = 0; round < 100; ++round) {
    const Tokens text = RandomTokens(200, 50, random);
    Tokens prompt = text;
    for (int32_t& token : prompt) {
      if (random.Chance(0.1)) token = static_cast<int32_t>(random.Below(50));
    }
    const AlignDonor donors[] = {Donor(1, text)};
    const auto rows = Align(prompt, donors, {});
    for (size_t i = 0; i + 5 + 3 <= prompt.size(); ++i) {
      bool held = false;
      for (size_t j = 0; j + 5 <= text.size(); ++j) {
        held |= std::equal(text.begin() + j, text.begin() + j + 5, prompt.begin() + i);
      }
      // All five stand in runs, of whichever place; the ends of longer runs may cut them.
      if (held) {
        EXPECT_NE(rows[i + 2].donor, kNoDonor) << round << " " << i;
      }
    }
  }
}

TEST(Align, ATextOfOneTokenEndsInTime) {
  const Tokens same(20000, 4);
  std::vector<AlignDonor> donors;
  for (uint8_t i = 0; i < 64; ++i) donors.push_back(Donor(i, same));
  const auto rows = Align(same, donors, {});
  EXPECT_TRUE(ValidateRows(same, donors, {}, rows).ok());
  EXPECT_EQ(Reused(rows), same.size() - 3);
}

TEST(ValidateRows, FindsEveryKindOfFault) {
  const Tokens prompt = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  const AlignDonor donors[] = {Donor(1, prompt)};
  const AlignOptions options{.min_run = 3, .last_tokens = 2, .prefix_tokens = 1};
  const auto good = Align(prompt, donors, options);
  ASSERT_TRUE(ValidateRows(prompt, donors, options, good).ok());
  const auto fault = [&](size_t at, RowSource row) {
    auto rows = good;
    rows[at] = row;
    return !ValidateRows(prompt, donors, options, rows).ok();
  };
  EXPECT_TRUE(fault(0, {0, 0}));   // the prefix
  EXPECT_TRUE(fault(8, {0, 8}));   // a last token
  EXPECT_TRUE(fault(3, {1, 3}));   // no donor
  EXPECT_TRUE(fault(3, {0, 10}));  // no row
  EXPECT_TRUE(fault(3, {0, 4}));   // another token
  EXPECT_TRUE(fault(3, {}));       // leaves a run of two
  EXPECT_FALSE(ValidateRows(prompt, donors, options, {}).ok());
}

}  // namespace
}  // namespace kedge::match
