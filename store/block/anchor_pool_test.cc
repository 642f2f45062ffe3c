#include "store/block/anchor_pool.h"

#include <cmath>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gpu/offset/testing_rows.h"
#include "gtest/gtest.h"
#include "store/block/linear_pool.h"
#include "store/block/pool_roster.h"

namespace kedge {
namespace {

using offset::Anchor;
using offset::MixOptions;
using offset::RandomAnchor;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

AnchorPool MakePool(const AnchorPoolOptions& options = {}) {
  return AnchorPool(AnchorShape::Of(RandomAnchor(4, 2, 0)), options);
}

std::vector<int> Numbers(const AnchorPool& pool) {
  std::vector<int> numbers;
  for (const BlockKey& key : pool.keys()) numbers.push_back(key.bytes[0] + 256 * key.bytes[1]);
  return numbers;
}

bool Insert(AnchorPool& pool, Anchor anchor) {
  const absl::StatusOr<bool> added = pool.Insert(std::move(anchor));
  EXPECT_TRUE(added.ok()) << added.status();
  return added.ok() && *added;
}

MixOptions OptionsOf(const AnchorPool& pool) { return {.sharpness = 4.0, .scale = pool.scale()}; }

TEST(AnchorPool, HoldsItsCapacityAndNotOneMore) {
  AnchorPool pool = MakePool({.capacity = 3, .window = 2});
  for (uint32_t i = 0; i < 5; ++i) {
    EXPECT_TRUE(Insert(pool, RandomAnchor(4, 2, i)));
    EXPECT_LE(pool.size(), 3);
  }
  // Nobody was active: the oldest go.
  EXPECT_THAT(Numbers(pool), ElementsAre(2, 3, 4));
}

TEST(AnchorPool, TheLeastActiveOfTheOldestGoes) {
  AnchorPool pool = MakePool({.capacity = 4, .window = 3});
  for (uint32_t i = 0; i < 4; ++i) Insert(pool, RandomAnchor(4, 2, i));
  // Weights are one-hot here: each filling activates its own anchor, and no other.
  MixOptions options = OptionsOf(pool);
  options.sharpness = 1000;
  pool.Activate(RandomAnchor(4, 2, 0).sketch, options);
  pool.Activate(RandomAnchor(4, 2, 0).sketch, options);
  pool.Activate(RandomAnchor(4, 2, 2).sketch, options);
  Insert(pool, RandomAnchor(4, 2, 4));
  EXPECT_THAT(Numbers(pool), ElementsAre(0, 2, 3, 4));
  // 3 is not active and the least, and now among the three oldest.
  Insert(pool, RandomAnchor(4, 2, 5));
  EXPECT_THAT(Numbers(pool), ElementsAre(0, 2, 4, 5));
}

TEST(AnchorPool, FirstInsertStays) {
  AnchorPool pool = MakePool();
  Anchor first = RandomAnchor(4, 2, 1), second = RandomAnchor(4, 2, 2);
  second.key = first.key;
  EXPECT_TRUE(Insert(pool, first));
  EXPECT_FALSE(Insert(pool, second));
  EXPECT_EQ(pool.Find(first.key)->filling.keys, first.filling.keys);
  EXPECT_EQ(pool.Find(BlockKey{}), nullptr);
}

TEST(AnchorPool, WhatDoesNotBelongIsNamed) {
  AnchorPool pool = MakePool();
  const auto error = [&](Anchor anchor) {
    return std::string(pool.Insert(std::move(anchor)).status().message());
  };
  Anchor produced = RandomAnchor(4, 2, 1), other = RandomAnchor(4, 2, 1);
  produced.kind = offset::BaseKind::kProduced;
  EXPECT_THAT(error(produced), HasSubstr("anchor.base_kind: produced"));
  other.prefix_digest = 8;
  EXPECT_THAT(error(other), HasSubstr("anchor.prefix"));
  EXPECT_THAT(error(RandomAnchor(4, 3, 1)), HasSubstr("anchor.prefix"));
  EXPECT_THAT(error(RandomAnchor(0, 2, 1)), HasSubstr("anchor.tokens: 0"));
  Anchor deep = RandomAnchor(4, 2, 1);
  deep.filling = offset::RandomOffset(4, 4, 8, 1);
  deep.prefix = offset::RandomOffset(4, 2, 8, 1);
  EXPECT_THAT(error(deep), HasSubstr("anchor.shape: 4 layers"));
  EXPECT_EQ(pool.size(), 0);
}

TEST(AnchorPool, OnlyAnchorsThatAreLongEnoughAreMixed) {
  AnchorPool pool = MakePool();
  for (uint32_t i = 0; i < 6; ++i) Insert(pool, RandomAnchor(3 + i, 2, i));
  const offset::Sketch filling = RandomAnchor(6, 2, 50).sketch;
  EXPECT_EQ(pool.MixFor(filling, OptionsOf(pool)).anchors(), 3);
  EXPECT_EQ(pool.longest(), 8);
  EXPECT_EQ(pool.MixFor(RandomAnchor(9, 2, 50).sketch, OptionsOf(pool)).anchors(), 0);
}

TEST(AnchorPool, TheSameOrderGivesTheSamePool) {
  const auto run = [] {
    auto pool = std::make_unique<AnchorPool>(AnchorShape::Of(RandomAnchor(4, 2, 0)),
                                             AnchorPoolOptions{.capacity = 5, .window = 3});
    for (uint32_t i = 0; i < 30; ++i) {
      pool->Activate(RandomAnchor(4, 2, i * 7 % 30).sketch, OptionsOf(*pool));
      Insert(*pool, RandomAnchor(4, 2, i));
    }
    return pool;
  };
  const auto a = run(), b = run();
  EXPECT_EQ(a->keys(), b->keys());
  EXPECT_EQ(a->scale(), b->scale());
  const offset::Sketch filling = RandomAnchor(4, 2, 77).sketch;
  EXPECT_EQ(a->MixFor(filling, OptionsOf(*a)).FillingOffset().keys,
            b->MixFor(filling, OptionsOf(*b)).FillingOffset().keys);
}

// What the error is for: a pool whose offsets are all alike predicts them, one of noise does not.
TEST(AnchorPool, KnowsItsOwnError) {
  AnchorPool alike = MakePool(), noise = MakePool();
  const Anchor first = RandomAnchor(4, 2, 1);
  for (uint32_t i = 0; i < 8; ++i) {
    Anchor anchor = RandomAnchor(4, 2, i);
    Insert(noise, anchor);
    anchor.filling = first.filling;
    anchor.prefix = first.prefix;
    Insert(alike, anchor);
  }
  const PoolError known = alike.LeaveOneOut(OptionsOf(alike));
  EXPECT_EQ(known.predicted, 8);
  EXPECT_LT(known.filling.share(), 1e-6);
  EXPECT_LT(known.prefix.share(), 1e-6);
  EXPECT_GT(noise.LeaveOneOut(OptionsOf(noise)).filling.share(), 0.9);
  // It is not kept past a change.
  for (uint32_t i = 20; i < 30; ++i) Insert(alike, RandomAnchor(4, 2, i));
  EXPECT_GT(alike.LeaveOneOut(OptionsOf(alike)).filling.share(), 0.3);
}

TEST(AnchorPool, ConcurrentInsertsLoseNothing) {
  constexpr uint32_t kThreads = 4, kEach = 25;
  AnchorPool pool = MakePool({.capacity = kThreads * kEach});
  LinearPool linear(pool.shape(), {});
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (uint32_t i = 0; i < kEach; ++i) {
        const Anchor anchor = RandomAnchor(4, 2, t * kEach + i);
        (void)pool.MixFor(anchor.sketch, OptionsOf(pool));
        Insert(pool, anchor);
        EXPECT_TRUE(
            linear.Update(offset::RandomRows(3, 4, 8, i), offset::RandomRows(3, 2, 8, i), anchor)
                .ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(pool.size(), kThreads * kEach);
  EXPECT_EQ(linear.runs(), kThreads * kEach);
  for (uint32_t i = 0; i < kThreads * kEach; ++i)
    EXPECT_NE(pool.Find(RandomAnchor(4, 2, i).key), nullptr) << i;
}

// A pool that was read from its roster goes on as the one that wrote it.
TEST(AnchorPool, GoesOnAfterARestore) {
  AnchorPool pool = MakePool({.capacity = 5, .window = 3});
  for (uint32_t i = 0; i < 9; ++i) {
    pool.Activate(RandomAnchor(4, 2, i * 7 % 30).sketch, OptionsOf(pool));
    Insert(pool, RandomAnchor(4, 2, i));
  }
  const absl::StatusOr<PoolRoster> roster = ParseRoster(EncodeRoster(PoolRoster::Of(pool)));
  ASSERT_TRUE(roster.ok()) << roster.status();
  EXPECT_EQ(roster->members, pool.members());
  AnchorPool restored(roster->shape, roster->options);
  std::vector<Anchor> anchors;
  std::vector<uint64_t> activations;
  for (const AnchorPool::Member& member : roster->members) {
    anchors.push_back(*pool.Find(member.key));
    activations.push_back(member.activations);
  }
  ASSERT_TRUE(restored.Restore(anchors, activations).ok());
  for (uint32_t i = 20; i < 30; ++i) {
    for (AnchorPool* one : {&pool, &restored}) {
      one->Activate(RandomAnchor(4, 2, i * 7 % 30).sketch, OptionsOf(*one));
      Insert(*one, RandomAnchor(4, 2, i));
    }
    EXPECT_EQ(pool.members(), restored.members());
    EXPECT_EQ(pool.scale(), restored.scale());
  }
  EXPECT_EQ(pool.bytes(), restored.bytes());
  AnchorPool other(roster->shape, roster->options);
  EXPECT_FALSE(other.Restore({RandomAnchor(4, 3, 1)}, std::vector<uint64_t>{0}).ok());
}

TEST(PoolRoster, BadBytesAreNamed) {
  const AnchorPool pool = MakePool();
  const std::vector<uint8_t> good = EncodeRoster(PoolRoster::Of(pool));
  EXPECT_EQ(good.size(), RosterBytes(0));
  const auto error = [&](size_t at, uint8_t value) {
    std::vector<uint8_t> bytes = good;
    bytes[at] = value;
    return std::string(ParseRoster(bytes).status().message());
  };
  EXPECT_THAT(error(0, 0), HasSubstr("roster.magic"));
  EXPECT_THAT(error(4, 2), HasSubstr("roster.version"));
  EXPECT_THAT(error(6, 2), HasSubstr("roster.base_kind"));
  EXPECT_THAT(error(7, 1), HasSubstr("roster.reserved"));
  EXPECT_THAT(error(22, 200), HasSubstr("roster.capacity"));
  EXPECT_THAT(error(43, 0xff), HasSubstr("roster.nucleus"));
  EXPECT_THAT(error(44, 1), HasSubstr("roster.members"));
  for (size_t size = 0; size < good.size(); ++size)
    EXPECT_FALSE(ParseRoster(std::span(good).first(size)).ok());
}

TEST(PoolRoster, ShapesAreComparedByWhatDiffers) {
  const AnchorShape shape = AnchorShape::Of(RandomAnchor(4, 2, 0));
  AnchorShape other = shape;
  EXPECT_EQ(CompareShapes(shape, other), PoolVerdict::kOk);
  EXPECT_EQ(ShapeOf(WireShapeOf(shape)), shape);
  other.prefix_digest ^= 1;
  EXPECT_EQ(CompareShapes(shape, other), PoolVerdict::kTemplate);
  other.width += 1;
  EXPECT_EQ(CompareShapes(shape, other), PoolVerdict::kShape);
}

// A question that nothing can answer allocates nothing of its size.
TEST(AnchorPool, AQuestionLongerThanEveryAnchorHasEvidenceOnly) {
  AnchorPool pool = MakePool();
  for (uint32_t i = 0; i < 3; ++i) Insert(pool, RandomAnchor(4, 2, i));
  const offset::Sketch sketch{.tokens = 5, .values = std::vector<float>(80)};
  const PoolAnswer answer = pool.Ask(sketch, {});
  EXPECT_FALSE(answer.has_rows);
  EXPECT_EQ(answer.evidence.runs, 3);
  EXPECT_EQ(answer.evidence.eligible, 0);
  EXPECT_EQ(answer.evidence.error.predicted, 3);
  EXPECT_TRUE(std::isinf(answer.evidence.nearest));
  EXPECT_EQ(answer.bytes_read, 0);
}

// Without rows the evidence is the same as with them.
TEST(AnchorPool, AboveTheBoundsThereAreNoRows) {
  AnchorPool pool = MakePool();
  for (uint32_t i = 0; i < 4; ++i) Insert(pool, RandomAnchor(4, 2, i));
  const offset::Sketch sketch = RandomAnchor(4, 2, 50).sketch;
  PoolQuestion question{.key = RandomAnchor(4, 2, 50).key, .mix = {.sharpness = 4.0}};
  const PoolAnswer with = pool.Ask(sketch, question);
  question.max_error = with.evidence.error.filling * 0.99;
  const PoolAnswer without = pool.Ask(sketch, question);
  EXPECT_TRUE(with.has_rows);
  EXPECT_FALSE(without.has_rows);
  EXPECT_EQ(without.bytes_read, 0);
  EXPECT_EQ(with.evidence.entropy, without.evidence.entropy);
  EXPECT_EQ(with.evidence.nearest, without.evidence.nearest);
  EXPECT_EQ(with.evidence.eligible, without.evidence.eligible);
  EXPECT_EQ(with.filling.keys, pool.MixFor(sketch, OptionsOf(pool)).FillingOffset().keys);
}

TEST(LinearPool, ErrorsAreOfWhatWasNotSeenYet) {
  LinearPool pool(AnchorShape::Of(RandomAnchor(30, 2, 0)), {.ridge = 1e-6});
  EXPECT_EQ(pool.maps(), nullptr);
  for (uint32_t i = 0; i < 6; ++i) {
    Anchor anchor = RandomAnchor(30, 2, i);
    const offset::KvRows base = offset::RandomRows(3, 30, 8, i + 300);
    // Offsets twice the base; prefix offsets of noise.
    anchor.filling = offset::OffsetOf(base, offset::KvRows::Of(3, 30, 8));
    for (float& value : anchor.filling.keys) value *= 2;
    ASSERT_TRUE(pool.Update(base, offset::RandomRows(3, 2, 8, i), anchor).ok());
    EXPECT_EQ(pool.maps()->error.predicted, i);
  }
  EXPECT_LT(pool.maps()->error.filling.share(), 0.01);
  EXPECT_GT(pool.maps()->error.prefix.share(), 0.5);
  EXPECT_FALSE(pool.Update(offset::RandomRows(3, 30, 8, 1), offset::RandomRows(3, 2, 8, 1),
                           RandomAnchor(29, 2, 1))
                   .ok());
}

}  // namespace
}  // namespace kedge
