#include "client/exchange.h"

#include <string>

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

void Exchange::Ask(Engine& engine) {
  wire_ = engine.OpenWire(*this, 0);
  Encode(engine.Body());
  engine.Send(question_, wire_, deadline_us());
}

void Exchange::OnFrame(Engine& engine, uint64_t wire, uint32_t, const Frame& frame,
                       std::span<const uint8_t>) {
  if (frame.header.type == FrameType::kError) {
    ErrorBody error;
    if (!WorthRetry(engine, frame, attempt_++, error))
      return Abandon(engine, error.code, error.text);
    engine.CloseWire(wire);
    return Ask(engine);
  }
  if (frame.header.type != answer_) return;
  const absl::StatusOr<bool> more = Take(frame.body);
  if (!more.ok()) {
    const auto text = more.status().message();
    return Abandon(engine, ResultCode::kInternal, {text.data(), text.size()});
  }
  engine.CloseWire(wire);
  wire_ = 0;
  if (*more) return Ask(engine);
  End(engine);
}

void Exchange::Abandon(Engine& engine, ResultCode code, std::string_view text) {
  if (ended()) return;
  if (wire_ != 0) engine.CancelWire(wire_);
  for (uint32_t item = 0; item < count(); ++item) EndItem(item, code, text);
  End(engine);
}

}  // namespace kedge
