// Pools on a node: the same as in one's own process, refused with reasons, there after a restart.
#include <algorithm>
#include <map>
#include <string>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "store/node/anchor_testing.h"

namespace kedge {
namespace {

using ::testing::HasSubstr;

class Metrics final : public MetricsVisitor {
 public:
  void Counter(std::string_view name, std::string_view, MetricLabels labels,
               double value) override {
    std::string key(name);
    for (const auto& [label, text] : labels) key += "," + std::string(text);
    values[key] = value;
  }
  void Gauge(std::string_view name, std::string_view help, MetricLabels labels,
             double value) override {
    Counter(name, help, labels, value);
  }
  void Histogram(std::string_view, std::string_view, MetricLabels, const HistogramView&) override {}
  std::map<std::string, double> values;
};

class NodeAnchorTest : public NodeTest {
 protected:
  double Metric(const std::string& name) {
    Metrics metrics;
    world_.node->VisitMetrics(metrics);
    EXPECT_EQ(metrics.values.count(name), 1u) << name;
    return metrics.values[name];
  }
  // On the node and here.
  void Learn(TestClient& client, const TestPool& pool, AnchorPool& here, int64_t tokens,
             uint32_t seed, uint8_t durability = kDurabilityDefault) {
    const offset::Anchor anchor = TestAnchor(tokens, seed);
    const AnchorInsertedBody inserted = InsertAnchor(client, pool, anchor, durability);
    EXPECT_EQ(inserted.code, ResultCode::kOk) << inserted.text;
    ASSERT_TRUE(here.Insert(anchor).ok());
    EXPECT_EQ(inserted.anchors, here.size());
  }
  void ExpectSame(TestClient& client, const TestPool& pool, const AnchorPool& here,
                  int64_t tokens = 5) {
    for (const uint32_t seed : {1u, 2u, 900u, 901u}) {
      const offset::Anchor filling = TestAnchor(tokens, seed);
      const TestMixed mixed = AskMix(client, QuestionOf(pool, filling));
      ASSERT_EQ(mixed.type, FrameType::kMixReply) << mixed.text;
      EXPECT_EQ(mixed.reply.verdict, PoolVerdict::kOk);
      const PoolAnswer answer = here.Ask(filling.sketch, {.key = filling.key,
                                                          .context_digest = filling.context_digest,
                                                          .mix = {.sharpness = 4.0}});
      EXPECT_EQ(mixed.reply.runs, answer.evidence.runs);
      EXPECT_EQ(mixed.reply.longest, answer.evidence.longest);
      EXPECT_EQ(mixed.reply.eligible, answer.evidence.eligible);
      EXPECT_EQ(mixed.reply.same != 0, answer.evidence.same);
      EXPECT_EQ(mixed.reply.entropy, answer.evidence.entropy);
      EXPECT_EQ(mixed.reply.nearest, answer.evidence.nearest);
      EXPECT_EQ(mixed.reply.predicted, answer.evidence.error.predicted);
      EXPECT_EQ(mixed.reply.error[0], answer.evidence.error.filling);
      EXPECT_EQ(mixed.reply.error[1], answer.evidence.error.filling_worst);
      EXPECT_EQ(mixed.reply.active, answer.active);
      EXPECT_EQ(mixed.reply.read_bytes, answer.bytes_read);
      EXPECT_EQ(mixed.bytes, MixedHere(here, filling)) << seed;
    }
  }
  static AnchorPool PoolHere(const TestPool& pool) {
    return AnchorPool(AnchorShape::Of(TestAnchor(5, 0)), pool.options);
  }
  TestPool pool_{1};
};

TEST_F(NodeAnchorTest, MixesAsAPoolInOnesOwnProcessDoes) {
  Start();
  TestClient client(world_);
  AnchorPool here = PoolHere(pool_);
  for (uint32_t seed = 0; seed < 6; ++seed) Learn(client, pool_, here, 4 + seed % 3, seed);
  ExpectSame(client, pool_, here, 4);
  ExpectSame(client, pool_, here, 5);
  ExpectSame(client, pool_, here, 6);
  EXPECT_EQ(Metric("kedge_mixes_total,ok"), 12);
  // A request ends with the receipt of its last message, a little after its bytes.
  for (int i = 0; i < 1000 && Metric("kedge_requests_total,mix,ok") != 12; ++i) client.Ping();
  EXPECT_EQ(Metric("kedge_requests_total,mix,ok"), 12);
  EXPECT_EQ(Metric("kedge_anchor_inserts_total,ok"), 6);
  EXPECT_EQ(Metric("kedge_pool_anchors"), 6);
  EXPECT_GT(Metric("kedge_pool_memory_bytes"), 0);
  EXPECT_GT(Metric("kedge_mix_read_bytes_total"), 0);
  EXPECT_EQ(Metric("kedge_mix_held_bytes"), 0);
  // Without the frames that carry it nothing is pinned any more.
  EXPECT_EQ(PinsLeft(client), 0u);
}

TEST_F(NodeAnchorTest, HalfTypesTravelWhenTheyAreAskedFor) {
  Start();
  TestClient client(world_);
  AnchorPool here = PoolHere(pool_);
  for (uint32_t seed = 0; seed < 3; ++seed) Learn(client, pool_, here, 5, seed);
  MixBody question = QuestionOf(pool_, TestAnchor(5, 90));
  const TestMixed full = AskMix(client, question);
  question.dtype = DType::kBf16;
  const TestMixed half = AskMix(client, question);
  EXPECT_EQ(half.bytes.size() * 2, full.bytes.size());
  EXPECT_EQ(half.reply.active, full.reply.active);
}

TEST_F(NodeAnchorTest, WhatIsRefusedHasAReason) {
  Start();
  TestClient client(world_);
  AnchorPool here = PoolHere(pool_);
  for (uint32_t seed = 0; seed < 3; ++seed) Learn(client, pool_, here, 5, seed);
  const uint64_t blocks = world_.node->map().stats().blocks;

  offset::Anchor other = TestAnchor(5, 7);
  other.prefix_digest = 99;
  EXPECT_EQ(InsertAnchor(client, pool_, other).verdict, PoolVerdict::kTemplate);
  other = TestAnchor(5, 8);
  other.kind = offset::BaseKind::kProduced;
  EXPECT_EQ(InsertAnchor(client, pool_, other).verdict, PoolVerdict::kTemplate);
  other = TestAnchor(5, 9);
  other.filling = offset::RandomOffset(4, 5, 8, 1);
  other.prefix = offset::RandomOffset(4, 2, 8, 1);
  AnchorInsertedBody inserted = InsertAnchor(client, pool_, other);
  EXPECT_EQ(inserted.verdict, PoolVerdict::kShape);
  EXPECT_THAT(inserted.text, HasSubstr("anchor.shape: 4 layers"));
  TestBlock broken = AnchorBlock(pool_, TestAnchor(5, 10));
  broken.payload[0] ^= 1;  // its digest is right
  SealTestBlock(broken);
  inserted = InsertBlock(client, pool_, broken);
  EXPECT_EQ(inserted.verdict, PoolVerdict::kDamaged);
  EXPECT_THAT(inserted.text, HasSubstr("magic"));
  TestBlock wrong = AnchorBlock(pool_, TestAnchor(5, 11));
  wrong.payload[60] ^= 1;  // its digest is not
  inserted = InsertBlock(client, pool_, wrong);
  EXPECT_EQ(inserted.code, ResultCode::kMismatch);
  TestBlock opaque = AnchorBlock(pool_, TestAnchor(5, 12));
  opaque.header.keyspace = Keyspace::kOpaque;
  SealTestBlock(opaque);
  EXPECT_THAT(InsertBlock(client, pool_, opaque).text, HasSubstr("keyspace opaque"));
  TestPool elsewhere = pool_;
  ++elsewhere.placement;
  EXPECT_THAT(InsertAnchor(client, elsewhere, TestAnchor(5, 14)).text, HasSubstr("placement"));
  offset::Anchor flat = TestAnchor(5, 15);  // without a second layer it has no offsets
  flat.filling = offset::RandomOffset(1, 5, 8, 1);
  flat.prefix = offset::RandomOffset(1, 2, 8, 1);
  EXPECT_THAT(InsertAnchor(client, pool_, flat).text, HasSubstr("anchor.layers: 1"));
  const TestBlock sealed = AnchorBlock(pool_, TestAnchor(5, 13));
  const PutReadyItem ready = client.Begin({&sealed}).at(0);
  AnchorInsertBody insert = InsertOf(pool_, sealed, ready.slot, kDurabilityDefault);
  insert.flags = kAnchorFlagSealed;
  inserted = SendInsert(client, insert);
  EXPECT_EQ(inserted.code, ResultCode::kDenied);
  EXPECT_EQ(inserted.verdict, PoolVerdict::kSealed);
  EXPECT_EQ(SendInsert(client, InsertOf(pool_, sealed, 12345, kDurabilityDefault)).code,
            ResultCode::kAbsent);
  EXPECT_EQ(SendInsert(client, InsertOf(pool_, sealed, 0, kDurabilityDefault)).code,
            ResultCode::kAbsent);
  insert = InsertOf(pool_, sealed, 0, kDurabilitySsd);
  EXPECT_THAT(SendInsert(client, insert).text, HasSubstr("no SSD"));

  // Nothing is left of them.
  EXPECT_EQ(world_.node->map().stats().blocks, blocks);
  EXPECT_EQ(world_.node->Status().puts_open, 0u);
  EXPECT_EQ(Metric("kedge_anchor_inserts_total,template"), 2);
  EXPECT_EQ(Metric("kedge_anchor_inserts_total,shape"), 2);
  EXPECT_EQ(Metric("kedge_anchor_inserts_total,damaged"), 2);
  ExpectSame(client, pool_, here);

  const offset::Anchor filling = TestAnchor(5, 90);
  const auto verdict = [&](auto change) {
    MixBody question = QuestionOf(pool_, filling);
    change(question);
    const TestMixed mixed = AskMix(client, question);
    EXPECT_EQ(mixed.type, FrameType::kMixReply) << mixed.text;
    EXPECT_TRUE(mixed.bytes.empty());
    return mixed.reply.verdict;
  };
  EXPECT_EQ(verdict([](MixBody& q) { q.pool = TestKey(2, 77); }), PoolVerdict::kNoPool);
  EXPECT_EQ(verdict([](MixBody& q) { q.shape.layers = 4; }), PoolVerdict::kShape);
  EXPECT_EQ(verdict([](MixBody& q) { q.shape.prefix_digest = 5; }), PoolVerdict::kTemplate);
  EXPECT_EQ(verdict([](MixBody& q) {
              q.tokens = 0;
              q.sketch.clear();
            }),
            PoolVerdict::kEmpty);
  EXPECT_EQ(verdict([](MixBody& q) {
              q.shape.width = kMixWidthMax;
              q.shape.layers = kMixLayersMax;
            }),
            PoolVerdict::kTooLarge);
  // Longer than every anchor: evidence and no rows.
  const TestMixed longer = AskMix(client, QuestionOf(pool_, TestAnchor(6, 90)));
  EXPECT_EQ(longer.reply.eligible, 0u);
  EXPECT_EQ(longer.reply.longest, 5u);
  EXPECT_EQ(longer.reply.has_rows, 0);
  // An error above what was asked for: no rows either.
  MixBody strict = QuestionOf(pool_, filling);
  strict.max_error = 1e-9;
  EXPECT_EQ(AskMix(client, strict).reply.has_rows, 0);
  EXPECT_EQ(Metric("kedge_mixes_total,no_rows"), 2);
  EXPECT_EQ(Metric("kedge_mixes_total,no_pool"), 1);
  EXPECT_EQ(Metric("kedge_mixes_total,too_large"), 1);
}

TEST_F(NodeAnchorTest, TheFirstInsertOfAKeyStays) {
  Start();
  TestClient client(world_), second(world_);
  AnchorPool here = PoolHere(pool_);
  Learn(client, pool_, here, 5, 1);
  EXPECT_EQ(InsertAnchor(second, pool_, TestAnchor(5, 1)).code, ResultCode::kExists);
  // Other bytes under the same key, on their way while the first came in.
  offset::Anchor late = TestAnchor(5, 2);
  late.key = TestAnchor(5, 3).key;
  const TestBlock block = AnchorBlock(pool_, late);
  const PutReadyItem ready = second.Begin({&block}).at(0);
  ASSERT_EQ(ready.code, ResultCode::kOk);
  Learn(client, pool_, here, 5, 3);
  second.Chunk(ready.slot, 0, block.payload);
  EXPECT_EQ(SendInsert(second, InsertOf(pool_, block, ready.slot, kDurabilityDefault)).code,
            ResultCode::kExists);
  ExpectSame(client, pool_, here);
}

TEST_F(NodeAnchorTest, ActivationsDecideWhoGoes) {
  Start();
  TestClient client(world_);
  pool_.options = {.capacity = 3, .window = 3, .nucleus = 0.1};
  AnchorPool here = PoolHere(pool_);
  for (uint32_t seed = 0; seed < 3; ++seed) Learn(client, pool_, here, 5, seed);
  // 0 is of use, so that 1 goes first.
  offset::Anchor like = TestAnchor(5, 0);
  like.context_digest = 1;
  const TestMixed mixed = AskMix(client, QuestionOf(pool_, like));
  ASSERT_EQ(mixed.reply.active, std::vector<BlockKey>{TestAnchor(5, 0).key});
  SendUsed(client, pool_, mixed.reply.active);
  here.Activate(mixed.reply.active);
  for (uint32_t seed = 3; seed < 5; ++seed) Learn(client, pool_, here, 5, seed);
  EXPECT_NE(here.Find(TestAnchor(5, 0).key), nullptr);
  EXPECT_EQ(here.Find(TestAnchor(5, 1).key), nullptr);
  ExpectSame(client, pool_, here);
  EXPECT_EQ(Metric("kedge_anchor_evictions_total"), 2);
  // One that went may come again, with other bytes.
  offset::Anchor again = TestAnchor(5, 40);
  again.key = TestAnchor(5, 1).key;
  EXPECT_EQ(InsertAnchor(client, pool_, again).code, ResultCode::kOk);
  ASSERT_TRUE(here.Insert(again).ok());
  ExpectSame(client, pool_, here);
}

TEST_F(NodeAnchorTest, ConcurrentInsertsLoseNothing) {
  StartWithSsd();
  constexpr uint32_t kClients = 4, kEach = 12;
  pool_.options.capacity = kClients * kEach;
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < kClients; ++t) {
    threads.emplace_back([&, t] {
      TestClient client(world_);
      for (uint32_t i = 0; i < kEach; ++i) {
        const offset::Anchor anchor = TestAnchor(5, t * kEach + i);
        EXPECT_EQ(
            InsertAnchor(client, pool_, anchor, i % 2 == 0 ? kDurabilitySsd : kDurabilityHost).code,
            ResultCode::kOk);
        EXPECT_EQ(AskMix(client, QuestionOf(pool_, anchor)).reply.same, 1);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(Metric("kedge_pool_anchors"), kClients * kEach);
  world_.Flush();
  Restart();
  TestClient client(world_);
  for (uint32_t i = 0; i < kClients * kEach; ++i)
    EXPECT_EQ(AskMix(client, QuestionOf(pool_, TestAnchor(5, i))).reply.same, 1) << i;
}

// What was acknowledged as durable is there after a power cut, and goes on to the bit.
TEST_F(NodeAnchorTest, SurvivesAPowerCut) {
  StartWithSsd();
  pool_.options = {.capacity = 4, .window = 3};
  AnchorPool here = PoolHere(pool_);
  for (int life = 0; life < 3; ++life) {
    TestClient client(world_);
    for (uint32_t i = 0; i < 3; ++i) {
      // Activations that the next insert makes durable.
      const offset::Anchor filling = TestAnchor(4, 500 + i);
      const TestMixed mixed = AskMix(client, QuestionOf(pool_, filling));
      SendUsed(client, pool_, mixed.reply.active);
      here.Activate(mixed.reply.active);
      Learn(client, pool_, here, 5, static_cast<uint32_t>(life) * 3 + i, kDurabilitySsd);
    }
    ExpectSame(client, pool_, here);
    world_.Stop();
    Random random(static_cast<uint64_t>(life) + 1);
    world_.disk.CutPower(random);
    Start();
    TestClient again(world_);
    ExpectSame(again, pool_, here);
    EXPECT_EQ(Metric("kedge_pool_loads_total"), 1);
    EXPECT_EQ(Metric("kedge_anchor_missing_total"), 0);
  }
  // Evicted anchors and old rosters are taken back: four anchors and a roster are left.
  TestClient client(world_);
  client.Ping();
  world_.Flush();
  EXPECT_LE(world_.node->map().stats().blocks, 6u);
}

// What need not be durable at once is with the next checkpoint; a drain makes one.
TEST_F(NodeAnchorTest, CheckpointsWhatNeedNotBeDurable) {
  StartWithSsd();
  AnchorPool here = PoolHere(pool_);
  {
    TestClient client(world_);
    for (uint32_t seed = 0; seed < 3; ++seed) Learn(client, pool_, here, 5, seed);
    Pass(client, kPoolCheckpointMs + 200);
    while (Metric("kedge_pool_rosters_total") == 0) client.Ping();
    const TestMixed mixed = AskMix(client, QuestionOf(pool_, TestAnchor(5, 600)));
    SendUsed(client, pool_, mixed.reply.active);
    here.Activate(mixed.reply.active);
    world_.Flush();
  }
  Restart();
  TestClient client(world_);
  ExpectSame(client, pool_, here);
}

TEST_F(NodeAnchorTest, PoolsAreUnloadedAndReadAgain) {
  world_.options.pool_memory_bytes = 9'000;  // one pool and a half
  world_.host_bytes = 2 * kHostExtentBytes;
  for (const bool ssd : {false, true}) {
    world_.with_ssd = ssd;
    Start();
    {
      TestClient client(world_);
      std::vector<TestPool> pools;
      std::vector<std::unique_ptr<AnchorPool>> here;
      for (uint32_t i = 0; i < 4; ++i) {
        pools.emplace_back(100 + i);
        here.push_back(
            std::make_unique<AnchorPool>(AnchorShape::Of(TestAnchor(5, 0)), pools.back().options));
        for (uint32_t seed = 0; seed < 3; ++seed)
          Learn(client, pools[i], *here[i], 5, 10 * (i + 1) + seed);
      }
      EXPECT_GT(Metric("kedge_pool_unloads_total"), 0);
      EXPECT_LE(Metric("kedge_pool_memory_bytes"), 9'000);
      for (int round = 0; round < 2; ++round)
        for (uint32_t i = 0; i < 4; ++i) ExpectSame(client, pools[i], *here[i]);
      EXPECT_GT(Metric("kedge_pool_loads_total"), 4);
      EXPECT_EQ(Metric("kedge_pools"), 4);
      EXPECT_LE(Metric("kedge_pool_memory_bytes"), 9'000);
    }
    world_.Stop();
  }
}

TEST_F(NodeAnchorTest, AnAnchorThatNoPoolCanHoldIsRefused) {
  world_.options.pool_memory_bytes = 1'000;
  Start();
  TestClient client(world_);
  const AnchorInsertedBody inserted = InsertAnchor(client, pool_, TestAnchor(5, 1));
  EXPECT_EQ(inserted.code, ResultCode::kExhausted);
  EXPECT_EQ(inserted.verdict, PoolVerdict::kTooLarge);
  EXPECT_EQ(AskMix(client, QuestionOf(pool_, TestAnchor(5, 1))).reply.verdict,
            PoolVerdict::kNoPool);
}

TEST_F(NodeAnchorTest, SketchesComeInSeveralFrames) {
  Start();
  TestClient client(world_);
  AnchorPool here = PoolHere(pool_);
  for (uint32_t seed = 0; seed < 3; ++seed) Learn(client, pool_, here, 3'000, seed);
  const offset::Anchor filling = TestAnchor(2'500, 90);
  const MixBody whole = QuestionOf(pool_, filling);
  const auto frame = [&](uint32_t first, uint32_t rows) {
    MixBody part = whole;
    part.sketch_first = first;
    part.sketch.assign(whole.sketch.begin() + first * kSketchFloats,
                       whole.sketch.begin() + (first + rows) * kSketchFloats);
    std::vector<uint8_t> body;
    EncodeMix(part, body);
    return body;
  };
  const uint64_t request = client.Send(FrameType::kMix, frame(1'024, 1'024));
  client.SendAs(request, FrameType::kMix, frame(2'048, 452));
  client.SendAs(request, FrameType::kMix, frame(0, 1'024));
  EXPECT_EQ(WaitMixed(client, request, pool_.key).bytes, MixedHere(here, filling));
  // The same rows twice.
  const uint64_t twice = client.Send(FrameType::kMix, frame(0, 1'000));
  client.SendAs(twice, FrameType::kMix, frame(999, 1'024));
  const TestMixed refused = WaitMixed(client, twice, pool_.key);
  EXPECT_EQ(refused.error, ResultCode::kInvalid);
  EXPECT_THAT(refused.text, HasSubstr("sketch_first: 999"));
  // One that does not come whole ends with its deadline.
  std::vector<uint8_t> begun = frame(0, 1'000);
  const uint64_t late = client.Send(FrameType::kMix, begun, {}, 50);
  client.Ping();
  Pass(client, 200);
  EXPECT_EQ(WaitMixed(client, late, pool_.key).error, ResultCode::kDeadline);
  // No more than so many at a time.
  TestMixed full;
  for (uint32_t i = 0; i <= kMixesInPartsMax; ++i) {
    const uint64_t one = client.Send(FrameType::kMix, frame(0, 10));
    if (i == kMixesInPartsMax) full = WaitMixed(client, one, pool_.key);
  }
  EXPECT_EQ(full.error, ResultCode::kExhausted);
}

}  // namespace
}  // namespace kedge
