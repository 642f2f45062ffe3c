// Why a key is not held any more, for as long as memory allows.
//
// A fixed table of 64-bit marks: 61 bits of the key and three of the reason. A new mark takes the
// place of an old one of the same bucket, so the answer may be "not known" but is wrong only when
// 61 bits of two keys agree. Not thread-safe.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>

#include "proto/block_key.h"
#include "proto/result_code.h"

namespace kedge {

class GoneSet {
 public:
  static constexpr uint32_t kMarks = 4096;
  static constexpr uint32_t kWays = 4;

  // `reason` is kEvicted, kRemoved or kCorrupt.
  void Add(const BlockKey& key, ResultCode reason) {
    const uint64_t mark = MarkOf(key) | static_cast<uint64_t>(reason);
    uint64_t* bucket = BucketOf(key);
    for (uint32_t way = 0; way < kWays; ++way) {
      if ((bucket[way] & ~kReasonMask) == (mark & ~kReasonMask)) bucket[way] = 0;
    }
    // The oldest is at the end.
    uint32_t free = 0;
    while (free < kWays - 1 && bucket[free] != 0) ++free;
    std::memmove(bucket + 1, bucket, free * sizeof *bucket);
    bucket[0] = mark;
  }
  void Erase(const BlockKey& key) {
    uint64_t* bucket = BucketOf(key);
    for (uint32_t way = 0; way < kWays; ++way) {
      if ((bucket[way] & ~kReasonMask) == MarkOf(key)) bucket[way] = 0;
    }
  }
  // kAbsent when nothing is known.
  ResultCode Find(const BlockKey& key) const {
    const uint64_t* bucket = BucketOf(key);
    for (uint32_t way = 0; way < kWays; ++way) {
      if (bucket[way] != 0 && (bucket[way] & ~kReasonMask) == MarkOf(key)) {
        return static_cast<ResultCode>(bucket[way] & kReasonMask);
      }
    }
    return ResultCode::kAbsent;
  }
  static constexpr size_t memory_bytes() { return kMarks * sizeof(uint64_t); }

 private:
  static constexpr uint64_t kReasonMask = 7;
  static_assert(static_cast<uint64_t>(ResultCode::kCorrupt) <= kReasonMask);

  static uint64_t Word(const BlockKey& key, size_t at) {
    uint64_t word;
    std::memcpy(&word, key.bytes.data() + at, sizeof word);
    return word;
  }
  static uint64_t MarkOf(const BlockKey& key) { return Word(key, 24) & ~kReasonMask; }
  uint64_t* BucketOf(const BlockKey& key) const {
    return marks_.get() + Word(key, 16) % (kMarks / kWays) * kWays;
  }

  std::unique_ptr<uint64_t[]> marks_ = std::make_unique<uint64_t[]>(kMarks);
};

}  // namespace kedge
