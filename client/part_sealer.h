// Digests of a block's parts, taken as the block goes out: run after run, right before each is
// sent, so that the bytes are in the cache when the transport copies them. (A digest taken when the
// caller hands the memory over reads all of it once more from main memory.)
//
// Parts may come in any order; a part's bytes come in order, and one part is ended before another
// one is begun. Loop only.
#pragma once

#include <cstdint>
#include <span>

#include "proto/block_header.h"

namespace kedge {

class PartSealer {
 public:
  // Digests bytes of the block that `header` names; sizes of its parts are set. They lie at
  // `offset` of its payload: a part's begin, or where the last call ended. Sets the digest of every
  // part that ends with them.
  void Add(BlockHeader& header, uint64_t offset, std::span<const uint8_t> bytes);

 private:
  void FindPart(const BlockHeader& header, uint64_t offset);

  PartDigester digester_;
  const BlockHeader* of_ = nullptr;  // whose part is under way
  uint32_t part_ = 0;
  uint64_t at_ = 0;    // offset in the payload that comes next
  uint64_t left_ = 0;  // bytes of the part that are still to come; 0: none is under way
};

}  // namespace kedge
