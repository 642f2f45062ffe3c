// Where the bytes of one fetched block land, and how they are known to be right.
//
// A landing takes the node's answer for one item (kGetItem) and its chunks, in any order and of any
// size, copies each byte once into the caller's scatter list, and digests the bytes while they are
// in cache. A part that arrives in order is checked as a stream; what arrives out of order is
// checked from the caller's memory once it is whole. It ends with kOk only when every byte of the
// parts in range is there and every part matches the one header's digest.
//
// Parts of a lossy variant are not what the caller wants to have: where the target says so they
// stay here, encoded and not yet checked, for the owner to check and decode in one pass (get.h).
//
// Trusts nothing it is given: header, offsets and lengths are checked before a byte is written, and
// nothing is ever written outside [0, capacity) of the scatter list. No threads, no network. After
// it has ended it writes nothing.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "client/scatter.h"
#include "proto/block_header.h"
#include "proto/messages.h"

namespace kedge {

class Landing {
 public:
  // What must outlive the landing: `to`, `shape`, `accepted`.
  struct Target {
    BlockKey key;
    const ScatterList* to = nullptr;
    uint32_t range_begin = 0;        // the part that lies at offset 0 of `to`
    uint32_t part_begin = 0;         // parts of this landing: [part_begin, part_begin + part_count)
    uint32_t part_count = 0;         // 0: to the end
    const KvShape* shape = nullptr;  // the block must have it; nullptr: any
    std::span<const Variant> accepted;  // empty: any lossless one
    bool keep_encoded = false;  // other variants than `raw` stay in encoded(); needs `shape`
    bool any_size = false;      // with keep_encoded: what they become is not for `to`
  };

  // Begins anew; reuses memory.
  void Start(const Target& target);
  // The node's answer for the item, with the bytes that came along. False when it ends the landing
  // with a failure.
  bool OnItem(const GetItemBody& body, std::span<const uint8_t> payload);
  // Bulk bytes at an absolute offset of the block's payload. False as above.
  bool OnBytes(uint64_t offset, std::span<const uint8_t> bytes);

  bool ended() const { return ended_; }
  ResultCode code() const { return code_; }          // once ended
  const std::string& text() const { return text_; }  // why it failed
  TierId tier() const { return tier_; }
  bool has_header() const { return has_header_; }
  const BlockHeader& header() const { return header_; }
  uint32_t variant() const { return variant_; }    // index into `accepted`
  uint64_t bytes() const { return end_ - base_; }  // of the parts in range, as they came
  bool kept_encoded() const { return kept_; }      // once it has its header
  // The parts of this landing, one after the other; their digests were not looked at.
  std::span<const uint8_t> encoded() const { return encoded_; }
  uint32_t part_begin() const { return target_.part_begin; }
  uint32_t part_end() const { return part_last_; }

 private:
  bool Fail(ResultCode code, std::string text);
  bool AcceptHeader(std::span<const uint8_t> encoded);
  bool Stream(std::span<const uint8_t> bytes);
  bool Scatter(uint64_t offset, std::span<const uint8_t> bytes);
  bool EndStreamedParts();
  bool VerifyRest();
  void CheckEnd();
  bool KeepEncoded(uint64_t parts);
  const ScatterList& to() const { return kept_ ? encoded_list_ : *target_.to; }

  Target target_;
  bool ended_ = true;
  bool has_header_ = false;
  bool in_order_ = true;
  ResultCode code_ = ResultCode::kInternal;
  TierId tier_ = TierId::kNone;
  uint32_t variant_ = 0;
  std::string text_;
  BlockHeader header_;
  uint64_t range_base_ = 0;  // payload offset of part range_begin
  uint64_t base_ = 0;        // payload offset of part_begin
  uint64_t end_ = 0;         // and of the end of the last part
  uint64_t cursor_ = 0;      // bytes before it arrived in order
  uint32_t part_ = 0;        // the part that cursor_ is in
  uint32_t part_last_ = 0;   // one past the last part
  uint64_t part_end_ = 0;
  PartDigester digester_;
  std::vector<std::pair<uint64_t, uint64_t>> arrived_;  // out of order: disjoint, sorted
  std::vector<std::pair<uint64_t, std::vector<uint8_t>>> early_;
  uint64_t early_bytes_ = 0;
  bool kept_ = false;
  std::vector<uint8_t> encoded_;
  ScatterList encoded_list_;
};

}  // namespace kedge
