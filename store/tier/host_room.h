// Room in host memory, made by evicting what is coldest. The policy of the host tier, in one
// function.
//
// The coldest unpinned block decides whose memory is given up. Is its slot of use for what is asked
// for, it goes (to the SSD, where it already is, or out of the node, recorded). Is it of another
// size class, evicting it alone would help nobody: then the extent of another class that is
// cheapest to empty is emptied, and moves. So memory follows the sizes that are in use.
//
// A block that still has to be written to the SSD does not go as long as the SSD takes what it is
// given: then what is saved goes, however warm, and where nothing is saved there is no room until
// the mover has written some.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "store/block/block_map.h"
#include "store/tier/tier_host.h"

namespace kedge {

class HostRoom {
 public:
  // Owner of a slot that is not in the map yet: nobody may evict it.
  static constexpr uint64_t kNobody = 0;

  // Both must outlive this.
  HostRoom(HostTier& host, BlockMap& map) : host_(host), map_(map) {}

  // A slot of at least `bytes`. RESOURCE_EXHAUSTED when what is left is pinned or unsaved;
  // INVALID_ARGUMENT
  // when no slot can be that large. Any thread.
  absl::StatusOr<HostSlot> Allocate(uint64_t bytes);

 private:
  bool EvictOne(uint64_t bytes);
  bool EmptyAnExtent(uint64_t bytes);

  HostTier& host_;
  BlockMap& map_;
};

}  // namespace kedge
