// kAnchorInsert: a block that was put becomes an anchor of a pool. kMixUsed: anchors that were of
// use stay longer.
//
// An anchor comes in as any block does (node_put.cc); only its commit is another one. What a pool
// refuses leaves no block behind. A sealed payload is enciphered by the client: nodes hold no keys,
// and cannot mix what they cannot read.

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "store/node/node.h"

namespace kedge {
namespace {

// The header that was sealed in is checked against the bytes later; here whether it is an anchor's.
absl::Status CheckAnchorHeader(const AnchorInsertBody& insert) {
  const absl::StatusOr<BlockHeader> header = DecodeBlockHeader(insert.header);
  if (!header.ok()) return header.status();
  if (header->key != insert.key) {
    return absl::InvalidArgumentError(absl::StrCat("anchor_insert.key: ", insert.key.ToHex(),
                                                   ", its header has ", header->key.ToHex()));
  }
  if (header->placement != insert.placement) {
    return absl::InvalidArgumentError(absl::StrCat("anchor_insert.placement: ", insert.placement,
                                                   ", its header has ", header->placement));
  }
  const bool anchor = header->keyspace == Keyspace::kAnchor && header->chain_depth == 0 &&
                      header->shape.opaque() && header->variant == Variant::Raw();
  if (anchor) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "anchor_insert.header: keyspace ", KeyspaceName(header->keyspace), ", variant ",
      std::string(header->variant.view()), ": anchors are opaque, raw and of their own keyspace"));
}

}  // namespace

void Node::OnAnchorInsert(Session& session, const Frame& frame) {
  const int64_t now_us = clock_.NowUs();
  if (!BodyOk(session, frame.header, DecodeAnchorInsert(frame.body, anchor_insert_))) return;
  AnchorInsertBody& insert = anchor_insert_;
  PutSlot* slot = insert.slot == 0 ? nullptr : FindSlot(insert.slot);
  if (slot != nullptr && slot->session != session.id) slot = nullptr;
  const auto refuse = [&](ResultCode code, PoolVerdict verdict, std::string text) {
    if (slot != nullptr && !slot->commit_waits) FreeSlot(*slot, /*free_host=*/true);
    AnswerInsert(session.id, frame.header, now_us, insert.slot,
                 {.code = code, .verdict = verdict, .text = std::move(text)});
  };
  if ((insert.flags & kAnchorFlagSealed) != 0) {
    return refuse(ResultCode::kDenied, PoolVerdict::kSealed,
                  "anchor_insert.flags: sealed, a node cannot mix what it cannot read");
  }
  if (insert.durability == kDurabilitySsd && ssd_ == nullptr) {
    return refuse(ResultCode::kInvalid, PoolVerdict::kOk,
                  "anchor_insert.durability: ssd, the node has no SSD tier");
  }
  if (insert.slot == 0) {
    if (draining()) return refuse(ResultCode::kUnavailable, PoolVerdict::kBusy, "draining");
    const uint16_t raw = map_.variants().Find(Variant::Raw());
    BlockMap::Found held = map_.Lookup(insert.key, insert.placement, {&raw, 1});
    if (held.code != ResultCode::kOk) {
      return refuse(held.code, PoolVerdict::kOk, "anchor_insert.slot: 0, the block is not held");
    }
    return InsertAnchor(session.id, frame.header, now_us, insert, std::move(held.ref), false);
  }
  if (slot == nullptr) {
    return refuse(ResultCode::kAbsent, PoolVerdict::kOk,
                  absl::StrCat("anchor_insert.slot: ", insert.slot, " is not open"));
  }
  if (slot->commit_waits) {
    return refuse(ResultCode::kInvalid, PoolVerdict::kOk,
                  absl::StrCat("anchor_insert.slot: ", insert.slot, " is being committed"));
  }
  if (const absl::Status s = CheckAnchorHeader(insert); !s.ok())
    return refuse(ResultCode::kInvalid, PoolVerdict::kDamaged, std::string(s.message()));
  slot->last_traffic_ms = session.last_heard_ms;
  slot->durability = insert.durability;
  slot->commit = frame.header;
  slot->commit_us = now_us;
  slot->commit_header.assign(insert.header.begin(), insert.header.end());
  slot->commit_waits = true;
  slot->to_pool = true;
  slot->insert = insert;
  slot->insert.header = {};
  if (slot->complete() || !slot->failed.ok()) Commit(*slot);
}

void Node::InsertAnchor(uint64_t session, const FrameHeader& request, int64_t started_us,
                        const AnchorInsertBody& insert, BlockRef block, bool fresh) {
  AnchorStore::InsertAsk ask{
      .pool = insert.pool,
      .placement = insert.placement,
      .key = insert.key,
      .options = {.capacity = insert.capacity, .window = insert.window, .nucleus = insert.nucleus},
      .durable = WantsSsd(insert.durability),
      .fresh = fresh,
      .block = std::move(block)};
  anchors_->Insert(std::move(ask), [this, session, request, started_us,
                                    slot = insert.slot](AnchorStore::InsertAnswer answer) {
    transport_->Post([this, session, request, started_us, slot, answer = std::move(answer)] {
      AnswerInsert(session, request, started_us, slot, answer);
    });
  });
}

void Node::AnswerInsert(uint64_t session_id, const FrameHeader& request, int64_t started_us,
                        uint64_t slot, const AnchorStore::InsertAnswer& answer) {
  metrics_.Request(Op::kAnchorInsert, answer.code, clock_.NowUs() - started_us);
  Session* session = FindSession(session_id);
  if (session == nullptr) return;
  const AnchorInsertedBody inserted{slot, answer.code, answer.verdict, answer.anchors, answer.text};
  body_.clear();
  EncodeAnchorInserted(inserted, body_);
  Reply(*session, request, FrameType::kAnchorInserted);
}

void Node::OnMixUsed(Session& session, const Frame& frame) {
  if (!BodyOk(session, frame.header, DecodeMixUsed(frame.body, mix_used_))) return;
  anchors_->Used(mix_used_);
}

}  // namespace kedge
