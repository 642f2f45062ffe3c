// Pools on a node against pools in this process: the same to the bit; and what happens when there
// is no node, no time or no room.
#include "client/reuse/node_pools.h"

#include <atomic>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "client/reuse/kvcomm.h"
#include "client/reuse/local_pools.h"
#include "client/reuse/testing_pools.h"
#include "gmock/gmock.h"
#include "gpu/model/testing_model.h"
#include "gtest/gtest.h"

namespace kedge {
namespace {

using ::testing::HasSubstr;

std::shared_ptr<Engine> Open(const std::string& address = "embedded:?host=128MiB") {
  auto engine = Engine::Open({.address = address, .client_name = "pools"});
  EXPECT_TRUE(engine.ok()) << engine.status();
  EXPECT_TRUE((*engine)->WaitConnected(10'000).ok());
  return *engine;
}

const offset::PoolName kPool{"mason", "question", offset::BaseKind::kCanonical};

class NodePoolsTest : public ::testing::Test {
 protected:
  ~NodePoolsTest() override { engine_->Close(); }
  NodePools Make(const NodePoolsOptions& options = {}) {
    return NodePools(engine_, TestingSalt(), Fingerprint{}, options);
  }
  std::shared_ptr<Engine> engine_ = Open();
};

TEST_F(NodePoolsTest, AgreeWithPoolsHereToTheBit) {
  NodePools node = Make({.pool = {.capacity = 5, .window = 3}});
  LocalPools local({.pool = {.capacity = 5, .window = 3}});
  ExpectSamePools(node, local, kPool);  // nothing learnt
  Serve(node, local, kPool, 0, 3);
  ExpectSamePools(node, local, kPool);
  Serve(node, local, kPool, 3, 9);  // and evicted
  ExpectSamePools(node, local, kPool);
}

TEST_F(NodePoolsTest, AgreeInHalfTypes) {
  for (const DType dtype : {DType::kBf16, DType::kF16}) {
    const offset::PoolName pool{"mason", "dtype " + std::to_string(static_cast<int>(dtype)),
                                offset::BaseKind::kCanonical};
    NodePools node = Make({.anchor_dtype = dtype, .answer_dtype = dtype});
    LocalPools local({.anchor_dtype = dtype, .answer_dtype = dtype});
    Serve(node, local, pool, 0, 6);
    ExpectSamePools(node, local, pool);
  }
}

// A filling whose sketch needs several frames, and whose answer needs several chunks.
TEST_F(NodePoolsTest, AgreeOnLongFillings) {
  NodePools node = Make();
  LocalPools local;
  for (uint32_t seed = 0; seed < 3; ++seed) {
    for (OffsetPools* pools : std::initializer_list<OffsetPools*>{&node, &local})
      ASSERT_TRUE(pools->Learn(TestingLesson(kPool, 9'000, seed)).ok());
  }
  const OffsetQuestion question = TestingQuestion(kPool, 8'500, 50);
  ExpectSameAnswer(node, local, question);
  const absl::StatusOr<OffsetAnswer> answer = node.Mix(question);
  ASSERT_TRUE(answer.ok());
  const int64_t sketch = 8'500 * 64, rows = 2 * 2 * (8'500 + 2) * 8 * 4;
  EXPECT_GE(answer->bytes_moved, sketch + rows);
  EXPECT_LE(answer->bytes_moved, (sketch + rows) * 101 / 100 + 4096);
}

TEST_F(NodePoolsTest, KindsAndTenantsDoNotMix) {
  NodePools node = Make();
  ASSERT_TRUE(node.Learn(TestingLesson(kPool, 5, 1)).ok());
  offset::PoolName produced = kPool;
  produced.kind = offset::BaseKind::kProduced;
  EXPECT_EQ(node.Mix(TestingQuestion(produced, 5, 1))->refusal, OffsetRefusal::kNoPool);
  NodePools other(engine_, *TenantSalt::FromText("another"), Fingerprint{});
  EXPECT_EQ(other.Mix(TestingQuestion(kPool, 5, 1))->refusal, OffsetRefusal::kNoPool);
  EXPECT_EQ(node.Mix(TestingQuestion(kPool, 5, 1))->refusal, OffsetRefusal::kNone);
}

TEST_F(NodePoolsTest, WhatIsWrongIsNamed) {
  NodePools node = Make();
  ASSERT_TRUE(node.Learn(TestingLesson(kPool, 5, 1)).ok());
  ASSERT_TRUE(node.Learn(TestingLesson(kPool, 5, 1)).ok());  // the same again
  OffsetLesson lesson = TestingLesson(kPool, 5, 2);
  lesson.anchor.prefix_digest = 99;
  const absl::Status s = node.Learn(lesson);
  EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument) << s;
  EXPECT_THAT(std::string(s.message()), HasSubstr("template"));
  EXPECT_FALSE(node.Learn(TestingLesson(kPool, 0, 3)).ok());
  lesson = TestingLesson(kPool, 5, 4);
  lesson.anchor.filling.keys[60] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(std::string(node.Learn(lesson).message()), HasSubstr("finite"));
  EXPECT_EQ(node.Mix(TestingQuestion(kPool, 5, 9))->evidence.runs, 1);

  OffsetQuestion question = TestingQuestion(kPool, 5, 1);
  question.shape.prefix_digest = 5;
  EXPECT_EQ(node.Mix(question)->refusal, OffsetRefusal::kTemplate);
  question.shape.layers = 7;
  EXPECT_EQ(node.Mix(question)->refusal, OffsetRefusal::kShape);
  question.shape.layers = 0;
  EXPECT_EQ(node.Mix(question).status().code(), absl::StatusCode::kInvalidArgument);
  question = TestingQuestion(kPool, 5, 1);
  question.sketch.values.pop_back();
  EXPECT_THAT(std::string(node.Mix(question).status().message()), HasSubstr("sketch"));
}

TEST_F(NodePoolsTest, CancelAndDestructionEndQuestions) {
  NodePools node = Make();
  for (uint32_t seed = 0; seed < 3; ++seed)
    ASSERT_TRUE(node.Learn(TestingLesson(kPool, 3'000, seed)).ok());
  for (int i = 0; i < 12; ++i) {
    auto call = node.Ask(TestingQuestion(kPool, 2'500, 60));
    if (i % 2 == 0) call->Cancel();
    if (i % 3 == 0) {
      const absl::StatusOr<OffsetAnswer> answer = call->Wait();
      EXPECT_TRUE(answer.ok() || absl::IsCancelled(answer.status())) << answer.status();
    }
  }
  // It goes on.
  LocalPools local;
  for (uint32_t seed = 0; seed < 3; ++seed)
    ASSERT_TRUE(local.Learn(TestingLesson(kPool, 3'000, seed)).ok());
  ExpectSameAnswer(node, local, TestingQuestion(kPool, 2'500, 61));
  engine_->Close();
  EXPECT_TRUE(absl::IsUnavailable(node.Mix(TestingQuestion(kPool, 5, 1)).status()));
  EXPECT_TRUE(absl::IsUnavailable(node.Learn(TestingLesson(kPool, 5, 1))));
  node.Activate(kPool, {.active = {TestingAnchor(kPool, 5, 1).key}});
}

TEST_F(NodePoolsTest, ConcurrentLearningLosesNothing) {
  constexpr uint32_t kThreads = 4, kEach = 10;
  NodePools node = Make({.pool = {.capacity = kThreads * kEach}});
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (uint32_t i = 0; i < kEach; ++i) {
        const uint32_t seed = t * kEach + i;
        EXPECT_TRUE(node.Learn(TestingLesson(kPool, 5, seed)).ok());
        EXPECT_TRUE(node.Mix(TestingQuestion(kPool, 5, seed))->evidence.same);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(node.Mix(TestingQuestion(kPool, 5, 999))->evidence.runs, kThreads * kEach);
}

TEST(NodePools, AreThereAgainWithTheSsdTheyWereOn) {
  const std::string directory = std::string(::testing::TempDir()) + "/pools_ssd";
  std::filesystem::remove_all(directory);
  std::filesystem::create_directories(directory);
  const std::string address = "embedded:?host=128MiB&ssd_size=1GiB&ssd=" + directory;
  LocalPools local({.pool = {.capacity = 4, .window = 3}});
  for (uint32_t life = 0; life < 3; ++life) {
    const std::shared_ptr<Engine> engine = Open(address);
    NodePools node(engine, TestingSalt(), Fingerprint{},
                   {.pool = {.capacity = 4, .window = 3}, .durability = kDurabilitySsd});
    ExpectSamePools(node, local, kPool);
    Serve(node, local, kPool, life * 3, 3);
    ExpectSamePools(node, local, kPool);
    engine->Close();
  }
}

// The whole of Kvcomm, on a model: prompts come out the same, by the bit, wherever pools are.
TEST_F(NodePoolsTest, KvcommIsTheSameOverBoth) {
  CpuDevice device(1);
  const auto model = MakeTestingModel(Architecture::kLlama, device, {.kv_dtype = DType::kF32});
  NodePools node = Make();
  LocalPools local;
  KvcommOptions options;
  options.gate.max_error = options.gate.max_token_error = 1e9;
  Kvcomm over_node(TestingSalt(), Fingerprint{}, options, node);
  Kvcomm over_local(TestingSalt(), Fingerprint{}, options, local);
  bool corrected = false;
  for (int32_t seed = 1; seed < 7; ++seed) {
    std::vector<int32_t> tokens = TestingPrompt(18);
    for (int32_t i = 0; i < 15; ++i) tokens.insert(tokens.begin() + 12, (seed * 31 + i * 7) % 250);
    OffsetPrompt prompt{.consumer = "mason", .tokens = tokens, .lead = 1};
    prompt.segments = {{.first = 0, .count = 12},
                       {.filling = true, .placeholder = "question", .first = 12, .count = 15},
                       {.first = 27, .count = 6}};
    KvCache a = *model->NewCache(33), b = *model->NewCache(33);
    const auto from_node = over_node.Apply(*model, prompt, a);
    const auto from_local = over_local.Apply(*model, prompt, b);
    ASSERT_TRUE(from_node.ok() && from_local.ok());
    EXPECT_EQ((*from_node)[0].refusal, (*from_local)[0].refusal);
    corrected = corrected || (*from_node)[0].refusal == OffsetRefusal::kNone;
    EXPECT_GT((*from_node)[0].bytes_moved, 0);
    for (int64_t layer = 0; layer < 3; ++layer) {
      for (const Component component : {Component::kK, Component::kV}) {
        const auto x = a.PartSpan(layer, component, 0, 32), y = b.PartSpan(layer, component, 0, 32);
        EXPECT_TRUE(std::equal(x.begin(), x.end(), y.begin()));
      }
    }
    const DenseContext dense = *DenseContext::Compute(*model, tokens);
    ASSERT_TRUE(over_node.Learn(*model, prompt, dense).ok());
    ASSERT_TRUE(over_local.Learn(*model, prompt, dense).ok());
  }
  EXPECT_TRUE(corrected);
}

}  // namespace
}  // namespace kedge
