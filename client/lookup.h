// Questions without bulk: which keys are held (exists, match), and remove.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "client/operation.h"
#include "proto/messages.h"

namespace kedge {

// Takes a kError frame: a stale epoch updates the engine's route and is worth `attempt` + 1 if that
// is within the limit (returns true); anything else, also an error that cannot be read, is
// described in `error` (returns false).
bool WorthRetry(Engine& engine, const Frame& frame, uint32_t attempt, ErrorBody& error);

// Exists and match. A match stops at the first key that is not held, and goes on in batches of
// kBatchItemsMax while all are; each batch has a lease of its own. Items: code, tier, variant,
// size.
class LookupOperation final : public Operation {
 public:
  struct Question {
    std::vector<KeyItem> keys;
    bool run = false;
    uint32_t lease_ms = 0;          // 0: no lease
    std::vector<Variant> variants;  // accepted; empty: any lossless
  };
  LookupOperation(Question question, int64_t deadline_us)
      : Operation(static_cast<uint32_t>(question.keys.size()), deadline_us),
        question_(std::move(question)) {}

  // Once ended.
  const std::vector<uint64_t>& leases() const { return leases_; }
  uint32_t lease_ms() const { return lease_ms_; }

  void Start(Engine& engine) override;
  void OnFrame(Engine& engine, uint64_t wire, uint32_t tag, const Frame& frame,
               std::span<const uint8_t> payload) override;
  void Abandon(Engine& engine, ResultCode code, std::string_view text) override;

 private:
  void Ask(Engine& engine);
  void OnReply(Engine& engine, const MatchReplyBody& reply);

  Question question_;
  uint32_t begin_ = 0;  // of the batch that is asked
  uint32_t asked_ = 0;  // its size
  uint64_t wire_ = 0;
  uint32_t attempt_ = 0;
  std::vector<uint64_t> leases_;
  uint32_t lease_ms_ = 0;
};

class RemoveOperation final : public Operation {
 public:
  RemoveOperation(std::vector<KeyItem> keys, int64_t deadline_us)
      : Operation(static_cast<uint32_t>(keys.size()), deadline_us) {
    body_.items = std::move(keys);
  }
  void Start(Engine& engine) override;
  void OnFrame(Engine& engine, uint64_t wire, uint32_t tag, const Frame& frame,
               std::span<const uint8_t> payload) override;
  void Abandon(Engine& engine, ResultCode code, std::string_view text) override;

 private:
  RemoveBody body_;
  uint64_t wire_ = 0;
  uint32_t attempt_ = 0;
};

}  // namespace kedge
