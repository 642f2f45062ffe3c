// kedged is killed (SIGKILL) at random points while values are put with durability `ssd`, a hundred
// times over the same files. Whatever was acknowledged is there afterwards, byte for byte; whatever
// was not is there whole or not at all.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <thread>
#include <vector>

#include "client/kv_client.h"
#include "store/world/random.h"
#include "tests/cluster/kedged_process.h"

namespace kedge {
namespace {

using std::chrono::milliseconds;

constexpr int kKills = 100;
constexpr uint32_t kBatch = 4;

// The n-th value: size and bytes follow from n alone, so nothing needs to be remembered to check
// it.
std::vector<uint8_t> Value(uint64_t n) {
  Random random(n * 0x9e3779b97f4a7c15 + 1);
  std::vector<uint8_t> bytes(1 + random.Below(random.Chance(0.2) ? 512 << 10 : 24 << 10));
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.Next());
  return bytes;
}

std::string Name(uint64_t n) { return "value " + std::to_string(n); }

struct Writer {
  const sdk::Client& client;
  uint64_t next;  // first value not yet begun
  std::vector<uint64_t> acknowledged;
  std::atomic<bool> stop{false};

  // Puts batch after batch until the node is gone.
  void Run() {
    while (!stop.load()) {
      std::vector<std::vector<uint8_t>> values;
      std::vector<sdk::PutItem> items;
      for (uint32_t i = 0; i < kBatch; ++i) {
        values.push_back(Value(next + i));
        items.push_back({client.KeyOf(Name(next + i)), values.back().data(), values.back().size()});
      }
      auto request = client.Put(items, sdk::Durability::kSsd, 5000);
      if (!request) return;
      request->Wait();
      const auto results = request->items();
      bool all = true;
      for (uint32_t i = 0; i < kBatch; ++i) {
        const bool ok = results[i].code == KEDGE_OK || results[i].code == KEDGE_EXISTS;
        if (ok) acknowledged.push_back(next + i);
        all = all && ok;
      }
      next += kBatch;
      if (!all) return;
    }
  }
};

constexpr const char* kRight = "right";
constexpr const char* kWrong = "wrong bytes";

// kRight, kWrong, or why the value could not be had.
std::string Check(const sdk::Client& client, uint64_t n) {
  const std::vector<uint8_t> expected = Value(n);
  std::vector<uint8_t> bytes(expected.size() + 1, 0xee);
  const sdk::GetItem item{client.KeyOf(Name(n)), bytes.data(), bytes.size()};
  auto request = client.Get(std::span<const sdk::GetItem>(&item, 1));
  if (!request) return request.text();
  request->Wait();
  const sdk::Item result = request->items()[0];
  if (result.code != KEDGE_OK) return kedge_code_name(result.code) + (": " + request->text());
  const bool same = result.bytes == expected.size() &&
                    std::equal(expected.begin(), expected.end(), bytes.begin());
  return same ? kRight : kWrong;
}

// The client reconnects by itself; this only waits for it.
bool WaitConnected(const sdk::Client& client) {
  for (int i = 0; i < 1000; ++i) {
    if (client.info().connected != 0) return true;
    std::this_thread::sleep_for(milliseconds(10));
  }
  return false;
}

TEST(Crash, AHundredKillsDuringPutsLoseNothingAcknowledged) {
  const char* temporary = getenv("TEST_TMPDIR");
  const std::string directory =
      std::string(temporary == nullptr ? "/tmp" : temporary) + "/crash_ssd";
  std::filesystem::remove_all(directory);
  KedgedProcess::Options options;
  options.flags = {"--host-capacity=128MiB", "--ssd-path=" + directory, "--ssd-capacity=6GiB",
                   "--log-level=error"};
  auto node = KedgedProcess::Start(options);
  ASSERT_TRUE(node.ok()) << node.status();
  auto client = sdk::Client::Open(
      {.address = (*node)->data_address(), .salt = "crash", .client_name = "crash_test"});
  ASSERT_TRUE(client) << client.text();

  Random random(20261120);
  std::vector<uint64_t> acknowledged;
  uint64_t next = 0;
  int kills_with_puts = 0;
  for (int kill = 0; kill < kKills; ++kill) {
    Writer writer{*client, next, {}};
    std::thread thread([&] { writer.Run(); });
    std::this_thread::sleep_for(milliseconds(1 + random.Below(60)));
    (*node)->Kill();
    writer.stop = true;
    thread.join();
    const absl::Status restarted = (*node)->Restart();
    ASSERT_TRUE(restarted.ok()) << "after kill " << kill << ": " << restarted;
    ASSERT_TRUE(WaitConnected(*client)) << "after kill " << kill;

    kills_with_puts += writer.acknowledged.empty() ? 0 : 1;
    for (uint64_t n : writer.acknowledged) {
      ASSERT_EQ(Check(*client, n), kRight)
          << "value " << n << ", acknowledged before kill " << kill;
    }
    for (uint64_t n = next; n < writer.next; ++n) {
      ASSERT_NE(Check(*client, n), kWrong)
          << "value " << n << ", acknowledged or not, kill " << kill;
    }
    acknowledged.insert(acknowledged.end(), writer.acknowledged.begin(), writer.acknowledged.end());
    for (int sample = 0; sample < 4 && !acknowledged.empty(); ++sample) {
      const uint64_t n = acknowledged[random.Below(acknowledged.size())];
      ASSERT_EQ(Check(*client, n), kRight) << "value " << n << ", kill " << kill;
    }
    next = writer.next;
  }
  EXPECT_GT(kills_with_puts, kKills / 2) << "too few puts ran for the kills to mean anything";
  for (uint64_t n : acknowledged)
    ASSERT_EQ(Check(*client, n), kRight) << "value " << n << ", at the end";
  RecordProperty("acknowledged", std::to_string(acknowledged.size()));
}

}  // namespace
}  // namespace kedge
