#include "store/block/prefix_index.h"

#include <gtest/gtest.h>

#include <set>

#include "store/block/prefix_index_naive.h"
#include "store/world/random.h"

namespace kedge {
namespace {

using Verdict = PrefixIndex::Verdict;

Verdict TakeAny(uint32_t) { return Verdict::kTake; }

TEST(PrefixIndexTest, TakesTheDeepestBlockOfTheColdestRun) {
  PrefixIndex index;
  for (uint32_t depth = 0; depth < 4; ++depth) index.Insert(depth, 7, depth, 1);
  for (uint32_t depth = 0; depth < 4; ++depth) index.Insert(10 + depth, 8, depth, 2);
  std::vector<uint32_t> order;
  while (auto victim = index.Victim(TakeAny, 3, 100)) {
    order.push_back(*victim);
    index.Erase(*victim);
  }
  EXPECT_EQ(order, (std::vector<uint32_t>{3, 2, 1, 0, 13, 12, 11, 10}));
  EXPECT_EQ(index.runs(), 0u);
}

TEST(PrefixIndexTest, AHeadThatIsTouchedLastOutlivesItsTail) {
  PrefixIndex index;
  index.Insert(0, 100, 0, 1);   // head run
  index.Insert(1, 200, 32, 2);  // tail run of the same chain
  index.Touch(1, 3);
  index.Touch(0, 4);
  EXPECT_EQ(index.Victim(TakeAny, 5, 100), 1u);
}

TEST(PrefixIndexTest, BusyRunsMoveToTheRecentEnd) {
  PrefixIndex index;
  index.Insert(0, 100, 0, 1);
  index.Insert(1, 200, 0, 2);
  const auto zero_is_busy = [](uint32_t id) { return id == 0 ? Verdict::kBusy : Verdict::kTake; };
  EXPECT_EQ(index.Victim(zero_is_busy, 3, 100), 1u);
  EXPECT_EQ(index.coldest_tick(), 2u);
  EXPECT_EQ(index.Victim(TakeAny, 4, 100), 1u);
}

// The real index and the naive one, told the same, answer the same.
TEST(PrefixIndexTest, AgreesWithTheNaiveIndex) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Random random(seed);
    PrefixIndex real;
    NaivePrefixIndex naive;
    std::set<uint32_t> held;
    std::set<uint32_t> busy;
    uint64_t tick = 0;
    for (int step = 0; step < 4000; ++step) {
      ++tick;
      const uint32_t id = static_cast<uint32_t>(random.Below(300));
      switch (random.Below(6)) {
        case 0:
        case 1:
          if (held.insert(id).second) {
            const uint64_t placement = random.Below(12);
            const uint32_t depth = static_cast<uint32_t>(random.Below(32));
            real.Insert(id, placement, depth, tick);
            naive.Insert(id, placement, depth, tick);
          }
          break;
        case 2:
          if (held.erase(id) != 0) {
            real.Erase(id);
            naive.Erase(id);
          }
          break;
        case 3:
          real.Touch(id, tick);
          naive.Touch(id, tick);
          break;
        case 4:
          if (!busy.erase(id)) busy.insert(id);
          break;
        case 5: {
          const auto judge = [&](uint32_t block) {
            if (busy.count(block) != 0) return Verdict::kBusy;
            return block % 5 == step % 5u ? Verdict::kTake : Verdict::kSkip;
          };
          const uint32_t runs_max = static_cast<uint32_t>(1 + random.Below(14));
          ASSERT_EQ(real.Victim(judge, tick, runs_max), naive.Victim(judge, tick, runs_max))
              << "seed " << seed << " step " << step;
          break;
        }
      }
      ASSERT_EQ(real.Contains(id), naive.Contains(id));
      ASSERT_EQ(real.coldest_tick(), naive.coldest_tick()) << "seed " << seed << " step " << step;
      ASSERT_EQ(real.blocks(), held.size());
    }
  }
}

TEST(PrefixIndexTest, ARunOfManyBlocksStaysCheapToFill) {
  PrefixIndex index;
  Random random(3);
  for (uint32_t id = 0; id < 50'000; ++id) {
    index.Insert(id, 1, static_cast<uint32_t>(random.Next()), id);
  }
  EXPECT_EQ(index.blocks(), 50'000u);
  EXPECT_EQ(index.runs(), 1u);
}

}  // namespace
}  // namespace kedge
