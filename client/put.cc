#include "client/put.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "client/client_limits.h"
#include "client/engine.h"
#include "client/lookup.h"

namespace kedge {

PutOperation::PutOperation(Question question, uint64_t window_bytes, int64_t deadline_us)
    : Operation(static_cast<uint32_t>(question.items.size()), deadline_us),
      question_(std::move(question)),
      window_bytes_(window_bytes),
      states_(question_.items.size()) {
  for (uint32_t item = 0; item < count(); ++item) {
    states_[item].payload_bytes = question_.items[item].header.payload_bytes();
    states_[item].whole = !question_.open;
  }
  CutSubs();
}

void PutOperation::CutSubs() {
  for (uint32_t item = 0; item < count(); ++item) {
    const uint64_t bytes = states_[item].payload_bytes;
    const bool full =
        !question_.open && !subs_.empty() && subs_.back().bytes + bytes > kSubRequestBytes;
    if (subs_.empty() || full) subs_.push_back({.begin = item, .end = item});
    Sub& sub = subs_.back();
    sub.end = item + 1;
    sub.bytes += bytes;
    ++sub.running;
    states_[item].sub = static_cast<uint32_t>(subs_.size() - 1);
  }
}

int64_t PutOperation::FrameDeadline() const {
  return deadline_us() == INT64_MAX ? 0 : deadline_us();
}

void PutOperation::Start(Engine& engine) { BeginMore(engine); }

void PutOperation::BeginMore(Engine& engine) {
  while (next_sub_ < subs_.size() && (in_flight_ < window_bytes_ || question_.open)) {
    const uint32_t tag = next_sub_++;
    in_flight_ += subs_[tag].bytes;
    Begin(engine, tag);
  }
}

void PutOperation::Begin(Engine& engine, uint32_t tag) {
  Sub& sub = subs_[tag];
  sub.wire = engine.OpenWire(*this, tag);
  PutBeginBody body;
  body.variant = question_.variant;
  body.durability = question_.durability;
  body.items.reserve(sub.end - sub.begin);
  for (uint32_t i = sub.begin; i < sub.end; ++i) {
    const BlockHeader& header = question_.items[i].header;
    // Parts of the raw variant are equal.
    const uint32_t part_bytes = question_.variant == Variant::Raw() ? header.parts[0].bytes : 0;
    body.items.push_back({header.key, header.placement, states_[i].payload_bytes,
                          static_cast<uint16_t>(header.parts.size()), part_bytes});
  }
  EncodePutBegin(body, engine.Body());
  engine.Send(FrameType::kPutBegin, sub.wire, FrameDeadline());
}

void PutOperation::OnFrame(Engine& engine, uint64_t, uint32_t tag, const Frame& frame,
                           std::span<const uint8_t>) {
  Sub& sub = subs_[tag];
  absl::Status status;
  switch (frame.header.type) {
    case FrameType::kPutReady:
      status = DecodePutReady(frame.body, ready_body_);
      if (status.ok() && (sub.ready || ready_body_.items.size() != sub.end - sub.begin)) {
        status = absl::DataLossError(absl::StrCat("put_ready.items: ", ready_body_.items.size(),
                                                  " of them for ", sub.end - sub.begin, " items"));
      }
      if (status.ok()) OnReady(engine, sub, ready_body_);
      break;
    case FrameType::kPutDone: {
      status = DecodePutDone(frame.body, done_body_);
      if (!status.ok()) break;
      const auto item = by_slot_.find(done_body_.slot);
      if (item != by_slot_.end() && !item_ended(item->second)) {
        Finish(engine, item->second, done_body_.code, done_body_.text);
      }
      break;
    }
    case FrameType::kError:
      OnError(engine, tag, frame);
      break;
    default:
      break;
  }
  if (!status.ok()) {
    Abandon(engine, ResultCode::kInternal,
            std::string_view(status.message().data(), status.message().size()));
  }
}

void PutOperation::OnReady(Engine& engine, Sub& sub, const PutReadyBody& ready) {
  sub.ready = true;
  const uint32_t begin = sub.begin;
  for (uint32_t i = 0; i < ready.items.size(); ++i) {
    const PutReadyItem& answer = ready.items[i];
    if (answer.code != ResultCode::kOk) continue;
    State& state = states_[begin + i];
    state.slot = answer.slot;
    state.ready = true;
    by_slot_[answer.slot] = begin + i;
    if (HasBytes(begin + i)) QueueItem(engine, begin + i);
    CommitIfSent(engine, begin + i);
  }
  for (uint32_t i = 0; i < ready.items.size() && !ended(); ++i) {
    const ResultCode code = ready.items[i].code;
    if (code != ResultCode::kOk) Finish(engine, begin + i, code, ResultCodeName(code));
  }
}

void PutOperation::OnError(Engine& engine, uint32_t tag, const Frame& frame) {
  Sub& sub = subs_[tag];
  ErrorBody error;
  if (WorthRetry(engine, frame, sub.attempt++, error) && !sub.ready) {
    engine.CloseWire(sub.wire);
    Begin(engine, tag);
    return;
  }
  const uint32_t begin = sub.begin;
  const uint32_t end = sub.end;
  PutAbortBody abort;  // what was begun would hold room until it times out
  for (uint32_t item = begin; item < end; ++item) {
    if (!item_ended(item) && states_[item].ready) abort.slots.push_back(states_[item].slot);
  }
  if (!abort.slots.empty()) {
    EncodePutAbort(abort, engine.Body());
    engine.Send(FrameType::kPutAbort, sub.wire, 0);
  }
  for (uint32_t item = begin; item < end && !ended(); ++item) {
    if (!item_ended(item)) Finish(engine, item, error.code, error.text);
  }
}

// --- Bytes out ---

bool PutOperation::HasBytes(uint32_t item) const {
  return states_[item].next < question_.items[item].extents.size();
}

void PutOperation::QueueItem(Engine& engine, uint32_t item) {
  State& state = states_[item];
  if (!state.queued) {
    state.queued = true;
    to_send_.push_back(item);
  }
  engine.QueueToSend(*this);
}

Operation::Pumped PutOperation::Pump(Engine& engine) {
  while (!to_send_.empty()) {
    const uint32_t item = to_send_.front();
    if (item_ended(item) || !HasBytes(item)) {
      states_[item].queued = false;
      to_send_.pop_front();
      continue;
    }
    if (!SendPiece(engine, item)) return Pumped::kBlocked;
    CommitIfSent(engine, item);
    return Pumped::kSent;
  }
  return Pumped::kIdle;
}

// One message: a run of the caller's memory, or several small ones that lie one after the other in
// the payload.
bool PutOperation::SendPiece(Engine& engine, uint32_t item) {
  const std::vector<Extent>& extents = question_.items[item].extents;
  const State& state = states_[item];
  const Extent& first = extents[state.next];
  const ChunkBody chunk{state.slot, first.offset + state.skip};
  const uint64_t left = first.bytes - state.skip;
  const uint64_t wire = subs_[state.sub].wire;
  const uint64_t piece_max = std::min(engine.payload_bytes_max(), kPutPieceBytesMax);
  std::span<const uint8_t> piece(first.data + state.skip, std::min(left, piece_max));
  std::unique_ptr<std::vector<uint8_t>> staging;
  if (left < kGatherBelowBytes && state.next + 1 < extents.size()) {
    const size_t room = std::min(kStagingBytes, engine.payload_bytes_max());
    staging = engine.TakeStaging();
    staging->assign(piece.begin(), piece.end());
    uint64_t offset = first.offset + first.bytes;
    for (size_t next = state.next + 1; next < extents.size() && staging->size() < room; ++next) {
      const Extent& extent = extents[next];
      if (extent.offset != offset || extent.bytes >= kGatherBelowBytes) break;
      const uint64_t n = std::min<uint64_t>(extent.bytes, room - staging->size());
      staging->insert(staging->end(), extent.data, extent.data + n);
      offset += n;
    }
    piece = *staging;
  }
  Digest(item, chunk.offset, piece);
  EncodeChunk(chunk, engine.Body());
  ++borrowed_;  // before: OnSent may come inside
  if (!engine.SendBulk(FrameType::kChunk, wire, FrameDeadline(), piece, *this, item,
                       std::move(staging))) {
    --borrowed_;
    return false;
  }
  Advance(item, piece.size());
  return true;
}

void PutOperation::Digest(uint32_t item, uint64_t offset, std::span<const uint8_t> piece) {
  State& state = states_[item];
  const uint64_t done = state.digested - state.sent;  // when the transport had no room for it
  if (done >= piece.size()) return;
  sealer_.Add(question_.items[item].header, offset + done, piece.subspan(done));
  state.digested = state.sent + piece.size();
}

void PutOperation::Advance(uint32_t item, uint64_t bytes) {
  State& state = states_[item];
  state.sent += bytes;
  while (bytes > 0) {
    const uint64_t left = question_.items[item].extents[state.next].bytes - state.skip;
    if (bytes < left) {
      state.skip += bytes;
      return;
    }
    bytes -= left;
    state.skip = 0;
    ++state.next;
  }
}

void PutOperation::CommitIfSent(Engine& engine, uint32_t i) {
  State& state = states_[i];
  if (!state.ready || !state.whole || state.committed || item_ended(i) ||
      state.sent != state.payload_bytes) {
    return;
  }
  auto header = EncodeBlockHeader(question_.items[i].header);
  if (!header.ok()) {
    EncodePutAbort({{state.slot}}, engine.Body());
    engine.Send(FrameType::kPutAbort, subs_[state.sub].wire, 0);
    const absl::string_view why = header.status().message();
    return Finish(engine, i, ResultCode::kInvalid, std::string_view(why.data(), why.size()));
  }
  state.committed = true;
  PutCommitBody body;
  body.slot = state.slot;
  body.durability = question_.durability;
  body.header = *header;
  EncodePutCommit(body, engine.Body());
  engine.Send(FrameType::kPutCommit, subs_[state.sub].wire, FrameDeadline());
}

void PutOperation::OnSent(Engine& engine, uint32_t, uint64_t) {
  --borrowed_;
  EndWhenDone(engine);
}

// --- Layer by layer ---

void PutOperation::Add(Engine& engine, uint32_t item, std::span<const Extent> extents) {
  if (ended() || item_ended(item)) return;
  std::vector<Extent>& to = question_.items[item].extents;
  to.insert(to.end(), extents.begin(), extents.end());
  if (states_[item].ready) QueueItem(engine, item);
}

void PutOperation::Commit(Engine& engine, const std::vector<bool>& whole, int64_t deadline_us) {
  if (ended()) return;
  set_deadline_us(deadline_us);
  PutAbortBody abort;
  for (uint32_t item = 0; item < count() && !ended(); ++item) {
    if (item_ended(item)) continue;
    if (whole[item]) {
      states_[item].whole = true;
      CommitIfSent(engine, item);
    } else if (states_[item].ready) {
      abort.slots.push_back(states_[item].slot);
    }
  }
  if (!abort.slots.empty()) {
    EncodePutAbort(abort, engine.Body());
    engine.Send(FrameType::kPutAbort, subs_[0].wire, 0);
  }
  for (uint32_t item = 0; item < count() && !ended(); ++item) {
    if (!item_ended(item) && !whole[item]) {
      Finish(engine, item, ResultCode::kInvalid, "a part of the block was never given");
    }
  }
}

// --- Ends ---

void PutOperation::Finish(Engine& engine, uint32_t item, ResultCode code, std::string_view text) {
  ItemResult result;
  result.code = code;
  result.bytes = states_[item].payload_bytes;
  EndItem(item, result, text);
  Sub& sub = subs_[states_[item].sub];
  in_flight_ -= result.bytes;
  if (--sub.running == 0) engine.CloseWire(sub.wire);
  BeginMore(engine);
  EndWhenDone(engine);
}

void PutOperation::EndWhenDone(Engine& engine) {
  if (items_running() != 0) return;
  if (borrowed_ == 0) {
    End(engine);
  } else if (drain_until_us == 0) {
    drain_until_us = engine.NowUs() + kSendDrainMs * 1000;
  }
}

void PutOperation::Abandon(Engine& engine, ResultCode code, std::string_view text) {
  if (ended()) return;
  PutAbortBody abort;
  for (uint32_t item = 0; item < count(); ++item) {
    if (!item_ended(item) && states_[item].ready) abort.slots.push_back(states_[item].slot);
    EndItem(item, code, text);
  }
  if (!abort.slots.empty() && engine.connected()) {
    EncodePutAbort(abort, engine.Body());
    engine.Send(FrameType::kPutAbort, subs_[0].wire, 0);
  }
  for (Sub& sub : subs_) {
    if (sub.wire != 0) engine.CloseWire(sub.wire);
  }
  next_sub_ = static_cast<uint32_t>(subs_.size());
  to_send_.clear();
  EndWhenDone(engine);
}

}  // namespace kedge
