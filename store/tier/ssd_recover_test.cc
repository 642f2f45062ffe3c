// Power cuts, and what a start finds after them. A tier lives several lives on one simulated disk;
// each ends with a power cut at a random operation, also in the middle of an append, of a new
// segment, of a drop or of a start. After each: every block that was acknowledged, and neither
// removed nor reported as dropped, is there with its bytes; nothing that was removed is back; and
// nothing has wrong bytes.
//
// The same body without syncs must find losses: else it would prove nothing.
#include <algorithm>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "gtest/gtest.h"
#include "store/tier/ssd_testing.h"
#include "store/tier/tier_ssd.h"
#include "store/world/disk_simulated.h"

namespace kedge {
namespace {

constexpr int kSeeds = 100;
constexpr int kLives = 5;
constexpr uint64_t kKeysOfWorker = 12;
constexpr const char* kVariants[] = {"raw", "kivi4g32"};

struct Name {
  uint64_t id;
  int variant;
  auto operator<=>(const Name&) const = default;
};

// What is known of one block.
struct Known {
  bool may_be_there = false;
  bool may_be_gone = true;
  SsdLocation location;  // of the last acknowledged append
};

struct Findings {
  int lost = 0;         // acknowledged and gone, or there with bytes that do not verify
  int resurrected = 0;  // removed and back
  int wrong_bytes = 0;  // verified and yet wrong: must never be, not even without syncs
  int recovered = 0;
  int cuts = 0;
  int dropped = 0;
};

class PowerCutRun {
 public:
  PowerCutRun(uint64_t seed, bool sync) : random_(seed) {
    options_.directory = "/tier";
    options_.segment_bytes = (16 + random_.Below(48)) * kDiskPageBytes;
    options_.capacity_bytes = (2 + random_.Below(5)) * options_.segment_bytes;
    options_.sync = sync;
    for (uint64_t id = 0; id < 3 * kKeysOfWorker; ++id) {
      for (int variant = 0; variant < 2; ++variant) {
        blocks_.emplace(Name{id, variant}, std::make_unique<TestBlock>(id, kVariants[variant],
                                                                       1 + random_.Below(24'000)));
        names_[{TestKey(id), variant}] = Name{id, variant};
      }
    }
  }

  Findings Run() {
    for (int life = 0; life < kLives; ++life) {
      if (random_.Chance(0.8)) disk_.FailAfter(random_.Below(60));
      if (OpenAndCheck()) LiveOn();
      tier_.reset();
      findings_.cuts += disk_.power_failed();
      disk_.CutPower(random_);
      // The index comes back with a prefix of what was written to it, or not at all.
      const size_t kept = random_.Chance(0.1) ? 0 : random_.Below(index_.changes.size() + 1);
      if (random_.Chance(0.7)) index_.changes.resize(kept);
    }
    EXPECT_TRUE(OpenAndCheck()) << "with the power on";
    return findings_;
  }

 private:
  bool OpenAndCheck() {
    std::map<Name, SsdLocation> found;
    dropped_by_start_.clear();
    const auto recovered = [&](const BlockHeader& header, SsdLocation location) {
      const int variant = header.variant.view() == kVariants[0] ? 0 : 1;
      found[names_.at({header.key, variant})] = location;
    };
    auto tier = SsdTier::Open(
        disk_, std::make_unique<LoggedIndex>(index_), options_, recovered,
        [this](const BlockKey&, const Variant&, SsdLocation location) { Drop(location); }, nullptr);
    if (!tier.ok()) {
      EXPECT_TRUE(disk_.power_failed()) << tier.status();
      return false;
    }
    tier_ = *std::move(tier);
    for (auto& [name, known] : known_) Check(name, known, found);
    for (const auto& [name, location] : found) {
      known_[name] = {true, false, location};
      // A segment whose removal did not reach the disk is back, and counts again.
      if (dropped_by_start_.count(KeyOf(location)) == 0) dropped_.erase(KeyOf(location));
    }
    return true;
  }

  void Check(const Name& name, Known& known, const std::map<Name, SsdLocation>& found) {
    const auto it = found.find(name);
    if (it == found.end()) {
      if (!known.may_be_gone && dropped_.count(KeyOf(known.location)) == 0) ++findings_.lost;
      known = Known{};
      return;
    }
    if (!known.may_be_there) ++findings_.resurrected;
    if (dropped_by_start_.count(KeyOf(it->second)) != 0)
      return;  // reported, and then dropped to make room
    ++findings_.recovered;
    TestBlock& block = *blocks_.at(name);
    PageBuffer memory(block.image().size());
    const std::span<uint8_t> image = memory.first(block.image().size());
    const absl::Status read = tier_->Read(it->second, 0, image);
    if (disk_.power_failed()) return;
    const bool verified =
        read.ok() && it->second.pages == block.pages() && DecodeBlockHeader(image).ok() &&
        VerifyPayload(block.header, image.subspan(PageRound(block.header.encoded_bytes()),
                                                  block.header.payload_bytes()))
            .ok();
    if (!verified) {
      ++findings_.lost;
    } else if (std::memcmp(image.data(), block.image().data(), image.size()) != 0) {
      ++findings_.wrong_bytes;
    }
  }

  void LiveOn() {
    const int workers = random_.Chance(0.3) ? 3 : 1;
    std::vector<std::thread> threads;
    for (int worker = 0; worker < workers; ++worker) {
      threads.emplace_back([this, worker, seed = random_.Next()] { Work(worker, Random(seed)); });
    }
    for (std::thread& thread : threads) thread.join();
  }

  // Each worker has keys of its own, so that the order of what happens to a key is known.
  void Work(int worker, Random random) {
    for (int step = 0; step < 25; ++step) {
      const bool ok = random.Chance(0.25) ? Remove(worker, random) : Put(worker, random);
      if (!ok) return;
    }
  }

  bool Put(int worker, Random& random) {
    std::vector<Name> names;
    std::vector<SsdTier::Image> images;
    uint64_t pages = 0;
    for (uint64_t left = 1 + random.Below(4); left > 0; --left) {
      const Name name{worker * kKeysOfWorker + random.Below(kKeysOfWorker), random.Chance(0.2)};
      TestBlock& block = *blocks_.at(name);
      pages += 1 + block.pages();
      if (std::count(names.begin(), names.end(), name) != 0) continue;
      if (pages >= options_.segment_bytes / kDiskPageBytes) break;
      names.push_back(name);
      images.push_back(block.ForAppend());
    }
    std::vector<SsdLocation> locations(images.size());
    {
      std::lock_guard<std::mutex> lock(mutex_);
      for (const Name& name : names) known_[name].may_be_there = true;
    }
    const absl::Status status = tier_->Append(images, locations);
    EXPECT_TRUE(status.ok() || disk_.power_failed()) << status;
    if (!status.ok()) return false;
    std::lock_guard<std::mutex> lock(mutex_);
    for (size_t i = 0; i < names.size(); ++i) known_[names[i]] = {true, false, locations[i]};
    return true;
  }

  bool Remove(int worker, Random& random) {
    std::vector<uint64_t> ids;
    std::vector<BlockKey> keys;
    for (uint64_t left = 1 + random.Below(3); left > 0; --left) {
      ids.push_back(worker * kKeysOfWorker + random.Below(kKeysOfWorker));
      keys.push_back(TestKey(ids.back()));
    }
    const auto mark = [&](bool certain) {
      std::lock_guard<std::mutex> lock(mutex_);
      for (const uint64_t id : ids) {
        for (int variant = 0; variant < 2; ++variant) {
          Known& known = known_[{id, variant}];
          known.may_be_gone = true;
          if (certain) known = Known{};
        }
      }
    };
    mark(/*certain=*/false);
    const absl::Status status = tier_->AppendTombstones(keys);
    EXPECT_TRUE(status.ok() || disk_.power_failed()) << status;
    if (!status.ok()) return false;
    mark(/*certain=*/true);
    return true;
  }

  // The append that made the block may not have returned yet: so by location.
  void Drop(SsdLocation location) {
    std::lock_guard<std::mutex> lock(mutex_);
    dropped_.insert(KeyOf(location));
    dropped_by_start_.insert(KeyOf(location));
    ++findings_.dropped;
  }
  static uint64_t KeyOf(SsdLocation location) {
    return uint64_t{location.segment} << 32 | location.page;
  }

  Random random_;
  SimulatedDisk disk_;
  SsdTier::Options options_;
  IndexLog index_;
  std::unique_ptr<SsdTier> tier_;
  std::map<Name, std::unique_ptr<TestBlock>> blocks_;
  std::map<std::pair<BlockKey, int>, Name> names_;

  std::mutex mutex_;  // guards all below while workers run
  std::map<Name, Known> known_;
  std::set<uint64_t> dropped_;
  std::set<uint64_t> dropped_by_start_;  // since the tier was opened
  Findings findings_;
};

Findings RunSeeds(bool sync) {
  Findings sum;
  for (int seed = 1; seed <= kSeeds; ++seed) {
    const Findings found = PowerCutRun(seed, sync).Run();
    if (sync) {
      EXPECT_EQ(found.lost, 0) << "seed " << seed;
      EXPECT_EQ(found.resurrected, 0) << "seed " << seed;
    }
    EXPECT_EQ(found.wrong_bytes, 0) << "seed " << seed;
    sum.lost += found.lost;
    sum.resurrected += found.resurrected;
    sum.recovered += found.recovered;
    sum.cuts += found.cuts;
    sum.dropped += found.dropped;
  }
  printf("%s: %d cuts inside an operation, %d blocks recovered, %d dropped, %d lost, %d back\n",
         sync ? "synced" : "not synced", sum.cuts, sum.recovered, sum.dropped, sum.lost,
         sum.resurrected);
  return sum;
}

TEST(SsdTierPowerCut, LosesNothingThatWasAcknowledged) {
  const Findings found = RunSeeds(/*sync=*/true);
  EXPECT_GT(found.cuts, kSeeds);
  EXPECT_GT(found.recovered, 10 * kSeeds);
  EXPECT_GT(found.dropped, kSeeds);
}

TEST(SsdTierPowerCut, FindsLossesWithoutSync) {
  const Findings found = RunSeeds(/*sync=*/false);
  EXPECT_GT(found.lost, kSeeds);
}

}  // namespace
}  // namespace kedge
