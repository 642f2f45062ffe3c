// Several variants of one key: side by side, through restarts, removed one by one; the gate; and
// recoding on the way to the SSD and of what nobody uses.

#include <gtest/gtest.h>

#include "gpu/codec/block_codec.h"
#include "store/node/node_testing.h"

namespace kedge {
namespace {

using Variants = std::map<std::string, BlockMap::VariantStats>;

// What a chain makes of a raw block, computed here.
TestBlock Recoded(const TestBlock& raw, const char* chain) {
  const auto rotation = *codec::KeyRotation::Of(1e4, "", raw.header.shape.head_size);
  auto block = codec::RecodeBlock(*codec::CodecChain::Parse(raw.header.variant.view()), raw.header,
                                  raw.payload, *codec::CodecChain::Parse(chain), rotation);
  EXPECT_TRUE(block.ok()) << block.status();
  TestBlock made;
  made.header = std::move(block->header);
  made.payload = std::move(block->payload);
  made.encoded = *EncodeBlockHeader(made.header);
  return made;
}

struct Metrics final : MetricsVisitor {
  void Counter(std::string_view name, std::string_view, MetricLabels labels,
               double value) override {
    Note(name, labels, value);
  }
  void Gauge(std::string_view name, std::string_view, MetricLabels labels, double value) override {
    Note(name, labels, value);
  }
  void Histogram(std::string_view, std::string_view, MetricLabels, const HistogramView&) override {}
  void Note(std::string_view name, MetricLabels labels, double value) {
    std::string text(name);
    for (const auto& [label, is] : labels) text += " " + std::string(label) + "=" + std::string(is);
    values[text] = value;
  }
  std::map<std::string, double> values;
};

double MetricOf(const Node& node, const std::string& name) {
  Metrics metrics;
  node.VisitMetrics(metrics);
  EXPECT_EQ(metrics.values.count(name), 1u) << name;
  return metrics.values[name];
}

class NodeVariantsTest : public NodeTest {
 protected:
  void StartWithProfile(const std::map<std::string, bool>& chains,
                        const std::vector<std::string>& recode = {}) {
    world_.profile = TestProfile(chains);
    world_.options.recode = *RecodePolicy::Parse(recode);
    StartWithSsd();
  }
  Variants Held() {
    Variants held;
    for (const VariantStatus& variant : world_.node->Status().variants) {
      held[variant.variant] = variant.stats;
    }
    return held;
  }
  absl::StatusOr<uint32_t> RemoveVariant(const TestBlock& block, const char* variant) {
    std::mutex mutex;
    std::condition_variable changed;
    std::optional<absl::StatusOr<uint32_t>> result;
    world_.node->RemoveVariant(block.header.key, *Variant::Parse(variant), /*force=*/false,
                               [&](absl::StatusOr<uint32_t> count) {
                                 const std::lock_guard<std::mutex> lock(mutex);
                                 result = std::move(count);
                                 changed.notify_all();
                               });
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait(lock, [&] { return result.has_value(); });
    return *result;
  }
  double Metric(const std::string& name) { return MetricOf(*world_.node, name); }
  // The hour changes, and what is idle has been looked at.
  void PassHours(TestClient& client, int64_t hours) {
    for (int64_t i = 0; i < hours; ++i) Pass(client, 3'600'000);
    while (Metric("kedge_recode_look_running") != 0) client.Ping();
  }
};

TEST_F(NodeVariantsTest, LieSideBySide) {
  StartWithProfile({{"kivi4g32", true}});
  TestClient client(world_);
  const TestBlock raw = MakeModelTestBlock(1);
  const TestBlock kivi = Recoded(raw, "kivi4g32");
  ASSERT_EQ(client.Put(raw), ResultCode::kOk);
  ASSERT_EQ(client.Put(kivi), ResultCode::kOk);
  EXPECT_EQ(client.Put(kivi), ResultCode::kExists);
  EXPECT_EQ(client.Put(raw), ResultCode::kExists);

  EXPECT_EQ(client.Get(raw), ResultCode::kOk) << "lossless, when nothing is named";
  client.set_accepted({"raw", "kivi4g32"});
  EXPECT_EQ(client.Get(raw), ResultCode::kOk) << "the better one comes first";
  client.set_accepted({"kivi4g32", "raw"});
  EXPECT_EQ(client.Get(kivi), ResultCode::kOk);
  EXPECT_EQ(client.Match({&raw}).items[0].payload_bytes, kivi.payload.size());
  client.set_accepted({"kivi2g32"});
  EXPECT_EQ(client.Get(raw), ResultCode::kNoVariant);

  const Variants held = Held();
  ASSERT_EQ(held.size(), 2u);
  EXPECT_EQ(held.at("raw").host_blocks, 1u);
  EXPECT_EQ(held.at("raw").host_bytes, raw.payload.size());
  EXPECT_EQ(held.at("kivi4g32").host_bytes, kivi.payload.size());
  EXPECT_EQ(world_.node->Inspect(raw.header.key)->size(), 2u);
  EXPECT_EQ(Metric("kedge_variant_bytes variant=kivi4g32 tier=host"),
            static_cast<double>(kivi.payload.size()));
}

TEST_F(NodeVariantsTest, BothAreThereAfterARestartAndAreRemovedOneByOne) {
  StartWithProfile({{"kivi4g32", true}});
  const TestBlock raw = MakeModelTestBlock(1);
  const TestBlock kivi = Recoded(raw, "kivi4g32");
  {
    TestClient client(world_);
    ASSERT_EQ(client.Put(raw, kDurabilitySsd), ResultCode::kOk);
    ASSERT_EQ(client.Put(kivi, kDurabilitySsd), ResultCode::kOk);
  }
  Restart();
  EXPECT_EQ(Held().at("raw").ssd_blocks, 1u);
  EXPECT_EQ(Held().at("kivi4g32").ssd_bytes, kivi.payload.size());
  {
    TestClient client(world_);
    EXPECT_EQ(client.Get(raw), ResultCode::kOk);
    const uint64_t lease = client.Match({&raw}, kMatchFlagLease).lease;
    EXPECT_EQ(RemoveVariant(raw, "raw").status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(*RemoveVariant(raw, "kivi4g32"), 1u) << "nobody has a lease on that one";
    client.Release(lease);
    EXPECT_EQ(RemoveVariant(raw, "kivi4g32").status().code(), absl::StatusCode::kNotFound);
    EXPECT_EQ(client.Get(raw), ResultCode::kOk);
    client.set_accepted({"kivi4g32"});
    EXPECT_EQ(client.Get(kivi), ResultCode::kNoVariant);
    ASSERT_EQ(client.Put(kivi, kDurabilitySsd), ResultCode::kOk);
    EXPECT_EQ(*RemoveVariant(raw, "raw"), 1u);
  }
  Restart();
  TestClient client(world_);
  EXPECT_EQ(client.Get(raw), ResultCode::kNoVariant) << "held, but not lossless";
  client.set_accepted({"kivi4g32"});
  EXPECT_EQ(client.Get(kivi), ResultCode::kOk);
  EXPECT_EQ(client.Remove(kivi), ResultCode::kOk);
  EXPECT_EQ(client.Get(kivi), ResultCode::kRemoved);
}

TEST_F(NodeVariantsTest, TheGateRefusesWithItsFigure) {
  StartWithProfile({{"kivi4g32", true}, {"kivi2g32", false}});
  TestClient client(world_);
  const TestBlock raw = MakeModelTestBlock(1);
  EXPECT_EQ(client.Put(Recoded(raw, "kivi4g32")), ResultCode::kOk);
  const TestBlock refused = Recoded(raw, "kivi2g32");
  const PutReadyItem ready = client.Begin({&refused}).at(0);
  client.Chunk(ready.slot, 0, refused.payload);
  const PutDoneBody done = client.Commit(ready.slot, refused);
  EXPECT_EQ(done.code, ResultCode::kDenied);
  EXPECT_NE(done.text.find("12.5"), std::string::npos) << done.text;
  client.set_accepted({"kivi2g32"});
  EXPECT_EQ(client.Get(refused), ResultCode::kNoVariant);
}

TEST_F(NodeVariantsTest, WithoutAProfileOnlyAPlainWordHelps) {
  const TestBlock kivi = Recoded(MakeModelTestBlock(1), "kivi4g32");
  Start();
  {
    TestClient client(world_);
    EXPECT_EQ(client.Put(kivi), ResultCode::kDenied);
    EXPECT_EQ(client.Put(MakeModelTestBlock(1)), ResultCode::kOk) << "raw always may";
  }
  world_.allow_unprofiled = true;
  Restart();
  TestClient client(world_);
  EXPECT_EQ(client.Put(kivi), ResultCode::kOk);
}

TEST_F(NodeVariantsTest, ABlockIsOfItsSessionsTenant) {
  Start();
  TestClient client(world_);
  EXPECT_EQ(client.Put(MakeModelTestBlock(1, /*tenant=*/9)), ResultCode::kDenied);
}

TEST_F(NodeVariantsTest, BlocksOfVersionOneAreTakenAndKeepTheirBytes) {
  StartWithProfile({{"kivi4g32", true}}, {"ssd: kivi4g32"});
  TestBlock old = MakeModelTestBlock(1);
  old.header.model = {};
  SealTestBlock(old);
  ASSERT_EQ(old.encoded[4], 1);
  {
    TestClient client(world_);
    ASSERT_EQ(client.Put(old, kDurabilitySsd), ResultCode::kOk);
  }
  Restart();
  TestClient client(world_);
  EXPECT_EQ(client.Get(old), ResultCode::kOk);
  EXPECT_EQ(client.GetAll({&old})[0].header.root, old.header.root);
}

// A version that is shorter by a page: many parts.
TEST_F(NodeVariantsTest, HeadersOfBothVersionsFitTheirSlots) {
  Start();
  TestClient client(world_);
  for (uint16_t layers = 90; layers < 110; ++layers) {  // 192 + 40 * 97 and 216 + 40 * 97
    for (const bool named : {false, true}) {
      TestBlock block = MakeModelTestBlock(layers * 2 + named);
      block.header.shape = KvShape::KeysAndValues(layers, 1, 2, 32, DType::kF16);
      if (!named) block.header.model = {};
      block.payload = TestBytes(layers, layers * 2 * 128);
      block.header.parts.assign(layers * 2, PartEntry{128, {}});
      SealTestBlock(block);
      ASSERT_EQ(client.Put(block), ResultCode::kOk) << layers;
      ASSERT_EQ(client.Get(block), ResultCode::kOk) << layers;
    }
  }
  EXPECT_EQ(world_.node->Verify({}).damaged.size(), 0u);
}

// --- Recoding -----------------------------------------------------------------------------------

TEST_F(NodeVariantsTest, WhatGoesDownIsRecodedAsThePolicySays) {
  StartWithProfile({{"kivi4g32", true}}, {"ssd: kivi4g32"});
  const TestBlock raw = MakeModelTestBlock(1);
  const TestBlock kivi = Recoded(raw, "kivi4g32");
  const TestBlock opaque = MakeTestBlock(2);
  {
    TestClient client(world_);
    ASSERT_EQ(client.Put(raw), ResultCode::kOk);
    ASSERT_EQ(client.Put(opaque), ResultCode::kOk);
    world_.Flush();
    EXPECT_EQ(client.Get(raw), ResultCode::kOk) << "in host memory it is as it was put";
    const Variants held = Held();
    EXPECT_EQ(held.at("raw").host_blocks, 2u);
    EXPECT_EQ(held.at("raw").ssd_blocks, 1u) << "the opaque value";
    EXPECT_EQ(held.at("kivi4g32").ssd_bytes, kivi.payload.size());
    EXPECT_EQ(Metric("kedge_recoded_blocks_total from=raw to=kivi4g32"), 1);
    EXPECT_EQ(Metric("kedge_recoded_saved_bytes_total from=raw to=kivi4g32"),
              static_cast<double>(raw.payload.size() - kivi.payload.size()));
    ASSERT_EQ(PinsLeft(client), 0u);
    EvictAll();
    EXPECT_EQ(Metric("kedge_replaced_blocks_total"), 1);
    EXPECT_EQ(Metric("kedge_evicted_blocks_total tier=host"), 0);
    EXPECT_EQ(client.Get(raw), ResultCode::kNoVariant) << "never a lossy one in its place";
    client.set_accepted({"raw", "kivi4g32"});
    EXPECT_EQ(client.Get(kivi), ResultCode::kOk) << "bit by bit what is computed here";
  }
  Restart();
  TestClient client(world_);
  EXPECT_EQ(client.Get(opaque), ResultCode::kOk);
  client.set_accepted({"kivi4g32"});
  EXPECT_EQ(client.Get(kivi), ResultCode::kOk);
}

TEST_F(NodeVariantsTest, WhatWasPutAsDurableLiesThereAsItWasPut) {
  StartWithProfile({{"kivi4g32", true}}, {"ssd: kivi4g32"});
  TestClient client(world_);
  const TestBlock raw = MakeModelTestBlock(1);
  ASSERT_EQ(client.Put(raw, kDurabilitySsd), ResultCode::kOk);
  world_.Flush();
  EXPECT_EQ(Held().size(), 1u);
  EvictAll();
  EXPECT_EQ(client.Get(raw), ResultCode::kOk);
}

TEST_F(NodeVariantsTest, NothingIsRecodedThatTheGateOrTheTenantRefuses) {
  StartWithProfile({{"kivi4g32", true}, {"kivi2g32", false}},
                   {"ssd: kivi2g32", "tenant 7: ssd: raw"});
  TestClient client(world_);
  const TestBlock raw = MakeModelTestBlock(1);
  ASSERT_EQ(client.Put(raw), ResultCode::kOk);
  world_.Flush();
  EvictAll();
  EXPECT_EQ(client.Get(raw), ResultCode::kOk);
  EXPECT_EQ(Metric("kedge_recode_refused_total reason=gate"), 1);
}

TEST_F(NodeVariantsTest, WhatNobodyUsesIsRecodedLater) {
  StartWithProfile({{"kivi4g32", true}}, {"ssd after 2h: kivi4g32"});
  const TestBlock idle = MakeModelTestBlock(1);
  const TestBlock used = MakeModelTestBlock(2);
  const TestBlock other = MakeModelTestBlock(3);
  const TestBlock kivi = Recoded(idle, "kivi4g32");
  {
    TestClient client(world_);
    for (const TestBlock* block : {&idle, &used, &other}) {
      ASSERT_EQ(client.Put(*block, kDurabilitySsd), ResultCode::kOk);
    }
    EvictAll();
    PassHours(client, 1);
    EXPECT_EQ(Held().count("kivi4g32"), 0u);
    EXPECT_EQ(client.Get(used), ResultCode::kOk);
    ASSERT_EQ(PinsLeft(client), 0u);
    PassHours(client, 1);
    EXPECT_EQ(Metric("kedge_recoded_blocks_total from=raw to=kivi4g32"), 2);
    EXPECT_EQ(client.Get(idle), ResultCode::kNoVariant);
    EXPECT_EQ(client.Get(used), ResultCode::kOk);
    client.set_accepted({"kivi4g32"});
    EXPECT_EQ(client.Get(kivi), ResultCode::kOk);
  }
  Restart();  // the raw one stays away
  EXPECT_EQ(Held().at("raw").ssd_blocks, 1u);
  EXPECT_EQ(Held().at("kivi4g32").ssd_blocks, 2u);
  TestClient client(world_);
  client.set_accepted({"kivi4g32"});
  EXPECT_EQ(client.Get(kivi), ResultCode::kOk);
}

TEST_F(NodeVariantsTest, ALeasedBlockIsNotReplaced) {
  StartWithProfile({{"kivi4g32", true}}, {"ssd after 1h: kivi4g32"});
  world_.options.lease_ms_max = 100 * 3'600'000;
  Restart();
  TestClient client(world_);
  const TestBlock raw = MakeModelTestBlock(1);
  ASSERT_EQ(client.Put(raw, kDurabilitySsd), ResultCode::kOk);
  const uint64_t lease = client.Match({&raw}, kMatchFlagLease, 50 * 3'600'000).lease;
  ASSERT_NE(lease, 0u);
  PassHours(client, 3);
  EXPECT_EQ(Held().count("kivi4g32"), 0u);
  client.Release(lease);
  PassHours(client, 1);
  EXPECT_EQ(Held().count("kivi4g32"), 1u);
}

// Whatever operation of the disk is the last one: each block is there in one variant or the other.
TEST(NodeVariantsCrash, ACrashInTheMiddleOfRecodingLosesNothing) {
  constexpr int kBlocks = 3;
  uint64_t operations = 1;
  bool power_failed = true;
  for (int round = 0; power_failed; ++round, operations += 1) {
    ASSERT_LT(round, 200);
    TestWorld world;
    world.with_ssd = true;
    world.profile = TestProfile({{"kivi4g32", true}});
    world.options.recode = *RecodePolicy::Parse(std::vector<std::string>{"ssd after 1h: kivi4g32"});
    ASSERT_TRUE(world.Start().ok());
    std::vector<TestBlock> blocks;
    {
      TestClient client(world);
      for (int i = 0; i < kBlocks; ++i) {
        blocks.push_back(MakeModelTestBlock(i));
        ASSERT_EQ(client.Put(blocks.back(), kDurabilitySsd), ResultCode::kOk);
      }
      world.disk.FailAfter(operations);
      world.clock.AdvanceUs(3'600'000'000);
      while (world.node->Status().last_sweep_ms != world.clock.NowMs()) client.Ping();
      while (MetricOf(*world.node, "kedge_recode_look_running") != 0) client.Ping();
    }
    power_failed = world.disk.power_failed();
    world.Stop();
    Random random(round + 1);
    world.disk.CutPower(random);
    ASSERT_TRUE(world.Start().ok());
    TestClient client(world);
    for (const TestBlock& raw : blocks) {
      client.set_accepted({"raw", "kivi4g32"});
      const auto result = client.GetAll({&raw})[0];
      ASSERT_EQ(result.code, ResultCode::kOk) << "after operation " << operations;
      const bool is_raw = result.header.variant == Variant::Raw();
      ASSERT_EQ(result.payload, is_raw ? raw.payload : Recoded(raw, "kivi4g32").payload);
    }
  }
  EXPECT_GT(operations, 4u);
}

}  // namespace
}  // namespace kedge
