// One block on its way in: a host slot that fills, and what is known about the bytes so far.
//
// Bytes may come in any order, each once. As long as the parts are of one known size, each is
// digested right after its bytes were copied, while they are in the cache; what came out of order
// is caught up with when the gap closes. The block header, with the digests that the sender
// computed, comes last; only then is anything believed.
//
// Reused for one block after another, so a steady stream of puts does not allocate. Loop only.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "proto/block_header.h"
#include "proto/frame.h"
#include "proto/messages.h"
#include "proto/offset_messages.h"
#include "store/tier/block_image.h"
#include "store/tier/tier_host.h"

namespace kedge {

class PutSlot {
 public:
  // Holes that a sender may leave at one time; a layer-by-layer store in any order stays far below.
  static constexpr size_t kRangesMax = 4096;

  // Before the header is there: as if it were of the version with the longest fixed part.
  static ImageLayout LayoutFor(const PutBeginItem& item);
  // `image` is the memory of `host`, at least as large as LayoutFor says.
  void Open(const PutBeginItem& item, const Variant& variant, HostSlot host, uint8_t* image);
  // INVALID_ARGUMENT naming offset and length: outside of the payload, or bytes that were there
  // already. The slot is then of no use.
  absl::Status Receive(uint64_t offset, std::span<const uint8_t> bytes);
  bool complete() const { return received_ == layout_.payload_bytes; }
  uint64_t received() const { return received_; }
  // Takes the encoded header: INVALID_ARGUMENT (does not parse, or is not the one that kPutBegin
  // announced) or DATA_LOSS naming the part whose bytes do not match. Then writes it into the image
  // and zeroes what is padding. Needs complete().
  absl::Status Seal(std::span<const uint8_t> encoded, BlockHeader* header);

  const BlockKey& key() const { return key_; }
  const Variant& variant() const { return variant_; }
  uint64_t placement() const { return placement_; }
  // Of a put that has no header yet: with room for the largest that it can have.
  const ImageLayout& layout() const { return layout_; }
  uint64_t reserved_bytes() const { return reserved_bytes_; }  // of the image, from Open on
  HostSlot host() const { return host_; }

  // What the node notes beside it.
  uint64_t id = 0;  // 0: free
  uint64_t session = 0;
  int64_t last_traffic_ms = 0;
  absl::Status failed;        // first error of its chunks; the commit answers it
  bool commit_waits = false;  // the commit overtook chunks
  uint8_t durability = 0;
  FrameHeader commit;  // of the commit's frame
  int64_t commit_us = 0;
  std::vector<uint8_t> commit_header;
  bool to_pool = false;  // committed by kAnchorInsert, which says into which pool
  AnchorInsertBody insert;

 private:
  absl::Status CheckHeader(const BlockHeader& header) const;
  absl::Status AddRange(uint64_t begin, uint64_t end);
  void TakeLayout(uint32_t header_bytes);
  void DigestUpTo(uint64_t end, const uint8_t* source, uint64_t source_offset);
  uint64_t PartEnd(uint32_t part) const { return uint64_t{part_bytes_} * (part + 1); }

  BlockKey key_;
  Variant variant_;
  uint64_t placement_ = 0;
  uint16_t part_count_ = 0;
  uint32_t part_bytes_ = 0;  // 0: unknown
  ImageLayout layout_;
  uint64_t reserved_bytes_ = 0;
  HostSlot host_;
  uint8_t* image_ = nullptr;

  std::vector<std::pair<uint64_t, uint64_t>> ranges_;  // received, apart and sorted
  uint64_t received_ = 0;
  PartDigester digester_;
  uint64_t digested_ = 0;           // bytes from the start
  std::vector<Digest128> digests_;  // of whole parts
};

}  // namespace kedge
