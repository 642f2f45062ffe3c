// Near matches over the network: client/match's questions as frames.
//
//     NearNodes nodes(engine, deadline_us);
//     nodes.Register(registrations, durability);              // texts are put, postings inserted
//     HybridPlan plan = matcher.Match(prompt, prefix, nodes);  // asks and reads
//     nodes.Strike(plan.stale);
//
// What is asked is hints: a node that does not answer, or answers nonsense, is a miss.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "client/engine.h"
#include "client/exchange.h"
#include "client/match/matcher.h"
#include "proto/near_messages.h"

namespace kedge {

// Ids of one node; any number of them.
class NearLookupOperation final : public Exchange {
 public:
  NearLookupOperation(std::vector<MatchId> ids, int64_t deadline_us)
      : Exchange(1, deadline_us, FrameType::kNearLookup, FrameType::kNearFound),
        ids_(std::move(ids)) {}

  // Once ended with kOk.
  NearReply TakeReply() { return std::move(reply_); }
  uint64_t left_out() const { return left_out_; }

 private:
  void Encode(std::vector<uint8_t>& body) override;
  absl::StatusOr<bool> Take(std::span<const uint8_t> body) override;

  std::vector<MatchId> ids_;
  size_t begin_ = 0;  // of the ids that are asked
  size_t asked_ = 0;
  NearReply reply_;
  uint64_t left_out_ = 0;
};

// Donors and postings; an item each.
class NearInsertOperation final : public Exchange {
 public:
  NearInsertOperation(std::vector<NearInsertItem> items, int64_t deadline_us)
      : Exchange(static_cast<uint32_t>(items.size()), deadline_us, FrameType::kNearInsert,
                 FrameType::kNearInserted),
        items_(std::move(items)) {}

 private:
  void Encode(std::vector<uint8_t>& body) override;
  absl::StatusOr<bool> Take(std::span<const uint8_t> body) override;

  std::vector<NearInsertItem> items_;
  uint32_t begin_ = 0;  // of the items that are told
  uint32_t told_ = 0;
};

// Blocks its caller; any thread but the engine's loop, each call by itself.
class NearNodes final : public match::MatchNodes {
 public:
  NearNodes(std::shared_ptr<Engine> engine, int64_t deadline_us, uint64_t window_bytes)
      : engine_(std::move(engine)), deadline_us_(deadline_us), window_bytes_(window_bytes) {}

  // Puts the texts, then the postings of those that are held. The first error; what could be
  // registered is.
  absl::Status Register(std::span<const match::Registration> made, uint8_t durability);
  // Does not wait for the node.
  void Strike(std::span<const NearDonor> donors);

  uint32_t NodeOf(uint64_t placement) const override;
  void Lookup(std::span<match::LookupRequest> requests) override;
  void ReadTexts(std::span<match::TextRequest> requests) override;

 private:
  std::shared_ptr<Engine> engine_;
  const int64_t deadline_us_;
  const uint64_t window_bytes_;
};

}  // namespace kedge
