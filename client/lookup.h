// Questions without bulk: which keys are held (exists, match), and remove.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "client/exchange.h"
#include "proto/messages.h"

namespace kedge {

// Exists and match. A match stops at the first key that is not held, and goes on in batches of
// kBatchItemsMax while all are; each batch has a lease of its own. Items: code, tier, variant,
// size.
class LookupOperation final : public Exchange {
 public:
  struct Question {
    std::vector<KeyItem> keys;
    bool run = false;
    uint32_t lease_ms = 0;          // 0: no lease
    std::vector<Variant> variants;  // accepted; empty: any lossless
  };
  LookupOperation(Question question, int64_t deadline_us)
      : Exchange(static_cast<uint32_t>(question.keys.size()), deadline_us, FrameType::kMatch,
                 FrameType::kMatchReply),
        question_(std::move(question)) {}

  // Once ended.
  const std::vector<uint64_t>& leases() const { return leases_; }
  uint32_t lease_ms() const { return lease_ms_; }

 private:
  void Encode(std::vector<uint8_t>& body) override;
  absl::StatusOr<bool> Take(std::span<const uint8_t> body) override;

  Question question_;
  uint32_t begin_ = 0;  // of the batch that is asked
  uint32_t asked_ = 0;  // its size
  std::vector<uint64_t> leases_;
  uint32_t lease_ms_ = 0;
};

class RemoveOperation final : public Exchange {
 public:
  RemoveOperation(std::vector<KeyItem> keys, int64_t deadline_us)
      : Exchange(static_cast<uint32_t>(keys.size()), deadline_us, FrameType::kRemove,
                 FrameType::kRemoveReply) {
    body_.items = std::move(keys);
  }

 private:
  void Encode(std::vector<uint8_t>& body) override { EncodeRemove(body_, body); }
  absl::StatusOr<bool> Take(std::span<const uint8_t> body) override;

  RemoveBody body_;
};

}  // namespace kedge
