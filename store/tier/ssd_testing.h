// Blocks, an index and a fixture for the tests of the SSD tier.
#pragma once

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "store/tier/page_buffer.h"
#include "store/tier/ssd_index.h"
#include "store/tier/tier_ssd.h"
#include "store/world/disk_simulated.h"
#include "store/world/metrics.h"
#include "store/world/random.h"

namespace kedge {

inline BlockKey TestKey(uint64_t id) {
  BlockKey key;
  Random random(id);
  for (size_t i = 0; i < key.bytes.size(); i += 8) {
    const uint64_t word = random.Next();
    std::memcpy(key.bytes.data() + i, &word, 8);
  }
  return key;
}

// A block whose size and bytes follow from its id and variant.
class TestBlock {
 public:
  explicit TestBlock(uint64_t id, const char* variant = "raw", uint64_t payload_bytes = 0) {
    Random random(id * 31 + variant[0]);
    if (payload_bytes == 0) payload_bytes = 1 + random.Below(40'000);
    header.key = TestKey(id);
    header.variant = *Variant::Parse(variant);
    header.placement = PlacementOf(header.key);
    std::vector<uint8_t> payload(payload_bytes);
    for (size_t at = 0; at < payload.size(); at += 8) {
      const uint64_t word = random.Next();
      std::memcpy(payload.data() + at, &word, std::min<size_t>(8, payload.size() - at));
    }
    header.parts = {
        {static_cast<uint32_t>(payload_bytes), PartDigest(header.key, header.variant, 0, payload)}};
    const auto encoded = EncodeBlockHeader(header);
    EXPECT_TRUE(encoded.ok()) << encoded.status();
    const ImageLayout layout{static_cast<uint32_t>(encoded->size()), payload_bytes};
    bytes_ = layout.image_bytes();
    memory_.Grow(bytes_);
    std::memset(memory_.first(bytes_).data(), 0, bytes_);
    std::memcpy(memory_.first(bytes_).data(), encoded->data(), encoded->size());
    std::memcpy(memory_.first(bytes_).data() + layout.payload_offset(), payload.data(),
                payload_bytes);
  }

  std::span<uint8_t> image() { return memory_.first(bytes_); }
  SsdTier::Image ForAppend() { return {&header, image()}; }
  uint32_t pages() const { return static_cast<uint32_t>(bytes_ / kDiskPageBytes); }

  BlockHeader header;

 private:
  PageBuffer memory_;
  uint64_t bytes_ = 0;
};

// Reads a whole image and compares it with what `block` is.
inline absl::Status ReadAndCompare(SsdTier& tier, SsdLocation location, TestBlock& block) {
  PageBuffer memory(block.image().size());
  const std::span<uint8_t> read = memory.first(block.image().size());
  if (absl::Status status = tier.Read(location, 0, read); !status.ok()) return status;
  if (std::memcmp(read.data(), block.image().data(), read.size()) == 0) return absl::OkStatus();
  return absl::DataLossError("other bytes");
}

// The value of an unlabelled metric; -1 when there is none of that name.
class MetricReader final : public MetricsVisitor {
 public:
  explicit MetricReader(const SsdTier& tier) { tier.VisitMetrics(*this); }
  void Counter(std::string_view name, std::string_view, MetricLabels, double value) override {
    values_[std::string(name)] = value;
  }
  void Gauge(std::string_view name, std::string_view, MetricLabels, double value) override {
    values_[std::string(name)] = value;
  }
  void Histogram(std::string_view, std::string_view, MetricLabels, const HistogramView&) override {}
  double operator[](const std::string& name) const {
    const auto found = values_.find(name);
    return found == values_.end() ? -1 : found->second;
  }

 private:
  std::map<std::string, double> values_;
};

// What an index remembers across restarts of the tier: the calls that changed it, oldest first. A
// power cut takes a tail of them away, as it does with RocksDB's unsynced log.
struct IndexLog {
  std::vector<std::function<absl::Status(SsdIndex&)>> changes;
  int resets = 0;
};

class LoggedIndex final : public SsdIndex {
 public:
  explicit LoggedIndex(IndexLog& log) : log_(log), memory_(MakeMemoryIndex()) {}
  absl::Status Open() override {
    for (const auto& change : log_.changes) {
      if (absl::Status status = change(*memory_); !status.ok()) return status;
    }
    return absl::OkStatus();
  }
  absl::Status Reset() override {
    ++log_.resets;
    log_.changes.clear();
    return memory_->Reset();
  }
  absl::StatusOr<std::vector<SsdIndexMark>> Marks() override { return memory_->Marks(); }
  absl::Status Add(std::span<const SsdIndexRecord> records, const SsdIndexMark& mark) override {
    std::vector<SsdIndexRecord> rows(records.begin(), records.end());
    auto contents = std::make_shared<std::vector<std::vector<uint8_t>>>();
    for (SsdIndexRecord& row : rows) {
      contents->emplace_back(row.content.begin(), row.content.end());
      row.content = contents->back();  // a vector that moves keeps its bytes where they are
    }
    return Do([rows, contents, mark](SsdIndex& index) { return index.Add(rows, mark); });
  }
  absl::Status Visit(uint32_t segment,
                     absl::FunctionRef<absl::Status(const SsdIndexRecord&)> visit) override {
    return memory_->Visit(segment, visit);
  }
  absl::Status Drop(uint32_t segment) override {
    return Do([segment](SsdIndex& index) { return index.Drop(segment); });
  }

 private:
  absl::Status Do(std::function<absl::Status(SsdIndex&)> change) {
    const absl::Status status = change(*memory_);
    log_.changes.push_back(std::move(change));
    return status;
  }
  IndexLog& log_;
  const std::unique_ptr<SsdIndex> memory_;
};

// A tier on a disk, with what it told.
class SsdTierTest : public testing::Test {
 protected:
  SsdTierTest() {
    options_.directory = "/tier";
    options_.segment_bytes = 64 * kDiskPageBytes;
    options_.capacity_bytes = 4 * options_.segment_bytes;
  }

  absl::Status Open(Disk& disk, std::unique_ptr<SsdIndex> index) {
    tier_.reset();
    recovered_.clear();
    const size_t dropped_before = dropped_.size();
    auto tier = SsdTier::Open(
        disk, std::move(index), options_,
        [this](const BlockHeader& header, SsdLocation location) {
          recovered_[header.key] = location;
        },
        [this](const BlockKey& key, const Variant&, SsdLocation) { dropped_.push_back(key); },
        &report_);
    dropped_by_start_.clear();
    dropped_by_start_.insert(dropped_.begin() + static_cast<ptrdiff_t>(dropped_before),
                             dropped_.end());
    if (tier.ok()) tier_ = *std::move(tier);
    return tier.status();
  }
  absl::Status Open() { return Open(disk_, std::make_unique<LoggedIndex>(log_)); }
  // The index is gone: everything comes from the segments.
  absl::Status OpenWithoutIndex() {
    log_.changes.clear();
    return Open();
  }

  TestBlock& Block(uint64_t id) {
    auto& block = blocks_[id];
    if (block == nullptr) block = std::make_unique<TestBlock>(id, "raw", 3 * kDiskPageBytes);
    return *block;  // 1 + 3 pages, and one of record header
  }
  absl::StatusOr<SsdLocation> Put(uint64_t id) {
    const SsdTier::Image image = Block(id).ForAppend();
    SsdLocation location;
    const absl::Status status = tier_->Append({&image, 1}, {&location, 1});
    if (!status.ok()) return status;
    return location;
  }
  absl::Status Remove(uint64_t id) {
    const BlockKey key = TestKey(id);
    return tier_->AppendTombstones({&key, 1});
  }
  // Ids that the last start told of, and did not drop again to make room. Each is read, and must be
  // right.
  std::set<uint64_t> RecoveredIds() {
    for (const BlockKey& key : dropped_by_start_) recovered_.erase(key);
    std::set<uint64_t> ids;
    for (uint64_t id = 0; id < 100; ++id) {
      const auto found = recovered_.find(TestKey(id));
      if (found == recovered_.end()) continue;
      ids.insert(id);
      EXPECT_TRUE(ReadAndCompare(*tier_, found->second, Block(id)).ok()) << id;
    }
    EXPECT_EQ(ids.size(), recovered_.size());
    return ids;
  }
  std::string PathOf(uint32_t segment) const {
    return options_.directory + "/" + SegmentName(segment);
  }

  SimulatedDisk disk_;
  IndexLog log_;
  SsdTier::Options options_;
  std::unique_ptr<SsdTier> tier_;
  SsdTier::RecoveryReport report_;
  std::map<BlockKey, SsdLocation> recovered_;
  std::vector<BlockKey> dropped_;
  std::set<BlockKey> dropped_by_start_;
  std::map<uint64_t, std::unique_ptr<TestBlock>> blocks_;
};

}  // namespace kedge
