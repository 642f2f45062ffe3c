// Leases: pins with an end. A leased block is neither evicted nor moved until the lease is
// released, its session ends, or its time is up.
//
// Belongs to one thread (the node's loop). Time is an argument.
#pragma once

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "proto/result_code.h"
#include "store/block/block_map.h"
#include "store/world/random.h"

namespace kedge {

class LeaseTable {
 public:
  struct Limits {
    uint32_t per_session = 4096;
    uint64_t blocks = 1 << 20;  // pins of all leases
  };
  // Ids are drawn from `seed`; a session cannot guess another one's.
  LeaseTable(Limits limits, uint64_t seed) : limits_(limits), random_(seed) {}

  // Takes the pins. 0 when a limit is reached or there is nothing to pin: then the pins are given
  // back.
  uint64_t Grant(uint64_t session, std::vector<BlockRef> blocks, int64_t until_ms);
  // kOk; kAbsent when it ended already; kDenied for another session's lease.
  ResultCode Release(uint64_t session, uint64_t lease);
  // Number of leases that ended.
  size_t ReleaseSession(uint64_t session);
  size_t Expire(int64_t now_ms);

  size_t size() const { return leases_.size(); }
  uint64_t blocks() const { return blocks_; }

 private:
  struct Lease {
    uint64_t session = 0;
    int64_t until_ms = 0;
    std::vector<BlockRef> blocks;
  };
  void Drop(absl::flat_hash_map<uint64_t, Lease>::iterator lease);

  const Limits limits_;
  Random random_;
  absl::flat_hash_map<uint64_t, Lease> leases_;
  std::multimap<int64_t, uint64_t> by_end_;  // until_ms -> lease
  absl::flat_hash_map<uint64_t, std::vector<uint64_t>> by_session_;
  uint64_t blocks_ = 0;
};

}  // namespace kedge
