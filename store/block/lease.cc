#include "store/block/lease.h"

#include <algorithm>

namespace kedge {

uint64_t LeaseTable::Grant(uint64_t session, std::vector<BlockRef> blocks, int64_t until_ms) {
  if (blocks.empty() || blocks_ + blocks.size() > limits_.blocks) return 0;
  std::vector<uint64_t>& own = by_session_[session];
  if (own.size() >= limits_.per_session) return 0;
  uint64_t id = random_.Next();
  while (id == 0 || leases_.contains(id)) id = random_.Next();
  blocks_ += blocks.size();
  own.push_back(id);
  by_end_.emplace(until_ms, id);
  leases_.emplace(id, Lease{session, until_ms, std::move(blocks)});
  return id;
}

void LeaseTable::Drop(absl::flat_hash_map<uint64_t, Lease>::iterator lease) {
  const uint64_t id = lease->first;
  blocks_ -= lease->second.blocks.size();
  for (auto [end, last] = by_end_.equal_range(lease->second.until_ms); end != last; ++end) {
    if (end->second != id) continue;
    by_end_.erase(end);
    break;
  }
  const auto own = by_session_.find(lease->second.session);
  std::erase(own->second, id);
  if (own->second.empty()) by_session_.erase(own);
  leases_.erase(lease);
}

ResultCode LeaseTable::Release(uint64_t session, uint64_t lease) {
  const auto found = leases_.find(lease);
  if (found == leases_.end()) return ResultCode::kAbsent;
  if (found->second.session != session) return ResultCode::kDenied;
  Drop(found);
  return ResultCode::kOk;
}

size_t LeaseTable::ReleaseSession(uint64_t session) {
  const auto own = by_session_.find(session);
  if (own == by_session_.end()) return 0;
  const std::vector<uint64_t> ids = own->second;
  for (const uint64_t id : ids) Drop(leases_.find(id));
  return ids.size();
}

size_t LeaseTable::Expire(int64_t now_ms) {
  size_t ended = 0;
  while (!by_end_.empty() && by_end_.begin()->first <= now_ms) {
    Drop(leases_.find(by_end_.begin()->second));
    ++ended;
  }
  return ended;
}

}  // namespace kedge
