// The prefix index as plainly as it can be said: the model that prefix_index_test holds the real
// one against.
#pragma once

#include <algorithm>
#include <cstdint>
#include <list>
#include <optional>
#include <vector>

#include "store/block/prefix_index.h"

namespace kedge {

class NaivePrefixIndex {
 public:
  using Verdict = PrefixIndex::Verdict;

  void Insert(uint32_t id, uint64_t placement, uint32_t depth, uint64_t tick) {
    auto run = std::find_if(runs_.begin(), runs_.end(),
                            [&](const Run& r) { return r.placement == placement; });
    if (run == runs_.end()) run = runs_.insert(runs_.end(), Run{placement, tick, {}});
    auto place = std::find_if(run->blocks.begin(), run->blocks.end(),
                              [&](const Block& b) { return b.depth <= depth; });
    run->blocks.insert(place, Block{id, depth});
    Touch(id, tick);
  }
  void Erase(uint32_t id) {
    auto run = RunOf(id);
    std::erase_if(run->blocks, [&](const Block& b) { return b.id == id; });
    if (run->blocks.empty()) runs_.erase(run);
  }
  void Touch(uint32_t id, uint64_t tick) {
    auto run = RunOf(id);
    if (run == runs_.end()) return;
    run->tick = tick;
    runs_.splice(runs_.end(), runs_, run);
  }
  bool Contains(uint32_t id) { return RunOf(id) != runs_.end(); }
  uint64_t coldest_tick() const { return runs_.empty() ? UINT64_MAX : runs_.front().tick; }

  std::optional<uint32_t> Victim(PrefixIndex::Judge judge, uint64_t tick, uint32_t runs_max) {
    const size_t looks = std::min<size_t>(runs_.size(), runs_max);
    auto run = runs_.begin();
    for (size_t look = 0; look < looks; ++look) {
      auto next = std::next(run);
      bool all_busy = true;
      for (const Block& block : run->blocks) {
        const Verdict verdict = judge(block.id);
        if (verdict == Verdict::kTake) return block.id;
        all_busy = all_busy && verdict == Verdict::kBusy;
      }
      if (all_busy) {
        run->tick = tick;
        runs_.splice(runs_.end(), runs_, run);
      }
      run = next;
    }
    return std::nullopt;
  }

 private:
  struct Block {
    uint32_t id;
    uint32_t depth;
  };
  struct Run {
    uint64_t placement;
    uint64_t tick;
    std::vector<Block> blocks;  // deepest first
  };
  std::list<Run>::iterator RunOf(uint32_t id) {
    return std::find_if(runs_.begin(), runs_.end(), [&](const Run& r) {
      return std::any_of(r.blocks.begin(), r.blocks.end(),
                         [&](const Block& b) { return b.id == id; });
    });
  }
  std::list<Run> runs_;  // coldest first
};

}  // namespace kedge
