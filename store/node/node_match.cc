// kMatch: which keys are held, in which tier and variant; with a lease on them if asked. kRelease
// gives leases back.

#include <algorithm>

#include "store/node/node.h"

namespace kedge {

void Node::OnMatch(Session& session, const Frame& frame) {
  const int64_t start_us = clock_.NowUs();
  if (!BodyOk(session, frame.header, DecodeMatch(frame.body, match_))) return;
  MapVariants(match_.variants);
  match_reply_.lease = 0;
  match_reply_.lease_ms = 0;
  match_reply_.items.assign(match_.items.size(), MatchItem{});
  found_.clear();
  for (size_t i = 0; i < match_.items.size(); ++i) {
    const KeyItem& asked = match_.items[i];
    BlockMap::Found found = map_.Lookup(asked.key, asked.placement, variant_ids_);
    MatchItem& item = match_reply_.items[i];
    item.code = found.code;
    metrics_.Lookup(Op::kMatch, found.code, found.info.tier());
    if (found.code == ResultCode::kOk) {
      item.tier = found.info.tier();
      item.variant = found.rank;
      item.payload_bytes = found.info.payload_bytes;
      found_.push_back(std::move(found.ref));
    } else if ((match_.flags & kMatchFlagRun) != 0) {
      break;  // what comes after a hole is of no use; it stays kAbsent
    }
  }
  // Tail first: the head of a chain is to be the most recently used (prefix_index.h).
  for (auto block = found_.rbegin(); block != found_.rend(); ++block) map_.Touch(*block);

  if ((match_.flags & kMatchFlagLease) != 0 && !found_.empty()) {
    const uint32_t asked_ms = match_.lease_ms == 0 ? kLeaseMsDefault : match_.lease_ms;
    const uint32_t lease_ms = std::min(asked_ms, options_.lease_ms_max);
    const int64_t until_ms = clock_.NowMs() + lease_ms;
    for (const BlockRef& block : found_) map_.SetLeaseUntil(block, until_ms);
    match_reply_.lease = leases_.Grant(session.id, std::move(found_), until_ms);
    if (match_reply_.lease != 0) {
      match_reply_.lease_ms = lease_ms;
    } else {
      NodeMetrics::Add(metrics_.leases_refused);
    }
  }
  found_.clear();
  body_.clear();
  EncodeMatchReply(match_reply_, body_);
  Reply(session, frame.header, FrameType::kMatchReply);
  metrics_.Request(Op::kMatch, ResultCode::kOk, clock_.NowUs() - start_us);
}

void Node::OnRelease(Session& session, const Frame& frame) {
  const int64_t start_us = clock_.NowUs();
  ReleaseBody release;
  if (!BodyOk(session, frame.header, DecodeRelease(frame.body, release))) return;
  ResultCode worst = ResultCode::kOk;
  for (const uint64_t lease : release.leases) {
    const ResultCode code = leases_.Release(session.id, lease);
    if (code != ResultCode::kOk) worst = code;
  }
  // Nobody waits for an answer: a lease that ended by itself is as good as released.
  metrics_.Request(Op::kRelease, worst, clock_.NowUs() - start_us);
}

}  // namespace kedge
