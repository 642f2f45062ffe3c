// What the policy `linear` knows of one placeholder in one consumer: two maps instead of anchors
// (gpu/offset/linear_map.h), and how well they predicted what they had not seen.
//
// Threads: any. Concurrent updates add up, in some order; sums are the same up to rounding in fp64.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>

#include "absl/status/status.h"
#include "gpu/offset/linear_map.h"
#include "store/block/anchor_pool.h"

namespace kedge {

class LinearPool {
 public:
  struct Maps {
    offset::LinearMap filling;
    offset::LinearMap prefix;
    // Of the newest runs (8 at most), each predicted before it was learnt.
    PoolError error;
  };

  LinearPool(const AnchorShape& shape, const offset::LinearOptions& options);

  const AnchorShape& shape() const { return shape_; }
  // Learns one dense context. InvalidArgument as AnchorPool::Insert.
  absl::Status Update(const offset::KvRows& filling_base, const offset::KvRows& prefix_base,
                      const offset::Anchor& anchor);
  // nullptr before the first update. Solved when asked for, and kept until the next one.
  std::shared_ptr<const Maps> maps() const;
  int64_t runs() const;
  int64_t bytes() const;

 private:
  std::shared_ptr<const Maps> Solve() const;  // mutex_ is held

  const AnchorShape shape_;
  mutable std::mutex mutex_;
  offset::LinearFit filling_;
  offset::LinearFit prefix_;
  std::deque<offset::OffsetError> filling_errors_;
  std::deque<offset::OffsetError> prefix_errors_;
  mutable std::shared_ptr<const Maps> maps_;
  // What errors are measured with: solved anew when half as many runs have come, so it is never
  // better than maps_, and updates stay cheap.
  std::shared_ptr<const Maps> trial_;
  int64_t trial_runs_ = 0;
};

}  // namespace kedge
