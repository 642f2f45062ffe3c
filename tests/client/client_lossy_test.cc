// A client and a node whose wire loses connections, delays and reorders, by seed. Every operation
// ends with a result; bytes that are called ok are right; what was acknowledged is there.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "client/engine.h"
#include "client/get.h"
#include "client/lookup.h"
#include "client/put.h"
#include "store/node/node.h"
#include "store/transfer/transport_memory.h"
#include "store/world/executor.h"
#include "store/world/random.h"

namespace kedge {
namespace {

constexpr uint64_t kKeys = 24;
constexpr int64_t kDeadlineUs = 10'000'000;
constexpr uint64_t kSizes[] = {1, 3'000, 70'000, 600'000, 1'500'001};

BlockKey KeyOf(uint64_t number) {
  Random random(number + 1);
  BlockKey key;
  for (uint8_t& byte : key.bytes) byte = static_cast<uint8_t>(random.Next());
  return key;
}

std::vector<uint8_t> ValueOf(uint64_t number) {
  Random random(number + 1'000);
  std::vector<uint8_t> value(kSizes[number % std::size(kSizes)]);
  for (uint8_t& byte : value) byte = static_cast<uint8_t>(random.Next());
  return value;
}

class LossyWorld {
 public:
  explicit LossyWorld(const MemoryFaults& faults) : network_(faults) {
    NodeParts parts;
    parts.clock = &clock_;
    parts.executor = executor_.get();
    parts.host = *HostTier::Create({.capacity_bytes = kHostExtentBytes});
    parts.make_transport = [this](TransportHandler& handler) {
      return network_.MakeTransport(handler, *executor_, clock_);
    };
    node_ = *Node::Create({}, std::move(parts));
    EXPECT_TRUE(node_->Listen("memory://node").ok());
    engine_ = *Engine::Open({.address = "memory://node",
                             .client_name = "lossy",
                             .make_transport = [this](TransportHandler& handler) {
                               return network_.MakeTransport(handler, *executor_, clock_);
                             }});
    for (uint64_t i = 0; i < kKeys; ++i) values_.push_back(ValueOf(i));
  }
  ~LossyWorld() {
    engine_->Close();
    node_->Shutdown();
    executor_->Shutdown();
  }

  Engine& engine() { return *engine_; }
  const std::vector<uint8_t>& value(uint64_t key) const { return values_[key]; }

  std::shared_ptr<Operation> Put(const std::vector<uint64_t>& keys) {
    PutOperation::Question question;
    question.variant = Variant::Raw();
    for (const uint64_t key : keys) {
      PutOperation::Item item;
      item.header.key = KeyOf(key);
      item.header.placement = PlacementOf(item.header.key);
      item.header.variant = Variant::Raw();
      item.header.parts = {{static_cast<uint32_t>(values_[key].size()), {}}};
      item.extents = {{0, values_[key].data(), values_[key].size()}};
      question.items.push_back(std::move(item));
    }
    return Run(std::make_shared<PutOperation>(std::move(question), 32 << 20, Deadline()));
  }
  std::shared_ptr<Operation> Get(const std::vector<uint64_t>& keys,
                                 std::vector<std::vector<uint8_t>>& landed) {
    GetOperation::Question question;
    landed.clear();
    for (const uint64_t key : keys) landed.emplace_back(values_[key].size(), 0xEE);
    for (size_t i = 0; i < keys.size(); ++i) {
      GetOperation::Item item;
      item.key = KeyOf(keys[i]);
      item.placement = PlacementOf(item.key);
      item.to.Add(landed[i].data(), landed[i].size());
      question.items.push_back(std::move(item));
    }
    return Run(std::make_shared<GetOperation>(std::move(question), 32 << 20, Deadline()));
  }
  std::shared_ptr<Operation> Exists(const std::vector<uint64_t>& keys) {
    return Run(std::make_shared<LookupOperation>(LookupOperation::Question{.keys = KeyItems(keys)},
                                                 Deadline()));
  }
  std::shared_ptr<Operation> Remove(const std::vector<uint64_t>& keys) {
    return Run(std::make_shared<RemoveOperation>(KeyItems(keys), Deadline()));
  }

 private:
  static std::vector<KeyItem> KeyItems(const std::vector<uint64_t>& keys) {
    std::vector<KeyItem> items;
    for (const uint64_t key : keys) items.push_back({KeyOf(key), PlacementOf(KeyOf(key))});
    return items;
  }
  int64_t Deadline() const { return engine_->NowUs() + kDeadlineUs; }
  std::shared_ptr<Operation> Run(std::shared_ptr<Operation> operation) {
    (void)engine_->WaitConnected(5'000);
    engine_->Run(operation);
    return operation;
  }

  RealClock clock_;
  MemoryNetwork network_;
  const std::unique_ptr<Executor> executor_ = MakeThreadExecutor("lossy", 2);
  std::unique_ptr<Node> node_;
  std::shared_ptr<Engine> engine_;
  std::vector<std::vector<uint8_t>> values_;
};

std::vector<ItemResult> ResultsOf(Operation& operation) {
  operation.Wait(UINT32_MAX);
  std::vector<ItemResult> items(operation.count());
  operation.CopyItems(items);
  return items;
}

// What may come of an operation whose wire is bad, beside success. Everything else is a fault.
bool WireMayCause(ResultCode code) {
  return code == ResultCode::kUnavailable || code == ResultCode::kCancelled ||
         code == ResultCode::kDeadline;
}

struct Tally {
  uint64_t ok = 0;
  uint64_t lost = 0;
  uint64_t reconnects = 0;
};

// 60 random operations, then every key that was acknowledged once more.
Tally RunSeed(uint64_t seed, const MemoryFaults& faults) {
  LossyWorld world(faults);
  Random random(seed);
  std::map<uint64_t, bool> held;  // acknowledged, and not removed since; absent: not known
  // Buffers of gets that have ended, and what was in them then: nothing may be written later.
  using Buffers = std::vector<std::vector<uint8_t>>;
  std::vector<std::pair<Buffers, Buffers>> gets;
  Tally tally;
  const auto some_keys = [&](uint64_t most) {
    std::vector<uint64_t> keys;
    const uint64_t first = random.Below(kKeys);
    for (uint64_t i = 0; i <= random.Below(most); ++i) keys.push_back((first + i * 5) % kKeys);
    std::sort(keys.begin(), keys.end());
    keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
    return keys;
  };
  const auto count = [&](ResultCode code) { ++(IsSuccess(code) ? tally.ok : tally.lost); };
  const auto maybe_cancel = [&](const std::shared_ptr<Operation>& operation) {
    if (random.Chance(0.1)) world.engine().Cancel(operation, ResultCode::kCancelled);
  };
  for (int step = 0; step < 60; ++step) {
    const std::vector<uint64_t> keys = some_keys(5);
    const uint64_t kind = random.Below(10);
    if (kind < 4) {
      const auto operation = world.Put(keys);
      maybe_cancel(operation);
      const std::vector<ItemResult> items = ResultsOf(*operation);
      for (size_t i = 0; i < keys.size(); ++i) {
        count(items[i].code);
        if (IsSuccess(items[i].code)) {
          held[keys[i]] = true;
        } else {
          EXPECT_TRUE(WireMayCause(items[i].code)) << ResultCodeName(items[i].code);
        }
      }
    } else if (kind < 8) {
      std::vector<std::vector<uint8_t>> landed;
      const auto operation = world.Get(keys, landed);
      maybe_cancel(operation);
      const std::vector<ItemResult> items = ResultsOf(*operation);
      for (size_t i = 0; i < keys.size(); ++i) {
        const ResultCode code = items[i].code;
        count(code);
        if (code == ResultCode::kOk) {
          EXPECT_EQ(landed[i], world.value(keys[i])) << "wrong bytes";
        } else if (held.count(keys[i]) != 0) {
          EXPECT_TRUE(WireMayCause(code)) << ResultCodeName(code) << ", and it was acknowledged";
        }
      }
      gets.emplace_back(landed, std::move(landed));
    } else if (kind == 8) {
      for (const ItemResult& item : ResultsOf(*world.Exists(keys))) count(item.code);
    } else {
      const std::vector<uint64_t> one = {keys[0]};
      held.erase(keys[0]);
      for (const ItemResult& item : ResultsOf(*world.Remove(one))) count(item.code);
    }
  }
  for (const auto& [key, unused] : held) {
    std::vector<std::vector<uint8_t>> landed;
    ResultCode code = ResultCode::kUnavailable;
    for (int attempt = 0; attempt < 200 && WireMayCause(code); ++attempt) {
      code = ResultsOf(*world.Get({key}, landed))[0].code;
    }
    EXPECT_EQ(code, ResultCode::kOk) << "key " << key << ": " << ResultCodeName(code);
    EXPECT_EQ(landed[0], world.value(key));
  }
  for (const auto& [before, now] : gets) EXPECT_EQ(before, now) << "written after the end";
  tally.reconnects = world.engine().info().reconnects;
  return tally;
}

TEST(ClientLossyTest, LateAndReorderedMessagesChangeNothing) {
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    const Tally tally = RunSeed(
        seed, {.seed = seed, .reorder_share = 0.4, .delay_share = 0.05, .delay_us_max = 2'000});
    EXPECT_GT(tally.ok, 40u) << "seed " << seed;
    EXPECT_EQ(tally.reconnects, 0u) << "seed " << seed;
  }
}

TEST(ClientLossyTest, LostConnectionsEndOperationsAndLoseNothing) {
  Tally all;
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    const Tally tally = RunSeed(seed, {.seed = seed,
                                       .drop_after_messages_min = 5,
                                       .drop_after_messages_max = 120,
                                       .reorder_share = seed % 2 == 0 ? 0.3 : 0,
                                       .delay_share = 0.02,
                                       .delay_us_max = 1'000});
    all.ok += tally.ok;
    all.lost += tally.lost;
    all.reconnects += tally.reconnects;
  }
  EXPECT_GT(all.ok, 100u);
  EXPECT_GT(all.lost, 0u);
  EXPECT_GT(all.reconnects, 10u);
}

}  // namespace
}  // namespace kedge
