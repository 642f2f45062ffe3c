// The client against a real kedged: over tcp and shared memory, through restarts, and with the node
// stopped in the middle.

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "tests/client/client_suite.h"
#include "tests/cluster/kedged_process.h"

namespace kedge {
namespace {

using sdk::Code;

std::unique_ptr<KedgedProcess> StartKedged(const std::string& scheme,
                                           std::vector<std::string> flags = {}) {
  KedgedProcess::Options options;
  options.listen = scheme + "://127.0.0.1:0";
  options.flags = std::move(flags);
  options.flags.push_back("--host-capacity=4GiB");
  options.flags.push_back("--allow-unprofiled=true");
  auto process = KedgedProcess::Start(options);
  EXPECT_TRUE(process.ok()) << process.status();
  return process.ok() ? *std::move(process) : nullptr;
}

class KedgedTestNode final : public TestNode {
 public:
  explicit KedgedTestNode(std::unique_ptr<KedgedProcess> process) : process_(std::move(process)) {}
  std::string address() const override { return process_->data_address(); }

 private:
  std::unique_ptr<KedgedProcess> process_;
};

WireUnderTest Wire(const std::string& scheme) {
  return {scheme, [scheme]() -> std::unique_ptr<TestNode> {
            auto process = StartKedged(scheme);
            if (process == nullptr) return nullptr;
            return std::make_unique<KedgedTestNode>(std::move(process));
          }};
}

INSTANTIATE_TEST_SUITE_P(Kedged, ClientSuite, ::testing::Values(Wire("tcp"), Wire("shm")),
                         [](const auto& info) { return info.param.name; });

class KedgedFailures : public ::testing::TestWithParam<std::string> {
 protected:
  void Start(std::vector<std::string> flags = {}) {
    kedged_ = StartKedged(GetParam(), std::move(flags));
    ASSERT_NE(kedged_, nullptr);
    auto client = sdk::Client::Open({.address = kedged_->data_address(), .salt = "s"});
    ASSERT_TRUE(client) << client.text();
    client_ = std::move(*client);
  }
  // Values of 1 MiB under the names "0", "1", ...
  void PutValues(uint32_t count) {
    std::vector<sdk::PutItem> items;
    for (uint32_t i = 0; i < count; ++i) {
      values_.emplace_back(1 << 20, static_cast<uint8_t>(i + 1));
      items.push_back({client_->KeyOf(std::to_string(i)), values_[i].data(), values_[i].size()});
    }
    auto put = client_->Put(items);
    ASSERT_TRUE(put && put->Wait());
    ASSERT_TRUE(put->all_ok()) << put->text();
  }
  std::vector<sdk::GetItem> Gets(std::vector<std::vector<uint8_t>>& memory) const {
    std::vector<sdk::GetItem> items;
    for (size_t i = 0; i < memory.size(); ++i) {
      items.push_back({client_->KeyOf(std::to_string(i)), memory[i].data(), memory[i].size()});
    }
    return items;
  }
  // Asks again and again, as an engine would, until it is there.
  bool EventuallyHolds(const std::string& name) {
    for (int i = 0; i < 3000; ++i) {
      auto value = client_->Get(name);
      if (value) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }

  std::unique_ptr<KedgedProcess> kedged_;
  std::optional<sdk::Client> client_;
  std::vector<std::vector<uint8_t>> values_;
};

INSTANTIATE_TEST_SUITE_P(Wires, KedgedFailures, ::testing::Values("tcp", "shm"),
                         [](const auto& info) { return info.param; });

TEST_P(KedgedFailures, OutlivesARestart) {
  const std::string ssd =
      std::string(std::getenv("TEST_TMPDIR") ? std::getenv("TEST_TMPDIR") : "/tmp") +
      "/kedge_restart_" + GetParam() + "_" + std::to_string(getpid());
  Start({"--ssd-path=" + ssd, "--ssd-capacity=1GiB"});
  ASSERT_TRUE(client_->Put("durable", "value", sdk::Durability::kSsd));
  const uint64_t session = client_->info().session;
  kedged_->Kill();
  // A miss, not a hang and not wrong bytes. The first request may still find the connection and
  // lose it.
  for (int i = 0; i < 3; ++i) {
    const auto value = client_->Get("durable");
    EXPECT_EQ(value.code(), Code::kUnavailable) << value.text();
    EXPECT_FALSE(value.text().empty());
  }
  ASSERT_TRUE(kedged_->Restart().ok());
  ASSERT_TRUE(EventuallyHolds("durable"));
  EXPECT_EQ(client_->Get("durable").value(), "value");
  EXPECT_NE(client_->info().session, session);
  EXPECT_GE(client_->info().reconnects, 1u);
}

TEST_P(KedgedFailures, RequestsUnderWayEndWhenTheNodeDies) {
  Start();
  PutValues(64);
  kedged_->Signal(SIGSTOP);
  std::vector<std::vector<uint8_t>> memory(64, std::vector<uint8_t>(1 << 20));
  auto get = client_->Get(Gets(memory), 60'000);
  ASSERT_TRUE(get);
  EXPECT_FALSE(get->Wait(std::chrono::milliseconds(50)));
  kedged_->Kill();
  ASSERT_TRUE(get->Wait());
  EXPECT_EQ(get->code(63), Code::kUnavailable);
}

TEST_P(KedgedFailures, ACancelledBufferIsNeverWritten) {
  Start();
  PutValues(64);
  for (int round = 0; round < 5; ++round) {
    std::vector<std::vector<uint8_t>> memory(64, std::vector<uint8_t>(1 << 20));
    auto get = client_->Get(Gets(memory), 60'000);
    ASSERT_TRUE(get);
    get->Wait(std::chrono::milliseconds(round));  // some of it may be there
    kedged_->Signal(SIGSTOP);
    get->Cancel();
    ASSERT_TRUE(get->ended());
    for (auto& buffer : memory) std::fill(buffer.begin(), buffer.end(), 0xEE);  // reuse
    kedged_->Signal(SIGCONT);
    ASSERT_TRUE(EventuallyHolds("0"));  // the node is awake and has sent what it had
    for (const auto& buffer : memory) {
      ASSERT_TRUE(std::all_of(buffer.begin(), buffer.end(), [](uint8_t b) { return b == 0xEE; }));
    }
  }
}

TEST_P(KedgedFailures, ACancelledPutGivesItsMemoryBack) {
  Start();
  PutValues(1);
  kedged_->Signal(SIGSTOP);
  {
    std::vector<uint8_t> memory(64 << 20, 3);
    const sdk::PutItem item{client_->KeyOf("large"), memory.data(), memory.size()};
    auto put = client_->Put(std::span(&item, 1), sdk::Durability::kHost, 60'000);
    ASSERT_TRUE(put) << put.text();
    EXPECT_FALSE(put->Wait(std::chrono::milliseconds(50)));
    put->Cancel();
    EXPECT_EQ(put->code(0), Code::kCancelled);
  }  // the memory is gone: under ASan a late read is found
  kedged_->Signal(SIGCONT);
  ASSERT_TRUE(EventuallyHolds("0"));
  EXPECT_EQ(client_->Get("large").code(), Code::kAbsent);
}

TEST_P(KedgedFailures, DeadlinesEndRequests) {
  Start();
  PutValues(1);
  kedged_->Signal(SIGSTOP);
  std::vector<uint8_t> memory(1 << 20);
  const sdk::GetItem item{client_->KeyOf("0"), memory.data(), memory.size()};
  auto get = client_->Get(std::span(&item, 1), 100);
  ASSERT_TRUE(get);
  ASSERT_TRUE(get->Wait());
  EXPECT_EQ(get->code(0), Code::kDeadline);
  std::fill(memory.begin(), memory.end(), 0xEE);
  kedged_->Signal(SIGCONT);
  ASSERT_TRUE(EventuallyHolds("0"));
  EXPECT_TRUE(std::all_of(memory.begin(), memory.end(), [](uint8_t b) { return b == 0xEE; }));
}

TEST_P(KedgedFailures, OpensBeforeTheNodeIsThere) {
  Start();
  const std::string address = kedged_->data_address();
  client_.reset();
  kedged_->Kill();
  const auto refused = sdk::Client::Open({.address = address, .salt = "s", .connect_ms = 200});
  EXPECT_EQ(refused.code(), Code::kUnavailable);
  EXPECT_NE(refused.text().find(address), std::string::npos) << refused.text();
  auto lazy = sdk::Client::Open({.address = address, .salt = "s", .wait = false});
  ASSERT_TRUE(lazy) << lazy.text();
  EXPECT_EQ(lazy->Get("0").code(), Code::kUnavailable);
  client_ = std::move(*lazy);
  ASSERT_TRUE(kedged_->Restart().ok());
  for (int i = 0; i < 3000 && !client_->Put("0", "value"); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_EQ(client_->Get("0").value(), "value");
}

TEST_P(KedgedFailures, AForkedChildMayNotUseTheClient) {
  Start();
  PutValues(1);
  const pid_t child = fork();
  if (child == 0) {
    const bool denied = client_->Get("0").code() == Code::kDenied;
    { sdk::Client gone = std::move(*client_); }
    _exit(denied ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  EXPECT_TRUE(client_->Get("0"));
}

}  // namespace
}  // namespace kedge
