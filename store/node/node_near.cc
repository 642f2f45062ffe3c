// kNearInsert, kNearLookup, kNearStrike: text that was seen, found again by its match ids.
//
// The index is in memory only: it is made of hints, and whoever serves a prompt registers its text
// again, so that after a restart what is in use comes back by use. Donors' texts are values like
// any other, durable as they were put.

#include <utility>

#include "absl/strings/str_cat.h"
#include "store/node/node.h"

namespace kedge {

void Node::OnNearInsert(Session& session, const Frame& frame) {
  const int64_t start_us = clock_.NowUs();
  if (!BodyOk(session, frame.header, DecodeNearInsert(frame.body, near_insert_))) return;
  if (near_ == nullptr && options_.near_donors_max > 0 && !near_insert_.items.empty()) {
    near_ = std::make_unique<NearIndex>(
        NearLimits{.donors_max = options_.near_donors_max,
                   .postings_max = uint64_t{options_.near_donors_max} * kNearPostingsOfDonor});
  }
  ResultCode worst = ResultCode::kOk;
  near_inserted_.codes.clear();
  for (const NearInsertItem& item : near_insert_.items) {
    const ResultCode code = near_ == nullptr ? ResultCode::kDenied
                                             : FromStatus(near_->Insert(item.donor, item.postings));
    near_inserted_.codes.push_back(code);
    if (code != ResultCode::kOk) worst = code;
  }
  NoteNear();
  body_.clear();
  EncodeNearInserted(near_inserted_, body_);
  Reply(session, frame.header, FrameType::kNearInserted);
  metrics_.Request(Op::kNearInsert, worst, clock_.NowUs() - start_us);
}

void Node::OnNearLookup(Session& session, const Frame& frame) {
  const int64_t start_us = clock_.NowUs();
  if (!BodyOk(session, frame.header, DecodeNearLookup(frame.body, near_lookup_))) return;
  NearFoundBody found;
  if (near_ != nullptr) found.reply = near_->Lookup(near_lookup_.ids);
  NearReply& reply = found.reply;
  NodeMetrics::Add(metrics_.near_ids, near_lookup_.ids.size());
  NodeMetrics::Add(metrics_.near_hits, reply.hits.size());
  // An answer is one head. What does not fit is left out: hints.
  const size_t held = reply.hits.size();
  if (reply.donors.size() > kNearDonorsMax) {
    reply.donors.resize(kNearDonorsMax);
    std::erase_if(reply.hits, [](const NearHit& hit) { return hit.donor >= kNearDonorsMax; });
  }
  if (reply.hits.size() > kNearHitsMax) reply.hits.resize(kNearHitsMax);
  found.left_out = static_cast<uint32_t>(held - reply.hits.size());
  body_.clear();
  EncodeNearFound(found, body_);
  Reply(session, frame.header, FrameType::kNearFound);
  metrics_.Request(Op::kNearLookup, ResultCode::kOk, clock_.NowUs() - start_us);
}

void Node::OnNearStrike(const Frame& frame) {
  NearStrikeBody strike;
  if (!DecodeNearStrike(frame.body, strike).ok()) return metrics_.Error(FrameError::kBody);
  NodeMetrics::Add(metrics_.near_strikes, strike.keys.size());
  if (near_ == nullptr) return;
  for (const BlockKey& key : strike.keys) near_->Strike(key);
  NoteNear();
}

void Node::EraseNear(std::span<const BlockKey> keys) {
  if (near_ == nullptr) return;
  for (const BlockKey& key : keys) near_->Erase(key);
  NoteNear();
}

void Node::NoteNear() {
  if (near_ == nullptr) return;
  metrics_.near_donors = near_->donors();
  metrics_.near_bytes = near_->memory_bytes();
  metrics_.near_donors_evicted = near_->donors_evicted();
  metrics_.near_postings_dropped = near_->postings_dropped();
}

}  // namespace kedge
