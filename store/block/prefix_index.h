// Which host block goes next: blocks by run, runs by last use.
//
// A *run* is what shares a placement id: up to 32 blocks of one chain (or one opaque value). Runs
// stand in a list by last use; the victim is taken from the coldest run, and inside the run the
// deepest block first, because a chain without its tail is a shorter prefix and a chain without its
// head is nothing. Whoever touches a chain of several runs touches its tail first, so that its head
// is the most recent.
//
// One for each shard of the block map, under the shard's lock. Not thread-safe. Touch and Victim do
// not allocate. prefix_index_naive.h is the same in 60 plain lines; the test holds the two side by
// side.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/functional/function_ref.h"
#include "store/block/slab.h"

namespace kedge {

class PrefixIndex {
 public:
  enum class Verdict {
    kTake,  // evict this one
    kSkip,  // evicting it would not help this caller
    kBusy,  // pinned
  };
  using Judge = absl::FunctionRef<Verdict(uint32_t id)>;

  PrefixIndex();

  // `tick` grows with every use; it stands for the time. `id` must not be in the index; ids are
  // small (they index a slab).
  void Insert(uint32_t id, uint64_t placement, uint32_t depth, uint64_t tick);
  void Erase(uint32_t id);
  // The block's run becomes the most recently used one. No effect on an id that is not in the
  // index.
  void Touch(uint32_t id, uint64_t tick);
  bool Contains(uint32_t id) const;

  // Last use of the coldest run; UINT64_MAX when the index is empty.
  uint64_t coldest_tick() const;

  // The first block that `judge` takes, coldest run first, deepest block first; it stays in the
  // index. Looks at no more than `runs_max` runs. A run whose blocks are all busy is in use: it
  // moves to the recent end, so that pinned runs are not walked over again and again.
  std::optional<uint32_t> Victim(Judge judge, uint64_t tick, uint32_t runs_max);

  size_t blocks() const { return blocks_; }
  size_t runs() const { return run_count_; }
  size_t memory_bytes() const;

  // A block is put in its place by depth within this many steps from the deep end; a run with more
  // blocks than that was made by somebody who does not follow the chain rule, and gets an
  // approximate order.
  static constexpr uint32_t kInsertStepsMax = 64;

 private:
  struct Node {
    uint32_t run = kNoIndex;
    uint32_t deeper = kNoIndex;
    uint32_t shallower = kNoIndex;
    uint32_t depth = 0;
  };
  struct Run {
    uint64_t placement = 0;
    uint64_t tick = 0;
    uint32_t colder = kNoIndex;
    uint32_t warmer = kNoIndex;
    uint32_t deepest = kNoIndex;
    uint32_t shallowest = kNoIndex;
    uint32_t next_in_bucket = kNoIndex;
  };

  uint32_t& Bucket(uint64_t placement);
  uint32_t FindOrAddRun(uint64_t placement, uint64_t tick);
  void Grow();
  void DropRun(uint32_t run);
  void Unlink(uint32_t run);
  void LinkWarmest(uint32_t run, uint64_t tick);
  void LinkByDepth(Run& run, uint32_t id, uint32_t depth);

  Slab<Node> nodes_;  // by block id
  Slab<Run> runs_;
  std::vector<uint32_t> buckets_;  // runs by placement
  uint32_t coldest_ = kNoIndex;
  uint32_t warmest_ = kNoIndex;
  size_t blocks_ = 0;
  size_t run_count_ = 0;
};

}  // namespace kedge
