// Bulk from the caller's memory to the node: put, store, and store layer by layer.
//
// Items are begun in sub-requests of about kSubRequestBytes; the node answers with a slot for each
// item that it wants. Bytes go out straight from the caller's memory (small pieces are gathered
// first); each piece is digested right before it is sent, so that the transport's copy finds it in
// the cache, and what the node does not want is not digested at all. The header with all digests
// follows and commits the slot. The memory is borrowed by the transport until OnSent: the operation
// ends only when all of it is back. After an Abandon that takes too long the engine closes the
// connection, which gives it back at once.
//
// *Open* puts (layer by layer) begin all their items at once; parts follow while the caller
// computes them. The node drops a slot that gets no traffic for its put_idle_ms.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "client/operation.h"
#include "client/part_sealer.h"
#include "proto/block_header.h"
#include "proto/messages.h"

namespace kedge {

class PutOperation final : public Operation {
 public:
  struct Extent {
    uint64_t offset = 0;  // in the block's payload
    const uint8_t* data = nullptr;
    uint64_t bytes = 0;
  };
  struct Item {
    BlockHeader header;           // all but digests
    std::vector<Extent> extents;  // disjoint; together the payload. A part's lie in order, one
                                  // behind the other. Open puts: added later
  };
  struct Question {
    std::vector<Item> items;
    Variant variant;
    uint8_t durability = kDurabilityDefault;
    bool open = false;
    std::shared_ptr<const void> memory;  // what extents point to, where it is not the caller's
  };
  PutOperation(Question question, uint64_t window_bytes, int64_t deadline_us);

  // [loop] Open puts: more whole parts of an item.
  void Add(Engine& engine, uint32_t item, std::span<const Extent> extents);
  // [loop] Open puts: no more parts will come. An item that is not whole ends with kInvalid. The
  // deadline counts from here.
  void Commit(Engine& engine, const std::vector<bool>& whole, int64_t deadline_us);

  void Start(Engine& engine) override;
  void OnFrame(Engine& engine, uint64_t wire, uint32_t tag, const Frame& frame,
               std::span<const uint8_t> payload) override;
  Pumped Pump(Engine& engine) override;
  void OnSent(Engine& engine, uint32_t item, uint64_t bytes) override;
  void Abandon(Engine& engine, ResultCode code, std::string_view text) override;

 private:
  struct Sub {  // items begun together
    uint64_t wire = 0;
    uint32_t begin = 0;
    uint32_t end = 0;
    uint64_t bytes = 0;
    uint32_t running = 0;
    uint32_t attempt = 0;
    bool ready = false;
  };
  struct State {  // of one item
    uint32_t sub = 0;
    uint64_t slot = 0;
    bool ready = false;
    bool queued = false;     // in to_send_
    bool whole = false;      // may be committed once all is sent
    bool committed = false;  // the commit was sent
    size_t next = 0;         // extent that is sent next
    uint64_t skip = 0;       // bytes of it that were sent
    uint64_t payload_bytes = 0;
    uint64_t sent = 0;
    uint64_t digested = 0;  // in the order of sending; ahead of `sent` after a piece was refused
  };

  void CutSubs();
  void BeginMore(Engine& engine);
  void Begin(Engine& engine, uint32_t tag);
  void OnReady(Engine& engine, Sub& sub, const PutReadyBody& ready);
  void OnError(Engine& engine, uint32_t tag, const Frame& frame);
  bool HasBytes(uint32_t item) const;
  void QueueItem(Engine& engine, uint32_t item);
  bool SendPiece(Engine& engine, uint32_t item);
  void Digest(uint32_t item, uint64_t offset, std::span<const uint8_t> piece);
  void Advance(uint32_t item, uint64_t bytes);
  void CommitIfSent(Engine& engine, uint32_t item);
  void Finish(Engine& engine, uint32_t item, ResultCode code, std::string_view text);
  void EndWhenDone(Engine& engine);
  int64_t FrameDeadline() const;

  Question question_;
  const uint64_t window_bytes_;
  std::vector<State> states_;
  std::vector<Sub> subs_;  // by tag
  uint32_t next_sub_ = 0;
  uint64_t in_flight_ = 0;        // bytes of items that were begun and have not ended
  uint64_t borrowed_ = 0;         // messages handed to the transport and not yet back
  std::deque<uint32_t> to_send_;  // the first is sent until it has no bytes: parts stay together
  PartSealer sealer_;
  absl::flat_hash_map<uint64_t, uint32_t> by_slot_;
  PutReadyBody ready_body_;
  PutDoneBody done_body_;
};

}  // namespace kedge
