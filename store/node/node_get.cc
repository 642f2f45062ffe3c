// kGet: each block that is held is pinned and sent from where it lies; what is only on the SSD is
// promoted first.
//
// A walk: OnGet looks all keys up and pins them -> items in host memory are ready at once, others
// wait for a promotion on the executor -> Pump sends messages of ready items within the
// connection's window -> OnSent (node.cc) gives windows and pins back.

#include <algorithm>
#include <string>
#include <utility>

#include "absl/base/internal/raw_logging.h"
#include "absl/strings/str_cat.h"
#include "store/node/node.h"

namespace kedge {
namespace {

using Stage = GetItemState::Stage;

// Promotions of one request at a time, counted until their bytes are sent: they are pinned, and a
// client that does not read must not fill the host tier. Enough to keep the SSD busy.
constexpr uint32_t kPromotionsPerRequestMax = 8;
constexpr uint64_t kPromotionShareOfHost = 8;

}  // namespace

uint32_t Node::NewStream() {
  if (!free_streams_.empty()) {
    const uint32_t index = free_streams_.back();
    free_streams_.pop_back();
    return index;
  }
  streams_.push_back(std::make_unique<GetStream>());
  return static_cast<uint32_t>(streams_.size() - 1);
}

void Node::OnGet(Session& session, const Frame& frame) {
  const int64_t now_us = clock_.NowUs();
  if (!BodyOk(session, frame.header, DecodeGet(frame.body, get_))) return;
  auto early =
      std::find(session.early_cancels.begin(), session.early_cancels.end(), frame.header.request);
  if (frame.header.request != 0 && early != session.early_cancels.end()) {
    *early = 0;
    return metrics_.Request(Op::kGet, ResultCode::kCancelled, 0);
  }
  if (session.streams.size() >= kRequestsPerSessionMax) {
    metrics_.Request(Op::kGet, ResultCode::kExhausted, 0);
    return ReplyError(session, frame.header, ResultCode::kExhausted,
                      absl::StrCat("get: ", session.streams.size(), " requests run already"));
  }
  MapVariants(get_.variants);

  const uint32_t index = NewStream();
  GetStream& stream = *streams_[index];
  stream.session = &session;
  stream.request = frame.header;
  stream.started_us = now_us;
  const uint32_t asked_ms = frame.header.deadline_ms;
  stream.deadline_us =
      now_us +
      int64_t{asked_ms == 0 ? kRequestMsDefault : std::min(asked_ms, kRequestMsMax)} * 1000;
  stream.part_begin = get_.part_begin;
  stream.part_count = get_.part_count;
  stream.in_use = true;
  stream.items.resize(get_.items.size());
  stream.open_items = static_cast<uint32_t>(get_.items.size());
  session.streams.push_back(index);

  for (uint32_t item = 0; item < get_.items.size(); ++item) {
    OpenItem(stream, item, get_.items[item]);
  }
  for (auto item = stream.items.rbegin(); item != stream.items.rend(); ++item) {
    if (item->block) map_.Touch(item->block);  // tail first
  }
  StartPromotions(index);
  Enqueue(index);
  Pump(session);
  if (stream.in_use) FinishStreamIfOver(index);
}

void Node::OpenItem(GetStream& stream, uint32_t index, const GetRequestItem& asked) {
  GetItemState& item = stream.items[index];
  item.stage = Stage::kReady;
  item.capacity_bytes = asked.capacity_bytes;
  BlockMap::Found found = map_.Lookup(asked.key, asked.placement, variant_ids_);
  if (found.code != ResultCode::kOk) return FinishItem(stream, index, found.code, {});
  item.block = std::move(found.ref);
  item.tier = found.info.tier();
  item.image_bytes = static_cast<uint32_t>(found.info.layout().image_bytes());
  const bool whole = stream.part_begin == 0 && stream.part_count == 0;
  if (found.info.host) {
    MakeReady(stream, index, found.info);
  } else if (whole && found.info.payload_bytes > item.capacity_bytes) {
    // No need to read it to know that.
    FinishItem(stream, index, ResultCode::kTooSmall,
               absl::StrCat("get.capacity_bytes: ", item.capacity_bytes, ", the block has ",
                            found.info.payload_bytes));
  } else {
    item.stage = Stage::kOnSsd;
  }
}

// The block is in host memory and pinned: what is to be sent?
void Node::MakeReady(GetStream& stream, uint32_t index, const BlockInfo& info) {
  GetItemState& item = stream.items[index];
  const ImageLayout layout = info.layout();
  item.image = host_->Data(info.host);
  item.header_bytes = layout.header_bytes;
  item.payload_offset = layout.payload_offset();
  item.next = 0;
  item.end = layout.payload_bytes;
  if (stream.part_begin != 0 || stream.part_count != 0) {
    const absl::Status status = PartRange({item.image, item.header_bytes}, stream.part_begin,
                                          stream.part_count, &item.next, &item.end);
    if (!status.ok()) {
      return FinishItem(stream, index, ResultCode::kInvalid, std::string(status.message()));
    }
  }
  if (item.end - item.next > item.capacity_bytes) {
    return FinishItem(stream, index, ResultCode::kTooSmall,
                      absl::StrCat("get.capacity_bytes: ", item.capacity_bytes,
                                   ", the parts in range have ", item.end - item.next));
  }
  item.stage = Stage::kReady;
  item.header_sent = false;
  stream.ready_bytes += item.end - item.next;
  metrics_.Lookup(Op::kGet, ResultCode::kOk, item.tier);
}

// The item ends without its bytes.
void Node::FinishItem(GetStream& stream, uint32_t index, ResultCode code, std::string text) {
  GetItemState& item = stream.items[index];
  item.stage = Stage::kDone;
  --stream.open_items;
  metrics_.Lookup(Op::kGet, code, TierId::kNone);
  SendItemWithoutBytes(stream, index, code, std::move(text));
  LetGo(stream, item);
}

void Node::SendItemWithoutBytes(GetStream& stream, uint32_t index, ResultCode code,
                                std::string text) {
  if (stream.session == nullptr) return;
  if (stream.mixed != nullptr) {
    return ReplyError(*stream.session, stream.request, code, std::move(text));
  }
  get_item_ = GetItemBody{};
  get_item_.item = index;
  get_item_.code = code;
  get_item_.text = std::move(text);
  body_.clear();
  EncodeGetItem(get_item_, body_);
  Reply(*stream.session, stream.request, FrameType::kGetItem);
}

void Node::LetGo(GetStream& stream, GetItemState& item) {
  item.block.Reset();
  if (!item.promoted) return;
  item.promoted = false;
  --stream.promoted_waiting;
  stream.promoted_bytes -= item.image_bytes;
}

// --- SSD ----------------------------------------------------------------------------------------

void Node::StartPromotions(uint32_t index) {
  GetStream& stream = *streams_[index];
  const uint64_t bytes_max = host_->capacity_bytes() / kPromotionShareOfHost;
  for (uint32_t i = stream.first_open; i < stream.items.size() && !stream.stopped; ++i) {
    GetItemState& item = stream.items[i];
    if (item.stage != Stage::kOnSsd) continue;
    const bool fits = stream.promoted_waiting < kPromotionsPerRequestMax &&
                      stream.promoted_bytes + item.image_bytes <= bytes_max;
    if (stream.promoted_waiting != 0 && !fits) return;
    item.stage = Stage::kPromoting;
    item.promoted = true;
    ++stream.promoting;
    ++stream.promoted_waiting;
    stream.promoted_bytes += item.image_bytes;
    mover_->Promote(item.block.Share(), [this, index, i](const absl::Status& status) {
      transport_->Post([this, index, i, status] { OnPromoted(index, i, status); });
    });
  }
}

void Node::OnPromoted(uint32_t index, uint32_t item_index, const absl::Status& status) {
  GetStream& stream = *streams_[index];
  GetItemState& item = stream.items[item_index];
  --stream.promoting;
  if (stream.stopped) return FinishStreamIfOver(index);
  const BlockInfo info = map_.Describe(item.block);
  if (status.ok() && info.host) {
    MakeReady(stream, item_index, info);
  } else {
    const ResultCode code =
        status.ok() || absl::IsNotFound(status) ? ResultCode::kEvicted : FromStatus(status);
    FinishItem(stream, item_index, code, std::string(status.message()));
  }
  StartPromotions(index);
  Enqueue(index);
  Pump(*stream.session);
  if (stream.in_use) FinishStreamIfOver(index);
}

// --- Sending ------------------------------------------------------------------------------------

uint32_t Node::NextReadyItem(GetStream& stream) {
  if (stream.current != kNoIndex && stream.items[stream.current].stage == Stage::kReady) {
    return stream.current;
  }
  while (stream.first_open < stream.items.size() &&
         stream.items[stream.first_open].stage == Stage::kDone) {
    ++stream.first_open;
  }
  for (uint32_t i = stream.first_open; i < stream.items.size(); ++i) {
    if (stream.items[i].stage == Stage::kReady) return stream.current = i;
  }
  return stream.current = kNoIndex;
}

void Node::Enqueue(uint32_t index) {
  GetStream& stream = *streams_[index];
  if (stream.queued || stream.stopped || !stream.in_use) return;
  if (NextReadyItem(stream) == kNoIndex) return;
  stream.queued = true;
  stream.session->sender.Add(index, stream.ready_bytes);
}

void Node::Pump(Session& session) {
  // A transport that ends a Send inside the call comes back here; the outer loop goes on.
  if (session.pumping || session.connection == nullptr) return;
  session.pumping = true;
  while (true) {
    if (bytes_under_way_ >= kInFlightBytesMax && !session.sender.empty()) {
      if (!std::exchange(session.stalled, true)) stalled_.push_back(&session);
      break;
    }
    const uint32_t stream = session.sender.Take();
    if (stream == kNoIndex) break;
    streams_[stream]->queued = false;
    if (!SendNext(session, stream)) break;
  }
  session.pumping = false;
}

void Node::PumpStalled() {
  if (stalled_.empty() || bytes_under_way_ >= kInFlightBytesMax) return;
  const std::vector<Session*> waiting = std::exchange(stalled_, {});
  for (Session* session : waiting) {
    session->stalled = false;
    Pump(*session);
  }
}

// One message of the stream. False when the transport takes no more for now.
bool Node::SendNext(Session& session, uint32_t index) {
  GetStream& stream = *streams_[index];
  const uint32_t item_index = NextReadyItem(stream);
  ABSL_RAW_CHECK(item_index != kNoIndex, "a stream is queued without a ready item");
  GetItemState& item = stream.items[item_index];
  const auto bytes = static_cast<uint32_t>(std::min<uint64_t>(
      item.end - item.next, std::min(session.connection->payload_bytes_max(), kPayloadBytesMax)));
  const std::span<const uint8_t> payload(item.image + item.payload_offset + item.next, bytes);
  body_.clear();
  const bool first = !item.header_sent;
  if (first && stream.mixed != nullptr) {
    body_ = stream.mix_reply;
  } else if (first) {
    get_item_.item = item_index;
    get_item_.code = ResultCode::kOk;
    get_item_.tier = item.tier;
    get_item_.payload_offset = item.next;
    get_item_.header = {item.image, item.header_bytes};
    get_item_.text.clear();
    EncodeGetItem(get_item_, body_);
  } else {
    EncodeChunk(ChunkBody{item_index, item.next}, body_);
  }
  const FrameType first_type = stream.mixed != nullptr ? FrameType::kMixReply : FrameType::kGetItem;
  const auto head =
      MakeHead(session, stream.request, first ? first_type : FrameType::kChunk, bytes);

  // Everything is counted before the call: OnSent may come inside it.
  uint64_t cookie = 0;
  if (bytes != 0) {
    const uint32_t message = messages_.Add();
    messages_[message] = {index, item_index, bytes};
    cookie = uint64_t{message} + 1;
    ++stream.under_way;
    ++item.under_way;
    bytes_under_way_ += bytes;
    session.sender.bytes_under_way += bytes;
  }
  const uint64_t offset = item.next;
  item.next += bytes;
  item.header_sent = true;
  stream.ready_bytes -= bytes;
  const bool last = item.next == item.end;
  if (last) {
    item.stage = Stage::kDone;
    --stream.open_items;
  }
  const absl::Status status = session.connection->Send(head, payload, cookie);
  if (!status.ok()) {
    if (bytes != 0) {
      messages_.Free(static_cast<uint32_t>(cookie - 1));
      --stream.under_way;
      --item.under_way;
      bytes_under_way_ -= bytes;
      session.sender.bytes_under_way -= bytes;
    }
    item.next = offset;
    item.header_sent = !first;
    stream.ready_bytes += bytes;
    if (last) {
      item.stage = Stage::kReady;
      ++stream.open_items;
    }
    Enqueue(index);  // tried again after the next OnSent or sweep
    return false;
  }
  NodeMetrics::Add(metrics_.get_bytes, bytes);
  if (!stream.in_use) return true;
  if (last && bytes == 0) LetGo(stream, item);
  Enqueue(index);
  FinishStreamIfOver(index);
  return true;
}

// --- Ends ---------------------------------------------------------------------------------------

void Node::OnCancel(Session& session, const Frame& frame) {
  if (CancelMix(session, frame.header.request)) return;
  for (const uint32_t stream : session.streams) {
    if (streams_[stream]->request.request != frame.header.request) continue;
    return StopStream(stream, ResultCode::kCancelled);
  }
  session.early_cancels[session.next_early_cancel++ % session.early_cancels.size()] =
      frame.header.request;
}

// Nothing more is sent but, past a deadline, that it has passed. What the transport has already
// goes on.
void Node::StopStream(uint32_t index, ResultCode code) {
  GetStream& stream = *streams_[index];
  if (stream.stopped) return;
  stream.stopped = true;
  stream.code = code;
  stream.ready_bytes = 0;
  if (std::exchange(stream.queued, false)) stream.session->sender.Remove(index);
  for (uint32_t i = 0; i < stream.items.size(); ++i) {
    GetItemState& item = stream.items[i];
    if (item.stage == Stage::kDone) continue;
    const bool unanswered = item.stage != Stage::kReady || !item.header_sent;
    item.stage = Stage::kDone;
    --stream.open_items;
    if (unanswered && code == ResultCode::kDeadline) {
      if (stream.mixed == nullptr) metrics_.Lookup(Op::kGet, code, TierId::kNone);
      SendItemWithoutBytes(stream, i, code, "get.deadline_ms: passed");
    }
    if (item.under_way == 0) LetGo(stream, item);
  }
  FinishStreamIfOver(index);
}

void Node::FinishStreamIfOver(uint32_t index) {
  GetStream& stream = *streams_[index];
  if (!stream.in_use || !stream.over()) return;
  if (stream.session != nullptr) {
    std::erase(stream.session->streams, index);
    if (stream.queued) stream.session->sender.Remove(index);
  }
  metrics_.Request(stream.mixed != nullptr ? Op::kMix : Op::kGet, stream.code,
                   clock_.NowUs() - stream.started_us);
  std::vector<GetItemState> items = std::move(stream.items);
  items.clear();
  stream = GetStream{};
  stream.items = std::move(items);
  free_streams_.push_back(index);
}

}  // namespace kedge
