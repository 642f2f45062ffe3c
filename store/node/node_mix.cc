// kMix: what a pool knows of a filling, and its offsets, mixed here.
//
// A walk: OnMix gathers the sketch (one frame, or several in any order) -> the question waits its
// turn and is answered on the executor (mix_queue.h) -> OnMixed, back on the loop, sends kMixReply
// -> mixed segments go out as the bytes of a get do, with its windows, deadline and cancel
// (node_get.cc), layer after layer.

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "store/node/node.h"

namespace kedge {
namespace {

// Everything but which rows of the sketch a frame has.
bool SameQuestion(const MixBody& a, const MixBody& b) {
  return a.pool == b.pool && a.placement == b.placement && a.key == b.key &&
         a.context_digest == b.context_digest && a.shape == b.shape && a.weighting == b.weighting &&
         a.with_error == b.with_error && a.dtype == b.dtype && a.sharpness == b.sharpness &&
         a.tokens == b.tokens;
}

// False when a row had come before.
bool TakeRows(const MixBody& frame, MixInParts& parts) {
  const size_t rows = frame.sketch.size() / kSketchFloats;
  for (size_t i = 0; i < rows; ++i) {
    if (parts.rows[frame.sketch_first + i]) return false;
    parts.rows[frame.sketch_first + i] = true;
  }
  std::copy(frame.sketch.begin(), frame.sketch.end(),
            parts.mix.sketch.begin() + size_t{frame.sketch_first} * kSketchFloats);
  parts.missing -= static_cast<uint32_t>(rows);
  return true;
}

}  // namespace

void Node::OnMix(Session& session, const Frame& frame) {
  if (!BodyOk(session, frame.header, DecodeMix(frame.body, mix_))) return;
  const uint64_t request = frame.header.request;
  const uint32_t asked_ms = frame.header.deadline_ms;
  const int64_t deadline_us =
      clock_.NowUs() +
      int64_t{asked_ms == 0 ? kRequestMsDefault : std::min(asked_ms, kRequestMsMax)} * 1000;
  if (mix_.sketch.size() == size_t{mix_.tokens} * kSketchFloats)
    return AskPool(session, frame.header, std::move(mix_), deadline_us);
  const auto refuse = [&](ResultCode code, std::string text) {
    std::erase_if(session.mixes_in_parts,
                  [&](const MixInParts& parts) { return parts.request.request == request; });
    metrics_.Request(Op::kMix, code, 0);
    ReplyError(session, frame.header, code, std::move(text));
  };
  auto parts = std::find_if(session.mixes_in_parts.begin(), session.mixes_in_parts.end(),
                            [&](const MixInParts& p) { return p.request.request == request; });
  if (parts == session.mixes_in_parts.end()) {
    if (session.mixes_in_parts.size() >= kMixesInPartsMax) {
      return refuse(ResultCode::kExhausted,
                    absl::StrCat("mix: ", kMixesInPartsMax, " sketches are on their way"));
    }
    MixInParts begun{.request = frame.header, .mix = mix_, .missing = mix_.tokens};
    begun.rows.resize(mix_.tokens);
    begun.mix.sketch.assign(size_t{mix_.tokens} * kSketchFloats, 0.0f);
    begun.deadline_us = deadline_us;
    parts = session.mixes_in_parts.insert(session.mixes_in_parts.end(), std::move(begun));
  }
  if (!SameQuestion(mix_, parts->mix))
    return refuse(ResultCode::kInvalid, "mix: its frames ask different questions");
  if (mix_.sketch.empty() || !TakeRows(mix_, *parts)) {
    return refuse(ResultCode::kInvalid,
                  absl::StrCat("mix.sketch_first: ", mix_.sketch_first, ", no rows that are new"));
  }
  if (parts->missing != 0) return;
  MixInParts whole = std::move(*parts);
  session.mixes_in_parts.erase(parts);
  AskPool(session, whole.request, std::move(whole.mix), whole.deadline_us);
}

void Node::AskPool(Session& session, const FrameHeader& request, MixBody mix, int64_t deadline_us) {
  const auto early =
      std::find(session.early_cancels.begin(), session.early_cancels.end(), request.request);
  if (request.request != 0 && early != session.early_cancels.end()) {
    *early = 0;
    return metrics_.Request(Op::kMix, ResultCode::kCancelled, 0);
  }
  if (session.streams.size() + session.mixes.size() >= kRequestsPerSessionMax) {
    metrics_.Request(Op::kMix, ResultCode::kExhausted, 0);
    return ReplyError(session, request, ResultCode::kExhausted,
                      absl::StrCat("mix: ", kRequestsPerSessionMax, " requests run already"));
  }
  auto cancelled = std::make_shared<std::atomic<bool>>(false);
  session.mixes.push_back({request.request, cancelled});
  mixes_->Ask(
      {.mix = std::move(mix),
       .deadline_us = deadline_us,
       .cancelled = cancelled,
       .done = [this, session_id = session.id, request, cancelled, deadline_us,
                started_us = clock_.NowUs()](MixQueue::Answer answer) {
         auto shared = std::make_shared<MixQueue::Answer>(std::move(answer));
         transport_->Post([this, session_id, request, cancelled, deadline_us, started_us, shared] {
           OnMixed(session_id, request, started_us, deadline_us, std::move(*shared), cancelled);
         });
       }});
}

void Node::OnMixed(uint64_t session_id, const FrameHeader& request, int64_t started_us,
                   int64_t deadline_us, MixQueue::Answer answer,
                   const std::shared_ptr<std::atomic<bool>>& cancelled) {
  Session* session = FindSession(session_id);
  if (session != nullptr) {
    std::erase_if(session->mixes,
                  [&](const MixAsked& asked) { return asked.cancelled == cancelled; });
  }
  const int64_t took_us = clock_.NowUs() - started_us;
  if (session == nullptr || cancelled->load(std::memory_order_relaxed))
    return metrics_.Request(Op::kMix, ResultCode::kCancelled, took_us);
  if (answer.code != ResultCode::kOk) {
    metrics_.Request(Op::kMix, answer.code, took_us);
    return ReplyError(*session, request, answer.code, std::move(answer.text));
  }
  if (answer.mixed != nullptr && !answer.mixed->bytes.empty())
    return StreamMixed(*session, request, started_us, deadline_us, std::move(answer));
  metrics_.Request(Op::kMix, ResultCode::kOk, took_us);
  body_.clear();
  EncodeMixReply(answer.reply, body_);
  Reply(*session, request, FrameType::kMixReply);
}

void Node::StreamMixed(Session& session, const FrameHeader& request, int64_t started_us,
                       int64_t deadline_us, MixQueue::Answer answer) {
  const uint32_t index = NewStream();
  GetStream& stream = *streams_[index];
  stream.session = &session;
  stream.request = request;
  stream.started_us = started_us;
  stream.deadline_us = deadline_us;
  stream.in_use = true;
  stream.mixed = std::move(answer.mixed);
  EncodeMixReply(answer.reply, stream.mix_reply);
  stream.items.resize(1);
  GetItemState& item = stream.items[0];
  item.stage = GetItemState::Stage::kReady;
  item.image = stream.mixed->bytes.data();
  item.end = stream.mixed->bytes.size();
  stream.open_items = 1;
  stream.ready_bytes = item.end;
  session.streams.push_back(index);
  Enqueue(index);
  Pump(session);
  if (stream.in_use) FinishStreamIfOver(index);
}

// --- Ends ---------------------------------------------------------------------------------------

bool Node::CancelMix(Session& session, uint64_t request) {
  const size_t in_parts = std::erase_if(session.mixes_in_parts, [&](const MixInParts& parts) {
    return parts.request.request == request;
  });
  for (const MixAsked& asked : session.mixes) {
    if (asked.request != request) continue;
    asked.cancelled->store(true, std::memory_order_relaxed);
    return true;
  }
  return in_parts != 0;
}

void Node::EndMixes(Session& session) {
  for (const MixAsked& asked : session.mixes)
    asked.cancelled->store(true, std::memory_order_relaxed);
  session.mixes.clear();
  session.mixes_in_parts.clear();
}

// Sketches that did not come whole in time.
void Node::SweepMixes(int64_t now_us) {
  for (const auto& session : sessions_) {
    std::erase_if(session->mixes_in_parts, [&](const MixInParts& parts) {
      if (now_us < parts.deadline_us) return false;
      metrics_.Request(Op::kMix, ResultCode::kDeadline, 0);
      ReplyError(*session, parts.request, ResultCode::kDeadline,
                 absl::StrCat("mix.sketch: ", parts.missing, " of ", parts.mix.tokens,
                              " rows did not come in time"));
      return true;
    });
  }
}

}  // namespace kedge
