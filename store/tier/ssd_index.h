// The durable index of the SSD tier: what lies where, so that a start need not read every segment.
//
// It is an accelerator and nothing else: the segments hold the same facts. It may lag behind them
// and never runs ahead, because a record is added after its segment was synced. Records of one
// segment and the segment's mark are added together or not at all. Calls come from one thread at a
// time. Errors: DATA_LOSS when what is stored is damaged; then `Reset` and rebuild.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "store/tier/ssd_format.h"

namespace kedge {

// How far a segment has been indexed: everything below page `pages`.
struct SsdIndexMark {
  uint32_t segment = 0;
  uint32_t pages = 0;
  uint64_t nonce = 0;  // of the segment's header: the file that the records are from
};

struct SsdIndexRecord {
  uint32_t segment = 0;
  uint32_t page = 0;  // of the record header
  RecordKind kind = RecordKind::kBlock;
  uint64_t sequence = 0;
  std::span<const uint8_t>
      content;  // a block's encoded header, or a tombstone's keys, one after the other
};

class SsdIndex {
 public:
  virtual ~SsdIndex() = default;

  // Opens what is there, or an empty one. Called once, first.
  virtual absl::Status Open() = 0;
  // Throws away what is there and opens an empty one. Also after a failed Open.
  virtual absl::Status Reset() = 0;

  // In order of the segments.
  virtual absl::StatusOr<std::vector<SsdIndexMark>> Marks() = 0;
  // All of `mark.segment`.
  virtual absl::Status Add(std::span<const SsdIndexRecord> records, const SsdIndexMark& mark) = 0;
  // Records of a segment in order of their pages, until `visit` returns an error, which is then the
  // result. The content lives as long as the call.
  virtual absl::Status Visit(uint32_t segment,
                             absl::FunctionRef<absl::Status(const SsdIndexRecord&)> visit) = 0;
  // Its records and its mark.
  virtual absl::Status Drop(uint32_t segment) = 0;
};

// In the directory `path`, made on Open.
std::unique_ptr<SsdIndex> MakeRocksdbIndex(std::string path);
// Forgets all when it is destroyed: every start is a rebuild.
std::unique_ptr<SsdIndex> MakeMemoryIndex();

}  // namespace kedge
