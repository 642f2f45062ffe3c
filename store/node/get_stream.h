// Answers on their way out: which bytes of which block go next on a connection.
//
// A *stream* is one kGet: up to 1,024 items, each a pinned block; or what one kMix is answered. A
// *sender* has the streams of one connection and keeps a window of bytes under way, so that what a
// stopped client can hold down is bounded. Small streams go first, and bulk gets its turn after
// every few of them; bulk streams take turns message by message. A block is unpinned when its last
// message has left.
//
// Plain state, no I/O: node_get.cc moves it. Streams and messages under way live in pools and are
// used again, so a steady stream of gets does not allocate. Loop only.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "proto/frame.h"
#include "proto/messages.h"
#include "store/block/block_map.h"
#include "store/block/slab.h"
#include "store/node/mix_queue.h"

namespace kedge {

struct Session;

struct GetItemState {
  enum class Stage : uint8_t {
    kOnSsd,  // waits for its turn to be promoted
    kPromoting,
    kReady,  // in host memory; `begin`, `end` and `image` are known
    kDone,   // everything was handed to the transport, or it was answered without bytes
  };
  Stage stage = Stage::kDone;
  TierId tier = TierId::kNone;
  bool header_sent = false;
  bool promoted = false;
  uint32_t under_way = 0;  // messages
  uint32_t header_bytes = 0;
  uint32_t image_bytes = 0;
  uint64_t capacity_bytes = 0;
  uint64_t next = 0;  // offset in the payload of the first byte that was not handed over
  uint64_t end = 0;
  const uint8_t* image = nullptr;
  uint64_t payload_offset = 0;  // in the image
  BlockRef block;
};

struct GetStream {
  Session* session = nullptr;  // null: the connection ended
  FrameHeader request;
  int64_t started_us = 0;
  int64_t deadline_us = 0;  // 0: none
  uint16_t part_begin = 0;
  uint16_t part_count = 0;
  bool in_use = false;
  bool stopped = false;         // cancelled, past its deadline, or without a connection
  bool queued = false;          // in a lane of its sender
  uint32_t current = kNoIndex;  // item whose bytes are going out
  uint32_t first_open = 0;      // items before it are done
  uint32_t open_items = 0;      // not done
  uint32_t promoting = 0;
  uint32_t promoted_waiting = 0;      // being promoted, or promoted and not yet all sent: bounded
  uint64_t promoted_bytes = 0;        // of their images
  uint32_t under_way = 0;             // messages
  uint64_t ready_bytes = 0;           // of ready items, not handed over
  ResultCode code = ResultCode::kOk;  // of the request as a whole
  std::vector<GetItemState> items;
  // Not null: this is the answer to a kMix, one item whose bytes these are, behind `mix_reply`.
  std::shared_ptr<MixedBytes> mixed;
  std::vector<uint8_t> mix_reply;

  // Nothing of it is in anybody's hands any more.
  bool over() const { return open_items == 0 && promoting == 0 && under_way == 0; }
};

// Streams of one connection that have something ready to send, in two lanes.
class GetSender {
 public:
  // A stream with at most this many bytes left is small.
  static constexpr uint64_t kSmallBytes = 256 << 10;
  // Bulk bytes under way; small streams may use as much again on top. Some milliseconds of the
  // wire: enough to keep it busy, little enough that what comes behind does not wait long.
  static constexpr uint64_t kWindowBytes = 4 << 20;
  // Messages of small streams before bulk gets one.
  static constexpr uint32_t kSmallTurns = 8;

  void Add(uint32_t stream, uint64_t bytes);
  // kNoIndex when nothing may be sent now. The stream that is answered leaves its lane; add it
  // again when it has more.
  uint32_t Take();
  void Remove(uint32_t stream);
  bool empty() const { return small_.empty() && bulk_.empty(); }

  uint64_t bytes_under_way = 0;

 private:
  static uint32_t PopFront(std::vector<uint32_t>& lane);

  std::vector<uint32_t> small_;
  std::vector<uint32_t> bulk_;
  uint32_t small_turns_ = 0;
};

// A message that the transport has: the cookie is its index plus 1.
struct MessageUnderWay {
  uint32_t stream = kNoIndex;
  uint32_t item = 0;
  uint32_t bytes = 0;
};

// Sizes of the parts, from the encoded header (proto/README.md): [begin, end) of `count` parts from
// `first` on in the payload; count 0: to the end. INVALID_ARGUMENT naming part_begin or part_count
// and the number of parts.
absl::Status PartRange(std::span<const uint8_t> encoded_header, uint16_t first, uint16_t count,
                       uint64_t* begin, uint64_t* end);

}  // namespace kedge
