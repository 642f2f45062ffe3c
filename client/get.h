// Bulk from the node into the caller's memory: get, and fetch by blocks and layers.
//
// The request is cut into sub-requests, each a run of items and a range of parts: batches of about
// kSubRequestBytes, or layer groups that are asked for in order. A few are under way at a time;
// each has landings (landing.h) of its own. An item ends with kOk when all its ranges have; it
// fails with the first of them that does, and is left out of the later ones. All ranges of an item
// must carry one root digest: they are of one and the same copy of the block.
//
// Blocks of a model may come as a lossy variant. Their parts land encoded; when a landing is whole
// each part is checked against its digest, decoded, rotated to its true position and scattered into
// the caller's memory, in one pass on the loop.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "client/landing.h"
#include "client/operation.h"
#include "client/scatter.h"
#include "client/variants.h"
#include "gpu/codec/block_codec.h"
#include "gpu/codec/codec_chain.h"
#include "proto/messages.h"

namespace kedge {

// Takes what landed of an item that is no block of block_tokens rows (client/pruned.h), on the
// loop.
class PartReader {
 public:
  virtual ~PartReader() = default;
  // Parts [part_begin, part_end), one after the other in `bytes`, as they came: digests were not
  // looked at. Returns how many bytes of the caller's memory were written.
  virtual absl::StatusOr<uint64_t> Read(const BlockHeader& header, uint32_t part_begin,
                                        uint32_t part_end, std::span<const uint8_t> bytes) = 0;
};

class GetOperation final : public Operation {
 public:
  struct Item {
    BlockKey key;
    uint64_t placement = 0;
    ScatterList to;
    uint32_t block = 0;  // of its sequence: where its first token stands
  };
  struct Question {
    std::vector<Item> items;
    std::vector<Variant> variants;  // accepted; empty: any lossless
    std::optional<KvShape> shape;   // blocks of a model; none: opaque values
    uint32_t part_begin = 0;
    uint32_t part_count = 0;  // 0: to the end
    // Layer groups, in parts; 0: all parts at once. With groups part_count is not 0.
    uint32_t group_parts = 0;
    uint32_t layer_parts = 1;  // parts of a layer, to count layers
    // With lossy variants: the chain of each of `variants`, and how keys are rotated.
    std::vector<codec::CodecChain> chains;
    codec::KeyRotation rotation;
    std::shared_ptr<LossyLog> lossy;  // is told what came back so; may be null
    // One item that `reader` takes, as a variant that is not raw; its parts have at most
    // part_bytes_max bytes.
    std::shared_ptr<PartReader> reader;
    uint64_t part_bytes_max = 0;
  };
  GetOperation(Question question, uint64_t window_bytes, int64_t deadline_us);

  void Start(Engine& engine) override;
  void OnFrame(Engine& engine, uint64_t wire, uint32_t tag, const Frame& frame,
               std::span<const uint8_t> payload) override;
  void Abandon(Engine& engine, ResultCode code, std::string_view text) override;
  std::string_view variant_name(uint8_t index) const override {
    return index < question_.variants.size() ? question_.variants[index].view() : "raw";
  }

 private:
  struct Sub {          // a sub-request under way; reused
    uint64_t wire = 0;  // 0: free
    uint32_t group = 0;
    uint32_t part_begin = 0;
    uint32_t part_count = 0;
    uint64_t bytes = 0;
    uint32_t running = 0;  // landings that have not ended
    uint32_t attempt = 0;
    std::vector<uint32_t> items;  // of the request, by the sub-request's index
    std::vector<Landing> landings;
  };
  struct Batch {  // a run of items
    uint32_t begin = 0;
    uint32_t end = 0;
    uint64_t bytes = 0;
  };
  struct Progress {  // of one item
    uint32_t ranges_left = 0;
    bool has_root = false;
    Digest128 root;
    uint64_t bytes = 0;
    std::unique_ptr<kernels::RopeTable> rope;  // of its tokens, from its first lossy part on
  };

  void CutBatches(uint64_t window_bytes);
  uint64_t RangeBytes(uint32_t item, uint32_t group) const;
  uint32_t GroupParts(uint32_t group) const;
  void AskMore(Engine& engine);
  void Ask(Engine& engine, uint32_t group, const Batch& batch);
  void OnGroupPiece(uint32_t group);
  void EndWhenDone(Engine& engine);
  Sub& FreeSub(uint32_t& tag);
  void SendGet(Engine& engine, Sub& sub);
  void OnLanding(Engine& engine, Sub& sub, uint32_t index);
  // Returns what was written.
  absl::StatusOr<uint64_t> Decode(const Landing& landing, uint32_t item);
  absl::Status DecodePart(const Landing& landing, uint32_t item, uint32_t part,
                          std::span<const uint8_t> bytes);
  void OnSubEnded(Engine& engine, Sub& sub);
  void OnError(Engine& engine, Sub& sub, const Frame& frame);

  Question question_;
  uint64_t in_flight_max_ = 0;
  uint64_t in_flight_ = 0;
  std::vector<Batch> batches_;
  uint32_t groups_ = 1;
  uint32_t next_group_ = 0;
  uint32_t next_batch_ = 0;
  std::vector<std::unique_ptr<Sub>> subs_;  // by tag
  uint32_t subs_open_ = 0;
  std::vector<uint32_t> subs_left_;  // of each group, sub-requests that have not ended
  uint32_t groups_done_ = 0;         // leading groups that are there
  uint64_t part_bytes_max_ = 0;      // of any accepted variant; 0: not known before the header
  std::vector<Progress> progress_;
  GetItemBody item_body_;
  std::vector<std::span<uint8_t>> pages_;
  std::vector<uint8_t> page_;  // a part whose rows the caller's memory cuts
};

}  // namespace kedge
