#include "gpu/model/byte_pair.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace kedge {
namespace {

// The definition: again and again the best pair, from the left.
std::vector<int32_t> Slowly(
    std::vector<int32_t> tokens,
    const std::map<std::pair<int32_t, int32_t>, std::pair<int, int32_t>>& merges) {
  for (;;) {
    int best_rank = INT32_MAX;
    size_t best = 0;
    for (size_t i = 0; i + 1 < tokens.size(); ++i) {
      const auto at = merges.find({tokens[i], tokens[i + 1]});
      if (at == merges.end() || at->second.first >= best_rank) continue;
      best_rank = at->second.first;
      best = i;
    }
    if (best_rank == INT32_MAX) return tokens;
    tokens[best] = merges.at({tokens[best], tokens[best + 1]}).second;
    tokens.erase(tokens.begin() + static_cast<int64_t>(best) + 1);
  }
}

TEST(BytePair, AgreesWithTheDefinition) {
  uint32_t state = 7;
  const auto random = [&state](uint32_t below) {
    state = state * 1664525u + 1013904223u;
    return (state >> 8) % below;
  };
  for (int round = 0; round < 200; ++round) {
    BytePair pairs;
    std::map<std::pair<int32_t, int32_t>, std::pair<int, int32_t>> merges;
    for (int letter = 0; letter < 3; ++letter)
      pairs.SetByteToken(static_cast<uint8_t>('a' + letter), letter);
    int32_t next = 3;
    for (int rank = 0; rank < 12; ++rank) {
      const auto left = static_cast<int32_t>(random(static_cast<uint32_t>(next)));
      const auto right = static_cast<int32_t>(random(static_cast<uint32_t>(next)));
      if (!pairs.AddMerge(left, right, next)) continue;
      merges[{left, right}] = {static_cast<int>(merges.size()), next};
      ++next;
    }
    std::string piece;
    std::vector<int32_t> letters;
    for (uint32_t i = 0; i < 1 + random(60); ++i) {
      letters.push_back(static_cast<int32_t>(random(3)));
      piece += static_cast<char>('a' + letters.back());
    }
    std::vector<int32_t> tokens;
    ASSERT_TRUE(pairs.Encode(piece, tokens));
    ASSERT_EQ(tokens, Slowly(letters, merges)) << piece << " in round " << round;
  }
}

TEST(BytePair, AByteWithoutTokenIsRefused) {
  BytePair pairs;
  pairs.SetByteToken('a', 0);
  EXPECT_TRUE(pairs.AddMerge(0, 0, 1));
  EXPECT_FALSE(pairs.AddMerge(0, 0, 2)) << "given twice";
  std::vector<int32_t> tokens = {5};
  EXPECT_FALSE(pairs.Encode("ab", tokens));
  EXPECT_EQ(tokens, std::vector<int32_t>{5});
  EXPECT_TRUE(pairs.Encode("", tokens));
  EXPECT_TRUE(pairs.Encode("aaa", tokens));
  EXPECT_EQ(tokens, (std::vector<int32_t>{5, 1, 0}));
}

}  // namespace
}  // namespace kedge
