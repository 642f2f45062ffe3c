// kPutBegin -> slots; kChunk -> bytes; kPutCommit -> verified, in the map, visible; then, as asked,
// on the SSD; then kPutDone.
//
// Nothing of a put can be seen before its commit succeeded, and nothing is left of one that did
// not. Two puts of one key may run at the same time: the first commit wins, the second is told
// kExists when its bytes are the same and kMismatch when not.

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "store/node/node.h"

namespace kedge {
namespace {

uint64_t SlotId(uint64_t random, uint32_t index) {
  const uint64_t id = (random & ~uint64_t{UINT32_MAX}) | index;
  return id == 0 ? uint64_t{1} << 32 : id;
}

}  // namespace

bool Node::WantsSsd(uint8_t durability) const {
  return (durability == kDurabilityDefault ? options_.durability : durability) == kDurabilitySsd;
}

// --- Begin --------------------------------------------------------------------------------------

void Node::OnPutBegin(Session& session, const Frame& frame) {
  const int64_t start_us = clock_.NowUs();
  if (!BodyOk(session, frame.header, DecodePutBegin(frame.body, put_begin_))) return;
  put_ready_.items.assign(put_begin_.items.size(), PutReadyItem{});
  std::shared_ptr<PutWait> wait;
  for (size_t i = 0; i < put_begin_.items.size(); ++i) {
    PutReadyItem& ready = put_ready_.items[i];
    ready.code = BeginItem(session, put_begin_, put_begin_.items[i], wait, i, &ready.slot);
  }
  if (wait == nullptr) return SendPutReady(session, frame.header, start_us);
  wait->session = session.id;
  wait->request = frame.header;
  wait->started_us = start_us;
  wait->items = put_ready_.items;
  if (!wait->for_room.empty()) WaitForRoom(std::move(wait));
}

// Answers with put_ready_.
void Node::SendPutReady(Session& session, const FrameHeader& request, int64_t started_us) {
  ResultCode worst = ResultCode::kOk;
  for (const PutReadyItem& item : put_ready_.items) {
    if (!IsSuccess(item.code)) worst = item.code;
  }
  metrics_.Request(Op::kPutBegin, worst, clock_.NowUs() - started_us);
  body_.clear();
  EncodePutReady(put_ready_, body_);
  Reply(session, request, FrameType::kPutReady);
}

ResultCode Node::BeginItem(Session& session, const PutBeginBody& begin, const PutBeginItem& item,
                           std::shared_ptr<PutWait>& wait, size_t index, uint64_t* slot) {
  if (draining()) return ResultCode::kUnavailable;
  if (item.part_count == 0 || item.part_count > kPartCountMax ||
      item.payload_bytes > kBlockBytesMax || item.key.is_zero() ||
      (begin.durability == kDurabilitySsd && ssd_ == nullptr)) {
    return ResultCode::kInvalid;
  }
  const uint16_t variant = map_.variants().Find(begin.variant);
  BlockMap::Found held;
  if (variant != kNoVariantId) held = map_.Lookup(item.key, item.placement, {&variant, 1});
  if (held.code == ResultCode::kOk) {
    NodeMetrics::Add(metrics_.put_existing);
    map_.Touch(held.ref);
    if (WantsSsd(begin.durability) && !held.info.ssd && ssd_ != nullptr) {
      if (wait == nullptr) wait = std::make_shared<PutWait>();
      WaitForSsd(wait, index, std::move(held.ref));
    }
    return ResultCode::kExists;
  }
  const bool writing = mover_->writing();  // asked first: what it has written by then is room
  const ResultCode code = TakeSlot(session, begin.variant, item, slot);
  if (code != ResultCode::kExhausted || !writing || put_waits_.size() >= kPutRoomWaitersMax) {
    return code;
  }
  if (wait == nullptr) wait = std::make_shared<PutWait>();
  wait->variant = begin.variant;
  wait->for_room.emplace_back(index, item);
  ++wait->waits_for;
  return code;
}

ResultCode Node::TakeSlot(Session& session, const Variant& variant, const PutBeginItem& item,
                          uint64_t* slot) {
  const uint64_t image_bytes = PutSlot::LayoutFor(item).image_bytes();
  const uint64_t reserved_max = host_->capacity_bytes() / 100 * kPutShareOfHostPercent;
  if (session.puts.size() >= kPutSlotsPerSessionMax ||
      slots_.size() - free_slots_.size() >= kPutSlotsMax ||
      (put_bytes_reserved_ != 0 && put_bytes_reserved_ + image_bytes > reserved_max)) {
    return ResultCode::kExhausted;
  }
  const absl::StatusOr<HostSlot> host = room_.Allocate(image_bytes);
  if (!host.ok()) return FromStatus(host.status());
  *slot = OpenSlot(session, variant, item, *host);
  return ResultCode::kOk;
}

uint64_t Node::OpenSlot(Session& session, const Variant& variant, const PutBeginItem& item,
                        HostSlot host) {
  if (free_slots_.empty()) {
    free_slots_.push_back(static_cast<uint32_t>(slots_.size()));
    slots_.push_back(std::make_unique<PutSlot>());
  }
  const uint32_t index = free_slots_.back();
  free_slots_.pop_back();
  PutSlot& slot = *slots_[index];
  slot.Open(item, variant, host, host_->Data(host));
  slot.id = SlotId(random_.Next(), index);
  slot.session = session.id;
  slot.last_traffic_ms = clock_.NowMs();
  put_bytes_reserved_ += slot.reserved_bytes();
  session.puts.push_back(slot.id);
  metrics_.puts_open.fetch_add(1, std::memory_order_relaxed);
  return slot.id;
}

PutSlot* Node::FindSlot(uint64_t id) {
  const auto index = static_cast<uint32_t>(id);
  if (index >= slots_.size() || slots_[index]->id != id || id == 0) return nullptr;
  return slots_[index].get();
}

// --- Bytes --------------------------------------------------------------------------------------

void Node::OnPutChunk(Session& session, const Frame& frame, std::span<const uint8_t> payload) {
  ChunkBody chunk;
  if (!BodyOk(session, frame.header, DecodeChunk(frame.body, chunk))) return;
  PutSlot* slot = FindSlot(chunk.target);
  if (slot == nullptr || slot->session != session.id) {
    // Its slot ended meanwhile; the commit is told so.
    return NodeMetrics::Add(metrics_.chunks_dropped);
  }
  slot->last_traffic_ms = session.last_heard_ms;
  const absl::Status status = slot->Receive(chunk.offset, payload);
  if (!status.ok() && slot->failed.ok()) slot->failed = status;
  if (slot->commit_waits && (slot->complete() || !slot->failed.ok())) Commit(*slot);
}

// --- Commit -------------------------------------------------------------------------------------

void Node::OnPutCommit(Session& session, const Frame& frame) {
  PutCommitBody commit;
  if (!BodyOk(session, frame.header, DecodePutCommit(frame.body, commit))) return;
  const int64_t now_us = clock_.NowUs();
  PutSlot* slot = FindSlot(commit.slot);
  if (slot == nullptr || slot->session != session.id) {
    return AnswerCommit(
        session.id, frame.header, now_us, commit.slot, ResultCode::kAbsent,
        absl::StrCat("put_commit.slot: ", commit.slot, " is not open (puts end after ",
                     options_.put_idle_ms, " ms without traffic)"));
  }
  if (slot->commit_waits) {
    return AnswerCommit(session.id, frame.header, now_us, commit.slot, ResultCode::kInvalid,
                        absl::StrCat("put_commit.slot: ", commit.slot, " is being committed"));
  }
  slot->last_traffic_ms = session.last_heard_ms;
  slot->durability = commit.durability;
  slot->commit = frame.header;
  slot->commit_us = now_us;
  slot->commit_header.assign(commit.header.begin(), commit.header.end());
  slot->commit_waits = true;
  // Messages may overtake each other: a commit waits for the bytes before it.
  if (slot->complete() || !slot->failed.ok()) Commit(*slot);
}

void Node::Commit(PutSlot& slot) {
  const uint64_t session = slot.session;
  const uint64_t id = slot.id;
  const FrameHeader commit = slot.commit;
  const int64_t started_us = slot.commit_us;
  const bool wants_ssd = WantsSsd(slot.durability);
  BlockRef block;
  std::string text;
  const ResultCode code = SealAndInsert(slot, &block, &text);
  if (slot.to_pool) {
    const AnchorInsertBody insert = slot.insert;
    FreeSlot(slot, /*free_host=*/code != ResultCode::kOk);
    // Another anchor under this key: the first stays, and the pool is asked whether it has it.
    if (block) {
      return InsertAnchor(session, commit, started_us, insert, std::move(block),
                          code == ResultCode::kOk);
    }
    return AnswerInsert(session, commit, started_us, id,
                        {.code = code, .verdict = PoolVerdict::kDamaged, .text = text});
  }
  FreeSlot(slot, /*free_host=*/code != ResultCode::kOk);
  if (!IsSuccess(code)) return AnswerCommit(session, commit, started_us, id, code, text);
  if (!wants_ssd) {
    if (code == ResultCode::kOk) mover_->Offer(std::move(block));
    return AnswerCommit(session, commit, started_us, id, code, text);
  }
  mover_->Write(
      std::move(block), [this, session, commit, started_us, id, code](const absl::Status& status) {
        transport_->Post([this, session, commit, started_us, id, code, status] {
          // The block stays in host memory and is tried again; what it is not is durable.
          AnswerCommit(session, commit, started_us, id, status.ok() ? code : FromStatus(status),
                       std::string(status.message()));
        });
      });
}

// kOk: the map has the block and its host slot. Else the host slot is still the put's.
ResultCode Node::SealAndInsert(PutSlot& slot, BlockRef* block, std::string* text) {
  const auto fail = [&](ResultCode code, absl::string_view why) {
    *text = std::string(why);
    return code;
  };
  if (!slot.failed.ok()) return fail(ResultCode::kInvalid, slot.failed.message());
  if (WantsSsd(slot.durability) && ssd_ == nullptr) {
    return fail(ResultCode::kInvalid, "put_commit.durability: ssd, the node has no SSD tier");
  }
  BlockHeader header;
  if (const absl::Status status = slot.Seal(slot.commit_header, &header); !status.ok()) {
    NodeMetrics::Add(metrics_.put_mismatches);
    return fail(absl::IsDataLoss(status) ? ResultCode::kMismatch : ResultCode::kInvalid,
                status.message());
  }
  if (const absl::Status status = Admit(slot, header); !status.ok()) {
    return fail(ResultCode::kDenied, status.message());
  }
  const absl::StatusOr<uint16_t> variant = map_.variants().Intern(slot.variant());
  if (!variant.ok()) return fail(ResultCode::kExhausted, variant.status().message());

  NewBlock fresh = NewBlock::Of(header, *variant);
  fresh.host = slot.host();
  fresh.unsaved = ssd_ != nullptr;
  if (map_.Insert(fresh, block)) {
    NodeMetrics::Add(metrics_.put_blocks);
    NodeMetrics::Add(metrics_.put_bytes, fresh.payload_bytes);
    return ResultCode::kOk;
  }
  const BlockInfo held = map_.Describe(*block);
  if (held.root == header.root) {
    NodeMetrics::Add(metrics_.put_existing);
    return ResultCode::kExists;
  }
  NodeMetrics::Add(metrics_.put_mismatches);
  return fail(ResultCode::kMismatch,
              absl::StrCat("put: block ", slot.key().ToHex(), " is held with root digest ",
                           held.root.ToHex(), ", this one has ", header.root.ToHex()));
}

void Node::AnswerCommit(uint64_t session_id, const FrameHeader& commit, int64_t started_us,
                        uint64_t slot, ResultCode code, const std::string& text) {
  metrics_.Request(Op::kPutCommit, code, clock_.NowUs() - started_us);
  Session* session = FindSession(session_id);
  if (session == nullptr) return;
  put_done_.slot = slot;
  put_done_.code = code;
  put_done_.text = text;
  body_.clear();
  EncodePutDone(put_done_, body_);
  Reply(*session, commit, FrameType::kPutDone);
}

// --- Ends ---------------------------------------------------------------------------------------

void Node::OnPutAbort(Session& session, const Frame& frame) {
  PutAbortBody abort;
  if (!BodyOk(session, frame.header, DecodePutAbort(frame.body, abort))) return;
  for (const uint64_t id : abort.slots) {
    PutSlot* slot = FindSlot(id);
    if (slot != nullptr && slot->session == session.id) FreeSlot(*slot, /*free_host=*/true);
  }
}

void Node::FreeSlot(PutSlot& slot, bool free_host) {
  if (free_host) host_->Free(slot.host());
  put_bytes_reserved_ -= slot.reserved_bytes();
  if (Session* session = FindSession(slot.session)) std::erase(session->puts, slot.id);
  free_slots_.push_back(static_cast<uint32_t>(slot.id));
  slot.id = 0;
  metrics_.puts_open.fetch_sub(1, std::memory_order_relaxed);
}

// `why` tells a client whose commit waits; null when there is none any more.
void Node::AbandonSlot(PutSlot& slot, const char* why) {
  NodeMetrics::Add(metrics_.puts_abandoned);
  if (why != nullptr && slot.commit_waits) {
    const std::string text = absl::StrCat("put: ", why, ", ", slot.received(), " of ",
                                          slot.layout().payload_bytes, " bytes came");
    if (slot.to_pool) {
      AnswerInsert(slot.session, slot.commit, slot.commit_us, slot.id,
                   {.code = ResultCode::kDeadline, .verdict = PoolVerdict::kBusy, .text = text});
    } else {
      AnswerCommit(slot.session, slot.commit, slot.commit_us, slot.id, ResultCode::kDeadline, text);
    }
  }
  FreeSlot(slot, /*free_host=*/true);
}

}  // namespace kedge
