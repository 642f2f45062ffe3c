// Peers that stop in mid-transfer: a stalled node writes nothing late, a stalled or vanished client
// holds nobody up.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <vector>

#include "client/kv_client.h"
#include "store/world/random.h"
#include "tests/cluster/kedged_process.h"

namespace kedge {
namespace {

using std::chrono::milliseconds;

constexpr uint64_t kValueBytes = 1 << 20;
constexpr uint32_t kValues = 64;

class StallTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    KedgedProcess::Options options;
    options.listen = std::string(GetParam()) + "://127.0.0.1:0";
    options.flags = {"--host-capacity=512MiB", "--log-level=error"};
    auto node = KedgedProcess::Start(options);
    ASSERT_TRUE(node.ok()) << node.status();
    node_ = *std::move(node);
    source_.resize(kValues * kValueBytes);
    for (size_t i = 0; i < source_.size(); ++i)
      source_[i] = static_cast<uint8_t>(i * 31 + i / kValueBytes);
  }

  sdk::Result<sdk::Client> Open(const char* name) {
    return sdk::Client::Open(
        {.address = node_->data_address(), .salt = "stall", .client_name = name});
  }
  void PutAll(const sdk::Client& client) {
    std::vector<sdk::PutItem> items;
    for (uint32_t i = 0; i < kValues; ++i)
      items.push_back({Key(client, i), &source_[i * kValueBytes], kValueBytes});
    auto request = client.Put(items);
    ASSERT_TRUE(request) << request.text();
    auto status = sdk::Client::Finish(*request);
    ASSERT_TRUE(status) << status.text();
  }
  static sdk::Key Key(const sdk::Client& client, uint32_t i) {
    return client.KeyOf("stall " + std::to_string(i));
  }
  static std::vector<sdk::GetItem> GetItems(const sdk::Client& client,
                                            std::vector<uint8_t>& target) {
    std::vector<sdk::GetItem> items;
    for (uint32_t i = 0; i < kValues; ++i)
      items.push_back({Key(client, i), &target[i * kValueBytes], kValueBytes});
    return items;
  }
  // Everything can be fetched, and is right.
  void ExpectAllRight(const sdk::Client& client) {
    std::vector<uint8_t> target(source_.size());
    auto request = client.Get(GetItems(client, target));
    ASSERT_TRUE(request) << request.text();
    auto status = sdk::Client::Finish(*request);
    ASSERT_TRUE(status) << status.text();
    ASSERT_EQ(target, source_);
  }
  static bool WaitConnected(const sdk::Client& client) {
    for (int i = 0; i < 1000 && client.info().connected == 0; ++i)
      std::this_thread::sleep_for(milliseconds(10));
    return client.info().connected != 0;
  }

  std::unique_ptr<KedgedProcess> node_;
  std::vector<uint8_t> source_;
};

TEST_P(StallTest, AStoppedNodeWritesNothingIntoAReusedBuffer) {
  auto client = Open("stall_test");
  ASSERT_TRUE(client) << client.text();
  PutAll(*client);
  Random random(7);
  int in_mid_transfer = 0;
  for (int round = 0; round < 12; ++round) {
    std::vector<uint8_t> target(source_.size(), 0);
    auto request = client->Get(GetItems(*client, target));
    ASSERT_TRUE(request) << request.text();
    std::this_thread::sleep_for(std::chrono::microseconds(random.Below(4000)));
    node_->Signal(SIGSTOP);
    std::this_thread::sleep_for(milliseconds(20));
    const uint32_t arrived = request->prefix();
    request->Cancel();
    if (arrived < kValues) ++in_mid_transfer;
    std::fill(target.begin(), target.end(),
              0xa5);  // the caller's memory again: something else lives there now
    node_->Signal(SIGCONT);
    std::this_thread::sleep_for(milliseconds(100));
    ASSERT_TRUE(WaitConnected(*client));
    // An exchange after the stall: whatever the node still had to say has been said before this
    // answer.
    const sdk::Key key = Key(*client, 0);
    auto exists = client->Exists(std::span<const sdk::Key>(&key, 1));
    ASSERT_TRUE(exists) << exists.text();
    exists->Wait();
    ASSERT_TRUE(
        std::all_of(target.begin(), target.end(), [](uint8_t byte) { return byte == 0xa5; }))
        << "round " << round << ": a late write";
  }
  EXPECT_GT(in_mid_transfer, 0) << "no round stopped the node before the transfer was over";
  ExpectAllRight(*client);
}

TEST_P(StallTest, ACancelledPutToAStoppedNodeGivesItsMemoryBack) {
  auto client = Open("stall_test");
  ASSERT_TRUE(client) << client.text();
  node_->Signal(SIGSTOP);
  std::vector<uint8_t> mine = source_;
  std::vector<sdk::PutItem> items;
  for (uint32_t i = 0; i < kValues; ++i)
    items.push_back({Key(*client, i), &mine[i * kValueBytes], kValueBytes});
  auto request = client->Put(items);
  ASSERT_TRUE(request) << request.text();
  std::this_thread::sleep_for(milliseconds(50));
  request->Cancel();
  std::fill(mine.begin(), mine.end(), 0x5a);
  node_->Signal(SIGCONT);
  ASSERT_TRUE(WaitConnected(*client));
  PutAll(*client);  // nothing of the cancelled one stands in the way, and no mixture was kept
  ExpectAllRight(*client);
}

// Runs `body` with a client of its own in a child process; returns its pid.
template <typename Body>
pid_t InChild(const Body& body) {
  const pid_t pid = fork();
  if (pid == 0) {
    body();
    _exit(0);
  }
  return pid;
}

TEST_P(StallTest, AClientThatStopsOrVanishesInMidTransferHoldsNobodyUp) {
  // Children first: a client does not survive fork().
  const auto putter = [&](const char* name) {
    auto client = Open(name);
    for (uint64_t n = 0; client && n < 100'000; ++n) {
      const std::string key = std::string(name) + std::to_string(n);
      const sdk::PutItem item{client->KeyOf(key), &source_[n % kValues * kValueBytes], kValueBytes};
      auto request = client->Put(std::span<const sdk::PutItem>(&item, 1));
      if (!request) return;
      request->Wait();
    }
  };
  const pid_t stopped = InChild([&] { putter("stopped"); });
  const pid_t killed = InChild([&] { putter("killed"); });
  std::this_thread::sleep_for(milliseconds(500));
  kill(stopped, SIGSTOP);
  kill(killed, SIGKILL);
  waitpid(killed, nullptr, 0);

  auto client = Open("stall_test");
  ASSERT_TRUE(client) << client.text();
  for (int round = 0; round < 3; ++round) {
    PutAll(*client);
    ExpectAllRight(*client);
  }
  kill(stopped, SIGKILL);
  waitpid(stopped, nullptr, 0);
  ExpectAllRight(*client);
}

INSTANTIATE_TEST_SUITE_P(Wires, StallTest, testing::Values("tcp", "shm"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace kedge
