// Power cuts while blocks are recoded. A block map, a mover with a policy and an SSD tier live
// several lives on one simulated disk, each ended by a power cut at a random operation: in the
// middle of a put, of a block that goes down as kivi4g32, of one that is replaced by kivi4g32 or
// archive2 because nobody used it, of the tombstone behind it, of a start. Nothing else runs, so a
// seed always does the same.
//
// After each cut: every block that was acknowledged as durable, and neither removed nor reported as
// dropped, is there as it was put or in a variant that the policy makes of it; what is there has
// the variant's bytes and fidelity; the tenant whose policy is `raw` has no lossy variant; nothing
// that was removed is back. The same without syncs must find losses: else it would prove nothing.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "gpu/codec/archive.h"
#include "proto/model_profile.h"
#include "store/block/block_map.h"
#include "store/tier/host_room.h"
#include "store/tier/mover.h"
#include "store/tier/recoder.h"
#include "store/tier/ssd_testing.h"
#include "store/world/disk_simulated.h"
#include "store/world/executor_stepped.h"

namespace kedge {
namespace {

constexpr int kSeeds = 100;
constexpr int kLives = 5;
constexpr int kSteps = 24;
constexpr uint64_t kKeys = 12;
constexpr uint64_t kRawTenant = 7;  // its blocks stay as they are
const std::vector<std::string> kPolicy = {"ssd: kivi4g32", "ssd after 1h: kivi4g32",
                                          "ssd after 3h: archive2", "tenant 7: ssd: raw"};
constexpr const char* kVariants[] = {"raw", "kivi4g32", "archive2"};

// Two heads of 32 in one layer; the archive's basis is the rows themselves.
ModelProfile SmallProfile() {
  constexpr int kWidth = 64;
  codec::ArchiveBases bases{.layers = 1, .kv_heads = 2, .head_size = 32, .parts = {}};
  codec::ArchivePoint point{
      .layers = 1, .width = kWidth, .rounding = 0.5f, .classes = {}, .parts = {}};
  codec::ArchiveClass& a_class = point.classes.emplace_back();
  std::vector<uint64_t> counts(codec::kArchiveSymbols);
  for (int i = 0; i < codec::kArchiveSymbols; ++i)
    counts[i] = static_cast<uint64_t>(1e6 * std::exp(-std::abs(i - codec::kArchiveCodeMax) / 4.0));
  const std::vector<uint16_t> shares = codec::RansTable::SharesOf(counts);
  std::copy(shares.begin(), shares.end(), a_class.shares.begin());
  for (int i = 0; i < codec::kArchiveEscape; ++i)
    a_class.points[i] = static_cast<float>(i - codec::kArchiveCodeMax);
  for (int part = 0; part < 2; ++part) {
    codec::ArchiveBasis basis{.mean = std::vector<float>(kWidth),
                              .analysis = std::vector<float>(kWidth * kWidth),
                              .synthesis = std::vector<float>(kWidth * kWidth)};
    auto& components = point.parts.emplace_back();
    for (int c = 0; c < kWidth; ++c) {
      basis.analysis[c * kWidth + c] = basis.synthesis[c * kWidth + c] = 1.0f;
      if (c < kWidth / 2)
        components.push_back({.component = static_cast<uint16_t>(c), .of_class = 0, .step = 1.0f});
    }
    bases.parts.push_back(basis);
  }
  std::vector<GateRecord> gate;
  for (const char* chain : {"kivi4g32", "archive2"}) {
    GateRecord& record = gate.emplace_back();
    record.chain = chain;
    record.task = kGateMean;
    record.bar = 1.0;
    record.questions = 100;
    record.passed = true;
  }
  return *ModelProfile::Make(
      {.weights_id = "small",
       .adapter_id = "",
       .rope_scaling = "",
       .rope_theta = 1e4,
       .layers = 1,
       .kv_heads = 2,
       .head_size = 32,
       .dtype = DType::kF16},
      {{codec::kPcaSection, bases.Encode()}, {"entropy/archive2", point.Encode()}}, gate);
}

uint64_t TenantOf(uint64_t id) { return id % 4 == 3 ? kRawTenant : 0; }

BlockHeader RawHeader(uint64_t id) {
  BlockHeader header;
  header.key = TestKey(id);
  header.placement = PlacementOf(header.key);
  header.keyspace = Keyspace::kPrefix;
  header.variant = Variant::Raw();
  header.model = ModelId::Of("small", "", "", 1e4);
  header.shape = KvShape::KeysAndValues(1, 2, 32, id % 2 == 0 ? 32 : 64, DType::kF16);
  header.rope = RopeState::kRotated;
  header.tenant = TenantOf(id);
  return header;
}

std::vector<uint8_t> RawPayload(const BlockHeader& header, uint64_t id) {
  Random random(id * 31 + 5);
  std::vector<uint8_t> payload(header.shape.raw_block_bytes());
  for (uint8_t& byte : payload) byte = static_cast<uint8_t>(random.Next());
  for (size_t at = 1; at < payload.size(); at += 2) payload[at] &= 0xbf;  // below 2
  return payload;
}

// Everything a key may be held as: images by variant. The archive may have been made of raw or of
// kivi4g32.
class Expected {
 public:
  Expected() {
    EXPECT_TRUE(profiles_.Add(SmallProfile()).ok());
    Recoder recoder({}, profiles_);
    for (uint64_t id = 0; id < kKeys; ++id) {
      BlockHeader header = RawHeader(id);
      const std::vector<uint8_t> payload = RawPayload(header, id);
      const uint32_t part_bytes = static_cast<uint32_t>(header.shape.raw_part_bytes());
      for (uint32_t part = 0; part < header.shape.part_count(); ++part) {
        const auto bytes = std::span(payload).subspan(part * part_bytes, part_bytes);
        header.parts.push_back({part_bytes, PartDigest(header.key, header.variant, part, bytes)});
      }
      header.root = DecodeBlockHeader(*EncodeBlockHeader(header))->root;
      const ImageLayout layout{header.encoded_bytes(), payload.size()};
      std::vector<uint8_t> raw(layout.image_bytes());
      const std::vector<uint8_t> encoded = *EncodeBlockHeader(header);
      std::copy(encoded.begin(), encoded.end(), raw.begin());
      std::copy(payload.begin(), payload.end(), raw.begin() + layout.payload_offset());
      images_[id][kVariants[0]].push_back(raw);
      const auto kivi = Recode(recoder, raw, "kivi4g32");
      images_[id][kVariants[1]].push_back(kivi);
      images_[id][kVariants[2]].push_back(Recode(recoder, raw, "archive2"));
      images_[id][kVariants[2]].push_back(Recode(recoder, kivi, "archive2"));
    }
  }

  const ProfileSet& profiles() const { return profiles_; }
  const std::vector<uint8_t>& Image(uint64_t id, const std::string& variant) const {
    return images_.at(id).at(variant).front();
  }
  bool IsOneOf(uint64_t id, const std::string& variant, std::span<const uint8_t> image) const {
    const auto& images = images_.at(id).at(variant);
    return std::any_of(images.begin(), images.end(), [&](const std::vector<uint8_t>& known) {
      return std::equal(known.begin(), known.end(), image.begin(), image.end());
    });
  }

 private:
  static std::vector<uint8_t> Recode(Recoder& recoder, const std::vector<uint8_t>& image,
                                     const char* variant) {
    const BlockHeader header = *DecodeBlockHeader(image);
    const ImageLayout layout{header.encoded_bytes(), header.payload_bytes()};
    auto made = recoder.Recode(
        header, std::span(image).subspan(layout.payload_offset(), layout.payload_bytes),
        *Variant::Parse(variant));
    EXPECT_TRUE(made.ok()) << made.status();
    const std::span<uint8_t> bytes = made->bytes.first(made->image_bytes);
    return {bytes.begin(), bytes.end()};
  }

  ProfileSet profiles_;
  std::map<uint64_t, std::map<std::string, std::vector<std::vector<uint8_t>>>> images_;
};

const Expected& TheExpected() {
  static const Expected* expected = new Expected;
  return *expected;
}

// What is known of one key.
struct Known {
  bool must_be_there = false;  // acknowledged as durable, or found after a start
  bool may_be_there = false;
};

struct Findings {
  int lost = 0;
  int resurrected = 0;
  int wrong = 0;  // bytes, or a fidelity, or a variant that the policy forbids: never
  int recovered = 0;
  int recovered_lossy = 0;
  int recovered_as_two = 0;
  int archived = 0;
  int dropped = 0;
  int cuts = 0;
};

class RecodeRun {
 public:
  RecodeRun(uint64_t seed, bool sync) : random_(seed) {
    options_.directory = "/tier";
    options_.segment_bytes = (24 + random_.Below(40)) * kDiskPageBytes;
    // Room for all, or so little that segments are dropped.
    options_.capacity_bytes = (random_.Chance(0.5) ? 30 : 4) * options_.segment_bytes;
    options_.sync = sync;
    for (uint64_t id = 0; id < kKeys; ++id) ids_[TestKey(id)] = id;
  }

  Findings Run() {
    for (int life = 0; life < kLives; ++life) {
      if (random_.Chance(0.9)) disk_.FailAfter(random_.Below(90));
      if (Start()) LiveOn();
      Stop();
      findings_.cuts += disk_.power_failed();
      disk_.CutPower(random_);
      const size_t kept = random_.Chance(0.1) ? 0 : random_.Below(index_.changes.size() + 1);
      if (random_.Chance(0.7)) index_.changes.resize(kept);
    }
    EXPECT_TRUE(Start()) << "with the power on";
    CheckReads();
    Stop();
    return findings_;
  }

 private:
  // A node's parts, as they are put together there.
  struct Parts {
    explicit Parts(const Clock& clock)
        : executor(clock),
          host(*HostTier::Create({.capacity_bytes = kHostExtentBytes})),
          map(*host),
          room(*host, map),
          recoder(*RecodePolicy::Parse(kPolicy), TheExpected().profiles()) {}

    SteppedExecutor executor;
    std::unique_ptr<HostTier> host;
    BlockMap map;
    HostRoom room;
    Recoder recoder;
    std::unique_ptr<SsdTier> ssd;
    std::unique_ptr<Mover> mover;
  };

  bool Start() {
    parts_ = std::make_unique<Parts>(clock_);
    hour_ = 0;
    const auto on_recovered = [this](const BlockHeader& header, SsdLocation location) {
      NewBlock block = NewBlock::Of(header, *parts_->map.variants().Intern(header.variant));
      block.ssd = location;
      BlockRef unused;
      parts_->map.Insert(block, &unused);
    };
    const auto on_dropped = [this](const BlockKey& key, const Variant& variant,
                                   SsdLocation location) {
      ++findings_.dropped;
      known_[ids_.at(key)].must_be_there = false;
      parts_->map.DropSsd(key, variant, location, ResultCode::kEvicted);
    };
    auto ssd = SsdTier::Open(disk_, std::make_unique<LoggedIndex>(index_), options_, on_recovered,
                             on_dropped, nullptr);
    if (!ssd.ok()) {
      EXPECT_TRUE(disk_.power_failed()) << ssd.status();
      return false;
    }
    parts_->ssd = *std::move(ssd);
    parts_->mover =
        std::make_unique<Mover>(parts_->map, *parts_->host, parts_->room, parts_->ssd.get(),
                                parts_->executor, clock_, &parts_->recoder);
    for (uint64_t id = 0; id < kKeys; ++id) CheckAfterStart(id);
    return true;
  }

  void Stop() {
    parts_->executor.Shutdown();
    parts_->mover.reset();
    parts_.reset();
  }

  void CheckAfterStart(uint64_t id) {
    Known& known = known_[id];
    int held = 0;
    for (const BlockRef& block : parts_->map.FindAnywhere(TestKey(id))) {
      held += CheckOnDisk(id, block) ? 1 : 0;
      if (disk_.power_failed()) return;
    }
    if (held == 0 && known.must_be_there) ++findings_.lost;
    if (held > 0 && !known.may_be_there) ++findings_.resurrected;
    findings_.recovered += held > 0;
    findings_.recovered_as_two += held > 1;
    known = {held > 0, held > 0};
  }

  // Bytes, name and fidelity of one variant as the SSD has it. False when it does not verify.
  bool CheckOnDisk(uint64_t id, const BlockRef& block) {
    const BlockInfo info = parts_->map.Describe(block);
    const std::string variant(parts_->map.variants().Name(info.variant).view());
    PageBuffer memory(info.layout().image_bytes());
    const std::span<uint8_t> image = memory.first(info.layout().image_bytes());
    if (!parts_->ssd->Read(info.ssd, 0, image).ok()) return false;
    const auto header = DecodeBlockHeader(image.first(info.header_bytes));
    if (!header.ok() ||
        !VerifyPayload(*header, image.subspan(info.layout().payload_offset(), info.payload_bytes))
             .ok())
      return false;
    const bool lossy = variant != "raw";
    const Fidelity fidelity = lossy ? Fidelity::kQuantized : Fidelity::kLossless;
    if (!TheExpected().IsOneOf(id, variant, image) || header->variant.view() != variant ||
        header->fidelity != fidelity || info.fidelity != fidelity ||
        (lossy && TenantOf(id) == kRawTenant))
      ++findings_.wrong;
    findings_.recovered_lossy += lossy;
    findings_.archived += variant == "archive2";
    return true;
  }

  void LiveOn() {
    for (int step = 0; step < kSteps && !disk_.power_failed(); ++step) {
      const uint64_t id = random_.Below(kKeys);
      const double dice = static_cast<double>(random_.Below(1000)) / 1000;
      if (dice < 0.35) {
        Put(id, "raw", /*durable=*/random_.Chance(0.7));
      } else if (dice < 0.42) {
        if (TenantOf(id) != kRawTenant) Put(id, "kivi4g32", random_.Chance(0.5));
      } else if (dice < 0.50) {
        Remove(id);
      } else if (dice < 0.65) {
        Get(id);
      } else if (dice < 0.75) {
        if (const auto victim = parts_->map.Coldest()) parts_->map.EvictHost(victim->id);
      } else {
        PassHours(1 + random_.Below(3));
      }
      // What was begun goes on a while, or to its end.
      if (random_.Chance(0.5)) {
        for (uint64_t tasks = random_.Below(4); tasks > 0; --tasks) parts_->executor.RunOne();
      } else {
        parts_->executor.RunAll();
      }
    }
  }

  void Put(uint64_t id, const std::string& variant, bool durable) {
    const std::vector<uint8_t>& image = TheExpected().Image(id, variant);
    const BlockHeader header = *DecodeBlockHeader(image);
    const absl::StatusOr<HostSlot> slot = parts_->room.Allocate(image.size());
    if (!slot.ok()) return;
    std::copy(image.begin(), image.end(), parts_->host->Data(*slot));
    NewBlock fresh = NewBlock::Of(header, *parts_->map.variants().Intern(header.variant));
    fresh.host = *slot;
    fresh.unsaved = true;
    BlockRef block;
    if (!parts_->map.Insert(fresh, &block)) parts_->host->Free(*slot);
    known_[id].may_be_there = true;
    // The writer is on another thread.
    for (uint64_t tasks = random_.Below(3); tasks > 0; --tasks) parts_->executor.RunOne();
    if (!durable) return parts_->mover->Offer(std::move(block));
    const uint64_t removals = removals_[id];
    parts_->mover->Write(std::move(block), [this, id, removals](const absl::Status& status) {
      EXPECT_TRUE(status.ok() || disk_.power_failed()) << status;
      // Its segment may have been dropped since: an eviction.
      if (status.ok() && removals_[id] == removals && HeldNow(id)) known_[id].must_be_there = true;
    });
  }

  void Remove(uint64_t id) {
    known_[id].must_be_there = false;
    const uint64_t removals = ++removals_[id];
    bool pinned = false;
    parts_->map.RemoveAnywhere(TestKey(id), /*unless_pinned=*/false, &pinned);
    parts_->mover->WriteTombstones({TestKey(id)}, [this, id, removals](const absl::Status& status) {
      if (status.ok() && removals_[id] == removals && !HeldNow(id)) known_[id].may_be_there = false;
    });
  }

  bool HeldNow(uint64_t id) { return !parts_->map.FindAnywhere(TestKey(id)).empty(); }

  void PassHours(uint64_t hours) {
    hour_ = static_cast<uint16_t>(hour_ + hours);
    parts_->map.SetHour(hour_);
    parts_->mover->RecodeIdle(hour_);
  }

  // As a get that takes any variant: it is there, and right.
  void Get(uint64_t id) {
    std::vector<uint16_t> accepted;
    for (const char* variant : kVariants)
      accepted.push_back(parts_->map.variants().Find(*Variant::Parse(variant)));
    BlockMap::Found found = parts_->map.Lookup(TestKey(id), PlacementOf(TestKey(id)), accepted);
    if (found.code != ResultCode::kOk) {
      if (known_[id].must_be_there) ++findings_.lost;
      return;
    }
    parts_->map.Touch(found.ref);
    const std::string variant(parts_->map.variants().Name(found.info.variant).view());
    absl::Status promoted = absl::UnknownError("not yet");
    parts_->mover->Promote(found.ref.Share(), [&](absl::Status status) { promoted = status; });
    parts_->executor.RunAll();
    if (!promoted.ok()) {
      if (known_[id].must_be_there && !disk_.power_failed()) ++findings_.lost;
      return;
    }
    const BlockInfo info = parts_->map.Describe(found.ref);
    const std::span<const uint8_t> image(parts_->host->Data(info.host),
                                         info.layout().image_bytes());
    if (!TheExpected().IsOneOf(id, variant, image)) ++findings_.wrong;
  }

  void CheckReads() {
    for (uint64_t id = 0; id < kKeys; ++id) Get(id);
  }

  Random random_;
  SimulatedClock clock_;
  SimulatedDisk disk_;
  SsdTier::Options options_;
  IndexLog index_;
  std::map<BlockKey, uint64_t> ids_;
  std::map<uint64_t, Known> known_;
  std::map<uint64_t, uint64_t> removals_;  // counts them, so that an answer knows its own
  std::unique_ptr<Parts> parts_;
  uint16_t hour_ = 0;
  Findings findings_;
};

Findings RunSeeds(bool sync) {
  Findings sum;
  for (int seed = 1; seed <= kSeeds; ++seed) {
    const Findings found = RecodeRun(seed, sync).Run();
    if (sync) {
      EXPECT_EQ(found.lost, 0) << "seed " << seed;
      EXPECT_EQ(found.resurrected, 0) << "seed " << seed;
    }
    EXPECT_EQ(found.wrong, 0) << "seed " << seed;
    sum.lost += found.lost;
    sum.resurrected += found.resurrected;
    sum.recovered += found.recovered;
    sum.recovered_lossy += found.recovered_lossy;
    sum.recovered_as_two += found.recovered_as_two;
    sum.archived += found.archived;
    sum.dropped += found.dropped;
    sum.cuts += found.cuts;
  }
  std::printf(
      "%s: %d cuts inside an operation, %d blocks recovered, %d lossy variants, %d of them "
      "archived, "
      "%d blocks as two variants, %d dropped, %d lost, %d back\n",
      sync ? "synced" : "not synced", sum.cuts, sum.recovered, sum.recovered_lossy, sum.archived,
      sum.recovered_as_two, sum.dropped, sum.lost, sum.resurrected);
  return sum;
}

TEST(RecodePowerCut, WhatWasAcknowledgedIsThereAsItWasOrRecoded) {
  const Findings found = RunSeeds(/*sync=*/true);
  EXPECT_GT(found.cuts, kSeeds);
  EXPECT_GT(found.recovered, 5 * kSeeds);
  EXPECT_GT(found.recovered_lossy, 2 * kSeeds);
  EXPECT_GT(found.archived, kSeeds / 2);
  EXPECT_GT(found.recovered_as_two, kSeeds / 4)
      << "no cut fell between a variant and its tombstone";
  EXPECT_GT(found.dropped, 0);
}

TEST(RecodePowerCut, FindsLossesWithoutSync) {
  const Findings found = RunSeeds(/*sync=*/false);
  EXPECT_GT(found.lost, kSeeds / 2);
}

}  // namespace
}  // namespace kedge
