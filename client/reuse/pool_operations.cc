#include "client/reuse/pool_operations.h"

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/client_limits.h"
#include "client/engine.h"
#include "client/lookup.h"

namespace kedge {
namespace {

std::string_view View(const absl::Status& status) {
  return {status.message().data(), status.message().size()};
}

}  // namespace

// --- AnchorOperation ----------------------------------------------------------------------------

AnchorOperation::AnchorOperation(const AnchorInsertBody& insert, std::vector<uint8_t> payload,
                                 int64_t deadline_us)
    : Operation(1, deadline_us), insert_(insert), payload_(std::move(payload)) {
  header_.key = insert.key;
  header_.placement = insert.placement;
  header_.variant = Variant::Raw();
  header_.keyspace = Keyspace::kAnchor;
  header_.parts = {{static_cast<uint32_t>(payload_.size()),
                    PartDigest(header_.key, header_.variant, 0, payload_)}};
}

void AnchorOperation::Start(Engine& engine) {
  auto encoded = EncodeBlockHeader(header_);
  if (!encoded.ok()) return Finish(engine, ResultCode::kInvalid, View(encoded.status()));
  encoded_ = *std::move(encoded);
  sent_ = 0;
  slot_ = 0;
  PutBeginBody begin;
  begin.variant = header_.variant;
  const auto bytes = static_cast<uint32_t>(payload_.size());
  begin.items = {{header_.key, header_.placement, bytes, 1, bytes}};
  wire_ = engine.OpenWire(*this, 0);
  EncodePutBegin(begin, engine.Body());
  engine.Send(FrameType::kPutBegin, wire_, deadline_us());
}

void AnchorOperation::OnFrame(Engine& engine, uint64_t, uint32_t, const Frame& frame,
                              std::span<const uint8_t>) {
  absl::Status status;
  switch (frame.header.type) {
    case FrameType::kError: {
      ErrorBody error;
      if (WorthRetry(engine, frame, attempt_++, error) && slot_ == 0) {
        engine.CloseWire(wire_);
        return Start(engine);
      }
      return Abandon(engine, error.code, error.text);
    }
    case FrameType::kPutReady: {
      PutReadyBody ready;
      status = DecodePutReady(frame.body, ready);
      if (status.ok() && (ready.items.size() != 1 || slot_ != 0))
        status = absl::DataLossError("put_ready.items: not one for one anchor");
      if (status.ok()) OnReady(engine, ready);
      break;
    }
    case FrameType::kAnchorInserted: {
      AnchorInsertedBody inserted;
      status = DecodeAnchorInserted(frame.body, inserted);
      if (!status.ok()) break;
      // The block that the node had went away in between: it is put after all.
      const bool gone = slot_ == 0 && inserted.verdict == PoolVerdict::kOk &&
                        ToStatusCode(inserted.code) == absl::StatusCode::kNotFound;
      if (gone && !std::exchange(held_retried_, true)) {
        engine.CloseWire(wire_);
        return Start(engine);
      }
      verdict_ = inserted.verdict;
      return Finish(engine, inserted.code, inserted.text);
    }
    default:
      break;
  }
  if (!status.ok()) Abandon(engine, ResultCode::kInternal, View(status));
}

void AnchorOperation::OnReady(Engine& engine, const PutReadyBody& ready) {
  const PutReadyItem& item = ready.items[0];
  if (item.code == ResultCode::kExists) return SendInsert(engine);
  if (item.code != ResultCode::kOk) return Finish(engine, item.code, ResultCodeName(item.code));
  slot_ = item.slot;
  engine.QueueToSend(*this);
}

Operation::Pumped AnchorOperation::Pump(Engine& engine) {
  if (ended() || slot_ == 0 || sent_ == payload_.size()) return Pumped::kIdle;
  const uint64_t bytes =
      std::min<uint64_t>({payload_.size() - sent_, engine.payload_bytes_max(), kPutPieceBytesMax});
  EncodeChunk({slot_, sent_}, engine.Body());
  if (!engine.SendBulk(FrameType::kChunk, wire_, deadline_us(),
                       std::span(payload_).subspan(sent_, bytes), *this, 0)) {
    return Pumped::kBlocked;
  }
  sent_ += bytes;
  if (sent_ == payload_.size()) SendInsert(engine);
  return Pumped::kSent;
}

void AnchorOperation::SendInsert(Engine& engine) {
  insert_.slot = slot_;
  insert_.header = slot_ == 0 ? std::span<const uint8_t>() : std::span<const uint8_t>(encoded_);
  EncodeAnchorInsert(insert_, engine.Body());
  engine.Send(FrameType::kAnchorInsert, wire_, deadline_us());
}

void AnchorOperation::Finish(Engine& engine, ResultCode code, std::string_view text) {
  if (ended()) return;
  if (wire_ != 0) engine.CloseWire(wire_);
  EndItem(0, code, text);
  End(engine);
}

void AnchorOperation::Abandon(Engine& engine, ResultCode code, std::string_view text) {
  if (ended()) return;
  if (slot_ != 0 && engine.connected()) {
    EncodePutAbort({{slot_}}, engine.Body());
    engine.Send(FrameType::kPutAbort, wire_, 0);
  }
  Finish(engine, code, text);
}

// --- MixOperation -------------------------------------------------------------------------------

MixOperation::MixOperation(MixBody mix, int64_t deadline_us)
    : Operation(1, deadline_us), mix_(std::move(mix)) {}

void MixOperation::Start(Engine& engine) {
  wire_ = engine.OpenWire(*this, 0);
  MixBody part = mix_;
  for (uint32_t first = 0; first == 0 || first < mix_.tokens; first += kSketchFrameTokens) {
    const uint32_t rows = std::min(kSketchFrameTokens, mix_.tokens - first);
    const auto begin = mix_.sketch.begin() + static_cast<ptrdiff_t>(first) * kSketchFloats;
    part.sketch_first = first;
    part.sketch.assign(begin, begin + static_cast<ptrdiff_t>(rows) * kSketchFloats);
    std::vector<uint8_t>& body = engine.Body();
    EncodeMix(part, body);
    moved_ += kFrameHeaderBytes + body.size();
    engine.Send(FrameType::kMix, wire_, deadline_us());
  }
}

void MixOperation::OnFrame(Engine& engine, uint64_t, uint32_t, const Frame& frame,
                           std::span<const uint8_t> payload) {
  moved_ += kFrameHeaderBytes + frame.body.size() + payload.size();
  std::string why;
  switch (frame.header.type) {
    case FrameType::kError: {
      ErrorBody error;
      if (!has_reply_ && WorthRetry(engine, frame, attempt_++, error)) {
        engine.CloseWire(wire_);
        return Start(engine);
      }
      return Finish(engine, error.code, error.text);
    }
    case FrameType::kMixReply:
      if (!TakeReply(frame, payload, why)) return Abandon(engine, ResultCode::kCorrupt, why);
      break;
    case FrameType::kChunk: {
      ChunkBody chunk;
      if (!DecodeChunk(frame.body, chunk).ok() || !TakeBytes(chunk.offset, payload, why))
        return Abandon(engine, ResultCode::kCorrupt, why);
      break;
    }
    default:
      return;
  }
  if (!has_reply_ || received_ != mixed_.size()) return;
  if (!Verify(why)) {
    engine.CountCorrupt();
    return Finish(engine, ResultCode::kCorrupt, why);
  }
  Finish(engine, ResultCode::kOk, {});
}

// What was asked bounds what is believed of an answer, and what is allocated for it.
bool MixOperation::TakeReply(const Frame& frame, std::span<const uint8_t> payload,
                             std::string& why) {
  const absl::Status status = DecodeMixReply(frame.body, reply_);
  if (!status.ok() || has_reply_) {
    why = has_reply_ ? "mix_reply: a second one" : std::string(status.message());
    return false;
  }
  has_reply_ = true;
  if (reply_.has_rows != 0) {
    if (!(reply_.shape == mix_.shape) || reply_.tokens != mix_.tokens ||
        reply_.dtype != mix_.dtype) {
      why = absl::StrCat("mix_reply.shape: of ", reply_.tokens, " tokens, asked for ", mix_.tokens);
      return false;
    }
    mixed_.resize(reply_.mixed_bytes());
  }
  if (!TakeBytes(0, payload, why)) return false;
  for (const auto& [offset, bytes] : std::exchange(early_, {}))
    if (!TakeBytes(offset, bytes, why)) return false;
  return true;
}

bool MixOperation::TakeBytes(uint64_t offset, std::span<const uint8_t> bytes, std::string& why) {
  if (bytes.empty()) return true;
  if (!has_reply_) {
    early_bytes_ += bytes.size();
    if (early_bytes_ > kEarlyBytesMax) {
      why = "chunk: too many bytes before mix_reply";
      return false;
    }
    early_.emplace_back(offset, std::vector<uint8_t>(bytes.begin(), bytes.end()));
    return true;
  }
  if (offset > mixed_.size() || bytes.size() > mixed_.size() - offset) {
    why = absl::StrCat("chunk.offset: ", offset, " with ", bytes.size(), " bytes, ", mixed_.size(),
                       " are due");
    return false;
  }
  const uint64_t end = offset + bytes.size();
  const auto next = ranges_.lower_bound(offset);
  const auto before = next == ranges_.begin() ? ranges_.end() : std::prev(next);
  if ((next != ranges_.end() && next->first < end) ||
      (before != ranges_.end() && before->second > offset)) {
    why = absl::StrCat("chunk.offset: ", offset, ", some of its bytes came before");
    return false;
  }
  if (before != ranges_.end() && before->second == offset) {
    before->second = end;
  } else if (ranges_.size() < kGapsMax) {
    ranges_[offset] = end;
  } else {
    why = "chunk: too many pieces apart";
    return false;
  }
  std::copy(bytes.begin(), bytes.end(), mixed_.begin() + static_cast<ptrdiff_t>(offset));
  received_ += bytes.size();
  return true;
}

bool MixOperation::Verify(std::string& why) const {
  const uint64_t segment = reply_.segment_bytes();
  for (uint32_t i = 0; i < reply_.digests.size(); ++i) {
    const Digest128 digest =
        MixDigest(mix_.pool, i + 1, std::span(mixed_).subspan(i * segment, segment));
    if (digest == reply_.digests[i]) continue;
    why = absl::StrCat("mix_reply.digests: layer ", i + 1, " has ", digest.ToHex(),
                       ", the node said ", reply_.digests[i].ToHex());
    return false;
  }
  return true;
}

void MixOperation::Finish(Engine& engine, ResultCode code, std::string_view text) {
  if (ended()) return;
  if (wire_ != 0) engine.CloseWire(wire_);
  EndItem(0, code, text);
  End(engine);
}

void MixOperation::Abandon(Engine& engine, ResultCode code, std::string_view text) {
  if (ended()) return;
  if (wire_ != 0) engine.CancelWire(wire_);
  Finish(engine, code, text);
}

}  // namespace kedge
