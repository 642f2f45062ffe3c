// An operation of one question and one answer at a time: a frame out, a frame back, again while
// there is more to ask. A stale epoch is asked once more; any other error ends all items with it.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "client/operation.h"
#include "proto/messages.h"

namespace kedge {

// Takes a kError frame: a stale epoch updates the engine's route and is worth `attempt` + 1 if that
// is within the limit (returns true); anything else, also an error that cannot be read, is
// described in `error` (returns false).
bool WorthRetry(Engine& engine, const Frame& frame, uint32_t attempt, ErrorBody& error);

class Exchange : public Operation {
 public:
  void Start(Engine& engine) override { Ask(engine); }
  void OnFrame(Engine& engine, uint64_t wire, uint32_t tag, const Frame& frame,
               std::span<const uint8_t> payload) override;
  void Abandon(Engine& engine, ResultCode code, std::string_view text) override;

 protected:
  Exchange(uint32_t items, int64_t deadline_us, FrameType question, FrameType answer)
      : Operation(items, deadline_us), question_(question), answer_(answer) {}

  // [loop] The body of what is asked next. Called again for the same after a stale epoch.
  virtual void Encode(std::vector<uint8_t>& body) = 0;
  // [loop] The answer to it: ends its items. Whether there is more to ask; without, all items have
  // ended. An error says what cannot be read, and nothing was taken.
  virtual absl::StatusOr<bool> Take(std::span<const uint8_t> body) = 0;

 private:
  void Ask(Engine& engine);

  const FrameType question_;
  const FrameType answer_;
  uint64_t wire_ = 0;
  uint32_t attempt_ = 0;
};

}  // namespace kedge
