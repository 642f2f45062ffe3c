// Pools on a kedged over tcp: the same to the bit as in this process, with two clients at once, and
// through kills (SIGKILL) while anchors are learnt.
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <set>
#include <thread>
#include <vector>

#include "client/reuse/local_pools.h"
#include "client/reuse/node_pools.h"
#include "client/reuse/testing_pools.h"
#include "proto/offset_messages.h"
#include "store/world/random.h"
#include "tests/cluster/kedged_process.h"

namespace kedge {
namespace {

const offset::PoolName kPool{"mason", "question", offset::BaseKind::kCanonical};

class PoolsTest : public ::testing::Test {
 protected:
  void Start() {
    const std::string directory = std::string(::testing::TempDir()) + "/pools_crash";
    std::filesystem::remove_all(directory);
    std::filesystem::create_directories(directory);
    auto started =
        KedgedProcess::Start({.flags = {"--host-capacity=128MiB", "--ssd-path=" + directory,
                                        "--ssd-capacity=1GiB", "--ssd-segment=128MiB"}});
    ASSERT_TRUE(started.ok()) << started.status();
    kedged_ = *std::move(started);
  }
  std::shared_ptr<Engine> Connect() {
    auto engine = Engine::Open({.address = kedged_->data_address(), .client_name = "pools"});
    EXPECT_TRUE(engine.ok()) << engine.status();
    EXPECT_TRUE((*engine)->WaitConnected(20'000).ok());
    return *engine;
  }
  static NodePoolsOptions Durable(int64_t capacity) {
    return {.pool = {.capacity = capacity, .window = 3}, .durability = kDurabilitySsd};
  }
  std::unique_ptr<KedgedProcess> kedged_;
};

TEST_F(PoolsTest, AreTheSameOverTcpAndThroughKills) {
  Start();
  LocalPools local({.pool = {.capacity = 6, .window = 3}});
  for (uint32_t life = 0; life < 4; ++life) {
    const std::shared_ptr<Engine> engine = Connect();
    NodePools node(engine, TestingSalt(), Fingerprint{}, Durable(6));
    ExpectSamePools(node, local, kPool);
    Serve(node, local, kPool, life * 4, 4);
    ExpectSamePools(node, local, kPool);
    engine->Close();
    kedged_->Kill();
    ASSERT_TRUE(kedged_->Restart().ok());
  }
}

TEST_F(PoolsTest, TwoClientsLoseNothing) {
  Start();
  constexpr uint32_t kEach = 15;
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < 2; ++t) {
    threads.emplace_back([&, t] {
      const std::shared_ptr<Engine> engine = Connect();
      NodePools node(engine, TestingSalt(), Fingerprint{}, Durable(2 * kEach));
      for (uint32_t i = 0; i < kEach; ++i) {
        const absl::Status s = node.Learn(TestingLesson(kPool, 5, t * kEach + i));
        EXPECT_TRUE(s.ok()) << s;
      }
      engine->Close();
    });
  }
  for (std::thread& thread : threads) thread.join();
  const std::shared_ptr<Engine> engine = Connect();
  NodePools node(engine, TestingSalt(), Fingerprint{}, Durable(2 * kEach));
  for (uint32_t seed = 0; seed < 2 * kEach; ++seed)
    EXPECT_TRUE(node.Mix(TestingQuestion(kPool, 5, seed))->evidence.same) << seed;
  engine->Close();
}

// At random points: what was acknowledged is in the pool afterwards, what was not is there whole or
// not at all, and a pool is never lost for it.
TEST_F(PoolsTest, KillsWhileLearningLoseNothingThatWasAcknowledged) {
  Start();
  Random random(5);
  std::set<uint32_t> acknowledged;
  uint32_t next = 0;
  for (int kill = 0; kill < 12; ++kill) {
    const std::shared_ptr<Engine> engine = Connect();
    NodePools node(engine, TestingSalt(), Fingerprint{}, Durable(kAnchorsPerPoolMax));
    for (const uint32_t seed : acknowledged) {
      const absl::StatusOr<OffsetAnswer> answer = node.Mix(TestingQuestion(kPool, 5, seed));
      ASSERT_TRUE(answer.ok()) << answer.status();
      ASSERT_TRUE(answer->evidence.same) << seed << " after kill " << kill;
      EXPECT_EQ(answer->filling.keys, TestingAnchor(kPool, 5, seed).filling.keys);
    }
    std::thread learner([&] {
      for (; next < kAnchorsPerPoolMax; ++next) {
        if (!node.Learn(TestingLesson(kPool, 5, next)).ok()) return;
        acknowledged.insert(next);
      }
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(5 + random.Below(60)));
    kedged_->Kill();
    learner.join();
    engine->Close();
    ++next;  // it may be there or not
    ASSERT_TRUE(kedged_->Restart().ok());
  }
  EXPECT_GT(acknowledged.size(), 0u);
}

}  // namespace
}  // namespace kedge
