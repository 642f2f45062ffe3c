#include <map>
#include <utility>

#include "store/tier/ssd_index.h"

namespace kedge {
namespace {

class MemoryIndex final : public SsdIndex {
 public:
  absl::Status Open() override { return absl::OkStatus(); }
  absl::Status Reset() override {
    segments_.clear();
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<SsdIndexMark>> Marks() override {
    std::vector<SsdIndexMark> marks;
    for (const auto& [number, segment] : segments_) marks.push_back(segment.mark);
    return marks;
  }

  absl::Status Add(std::span<const SsdIndexRecord> records, const SsdIndexMark& mark) override {
    Segment& segment = segments_[mark.segment];
    segment.mark = mark;
    for (const SsdIndexRecord& record : records) {
      segment.records[record.page] = {record, {record.content.begin(), record.content.end()}};
    }
    return absl::OkStatus();
  }

  absl::Status Visit(uint32_t segment,
                     absl::FunctionRef<absl::Status(const SsdIndexRecord&)> visit) override {
    const auto found = segments_.find(segment);
    if (found == segments_.end()) return absl::OkStatus();
    for (const auto& [page, stored] : found->second.records) {
      SsdIndexRecord record = stored.record;
      record.content = stored.content;
      if (absl::Status status = visit(record); !status.ok()) return status;
    }
    return absl::OkStatus();
  }

  absl::Status Drop(uint32_t segment) override {
    segments_.erase(segment);
    return absl::OkStatus();
  }

 private:
  struct Stored {
    SsdIndexRecord record;
    std::vector<uint8_t> content;
  };
  struct Segment {
    SsdIndexMark mark;
    std::map<uint32_t, Stored> records;
  };
  std::map<uint32_t, Segment> segments_;
};

}  // namespace

std::unique_ptr<SsdIndex> MakeMemoryIndex() { return std::make_unique<MemoryIndex>(); }

}  // namespace kedge
