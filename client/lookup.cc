#include "client/lookup.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "client/client_limits.h"
#include "client/engine.h"

namespace kedge {

bool WorthRetry(Engine& engine, const Frame& frame, uint32_t attempt, ErrorBody& error) {
  if (absl::Status status = DecodeError(frame.body, error); !status.ok()) {
    error.code = ResultCode::kInternal;
    error.text = std::string(status.message());
    return false;
  }
  if (error.code != ResultCode::kStaleEpoch) return false;
  engine.route().Update(error.epoch, error.members);
  return attempt < kStaleEpochRetries;
}

// --- LookupOperation ---

void LookupOperation::Start(Engine& engine) { Ask(engine); }

void LookupOperation::Ask(Engine& engine) {
  asked_ = std::min<uint32_t>(count() - begin_, kBatchItemsMax);
  MatchBody body;
  if (question_.run) body.flags |= kMatchFlagRun;
  if (question_.lease_ms != 0) body.flags |= kMatchFlagLease;
  body.lease_ms = question_.lease_ms;
  body.variants = question_.variants;
  body.items.assign(question_.keys.begin() + begin_, question_.keys.begin() + begin_ + asked_);
  wire_ = engine.OpenWire(*this, 0);
  EncodeMatch(body, engine.Body());
  engine.Send(FrameType::kMatch, wire_, deadline_us());
}

void LookupOperation::OnFrame(Engine& engine, uint64_t wire, uint32_t, const Frame& frame,
                              std::span<const uint8_t>) {
  if (frame.header.type == FrameType::kError) {
    ErrorBody error;
    if (WorthRetry(engine, frame, attempt_++, error)) {
      engine.CloseWire(wire);
      Ask(engine);
    } else {
      Abandon(engine, error.code, error.text);
    }
    return;
  }
  if (frame.header.type != FrameType::kMatchReply) return;
  MatchReplyBody reply;
  if (absl::Status status = DecodeMatchReply(frame.body, reply); !status.ok()) {
    Abandon(engine, ResultCode::kInternal,
            std::string_view(status.message().data(), status.message().size()));
    return;
  }
  engine.CloseWire(wire);
  wire_ = 0;
  OnReply(engine, reply);
}

void LookupOperation::OnReply(Engine& engine, const MatchReplyBody& reply) {
  if (reply.lease != 0) {
    leases_.push_back(reply.lease);
    lease_ms_ = lease_ms_ == 0 ? reply.lease_ms : std::min(lease_ms_, reply.lease_ms);
  }
  bool all = true;
  for (uint32_t i = 0; i < asked_; ++i) {
    ItemResult result;
    result.code = ResultCode::kAbsent;
    if (i < reply.items.size()) {
      const MatchItem& item = reply.items[i];
      result.code = item.code;
      result.tier = item.tier;
      result.variant = item.variant;
      result.bytes = item.payload_bytes;
    }
    all = all && result.code == ResultCode::kOk;
    EndItem(begin_ + i, result, ResultCodeName(result.code));
  }
  begin_ += asked_;
  if (begin_ < count() && (all || !question_.run)) {
    Ask(engine);
    return;
  }
  for (; begin_ < count(); ++begin_) EndItem(begin_, ResultCode::kAbsent, "after the held run");
  End(engine);
}

void LookupOperation::Abandon(Engine& engine, ResultCode code, std::string_view text) {
  if (ended()) return;
  if (wire_ != 0) engine.CancelWire(wire_);
  for (uint32_t item = 0; item < count(); ++item) EndItem(item, code, text);
  End(engine);
}

// --- RemoveOperation ---

void RemoveOperation::Start(Engine& engine) {
  wire_ = engine.OpenWire(*this, 0);
  EncodeRemove(body_, engine.Body());
  engine.Send(FrameType::kRemove, wire_, deadline_us());
}

void RemoveOperation::OnFrame(Engine& engine, uint64_t wire, uint32_t, const Frame& frame,
                              std::span<const uint8_t>) {
  if (frame.header.type == FrameType::kError) {
    ErrorBody error;
    if (WorthRetry(engine, frame, attempt_++, error)) {
      engine.CloseWire(wire);
      Start(engine);
    } else {
      Abandon(engine, error.code, error.text);
    }
    return;
  }
  if (frame.header.type != FrameType::kRemoveReply) return;
  RemoveReplyBody reply;
  absl::Status status = DecodeRemoveReply(frame.body, reply);
  if (status.ok() && reply.codes.size() != count()) {
    status = absl::DataLossError(absl::StrCat("remove_reply.codes: ", reply.codes.size(),
                                              " of them for ", count(), " keys"));
  }
  if (!status.ok()) {
    Abandon(engine, ResultCode::kInternal,
            std::string_view(status.message().data(), status.message().size()));
    return;
  }
  engine.CloseWire(wire);
  wire_ = 0;
  for (uint32_t item = 0; item < count(); ++item) {
    EndItem(item, reply.codes[item], ResultCodeName(reply.codes[item]));
  }
  End(engine);
}

void RemoveOperation::Abandon(Engine& engine, ResultCode code, std::string_view text) {
  if (ended()) return;
  if (wire_ != 0) engine.CancelWire(wire_);
  for (uint32_t item = 0; item < count(); ++item) EndItem(item, code, text);
  End(engine);
}

}  // namespace kedge
