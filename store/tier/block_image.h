// A block as it lies in a host slot and on the SSD, byte for byte the same:
//
//   [encoded block header, zero padded to a page][payload, zero padded to a page]
//
// One contiguous, page-aligned run: one O_DIRECT write stores it, one read brings it back, and the
// header says by itself whether the rest is right.
#pragma once

#include <cstdint>

#include "proto/block_header.h"
#include "store/world/disk.h"

namespace kedge {

inline constexpr uint64_t PageRound(uint64_t bytes) {
  return (bytes + kDiskPageBytes - 1) / kDiskPageBytes * kDiskPageBytes;
}

// What names the bytes of a block: they never change under it.
struct BlockName {
  BlockKey key;
  Variant variant;
  friend bool operator==(const BlockName&, const BlockName&) = default;
};

struct ImageLayout {
  uint32_t header_bytes = 0;  // encoded header
  uint64_t payload_bytes = 0;
  uint64_t payload_offset() const { return PageRound(header_bytes); }
  uint64_t image_bytes() const { return payload_offset() + PageRound(payload_bytes); }
};

}  // namespace kedge
