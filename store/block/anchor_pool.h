// The anchors of one placeholder in one consumer: matched, mixed, measured and evicted.
//
// KVCOMM (arXiv 2510.12872, sections 3.3 and 3.4), with what its code gets wrong put right:
// - at most `capacity` anchors, not one more; the first of the `window` oldest with the fewest
//   activations goes before another comes;
// - an anchor is active when it is among the heaviest that together hold `nucleus` of the weight,
//   the one that crosses the border included; never all of them for want of one;
// - one distance, normalised by the pool's mean distance between anchors, for gate and mixture;
// - the pool knows its own error: each anchor predicted from the others.
//
// The same inserts and activations in the same order give the same pool, bit by bit.
// Threads: any. Anchors are immutable; mixing runs outside the lock on the anchors of one moment.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "gpu/offset/anchor.h"
#include "gpu/offset/mixture.h"

namespace kedge {

struct AnchorPoolOptions {
  int64_t capacity = 20;
  int64_t window = 5;
  double nucleus = 0.9;
};

// What all anchors of a pool have in common.
struct AnchorShape {
  offset::BaseKind kind = offset::BaseKind::kCanonical;
  int64_t layers = 0;
  int64_t width = 0;
  int64_t prefix_tokens = 0;
  uint64_t prefix_digest = 0;

  static AnchorShape Of(const offset::Anchor& anchor);
  friend bool operator==(const AnchorShape&, const AnchorShape&) = default;
};

// Of each anchor predicted from the others, where another is as long.
struct PoolError {
  int64_t predicted = 0;  // anchors
  offset::OffsetError filling;
  offset::OffsetError prefix;
};

class AnchorPool {
 public:
  AnchorPool(const AnchorShape& shape, const AnchorPoolOptions& options);

  // True when it was added, false when the pool has one under this key. InvalidArgument names what
  // differs: base kind, layers, width or the template behind the placeholder; or an empty filling.
  absl::StatusOr<bool> Insert(offset::Anchor anchor);

  const AnchorShape& shape() const { return shape_; }
  int64_t size() const;
  // Keys in the order of insertion.
  std::vector<BlockKey> keys() const;
  // Of the longest filling; 0 when there is none.
  int64_t longest() const;
  // Mean distance between anchors; 1 with fewer than two, or where all are alike.
  double scale() const;
  // nullptr when there is none.
  std::shared_ptr<const offset::Anchor> Find(const BlockKey& key) const;

  // The mix of all anchors that are as long as the filling. options.scale is taken as it is: part
  // pools of one placeholder have to agree on it.
  offset::Mix MixFor(const offset::Sketch& filling, const offset::MixOptions& options) const;
  // Counts the anchors that a filling which was accepted made use of.
  void Activate(const offset::Sketch& filling, const offset::MixOptions& options);
  // Kept until the pool changes.
  PoolError LeaveOneOut(const offset::MixOptions& options) const;

 private:
  struct Entry {
    std::shared_ptr<const offset::Anchor> anchor;
    int64_t activations = 0;
  };
  std::vector<std::shared_ptr<const offset::Anchor>> Anchors() const;
  void EvictOne();  // mutex_ is held

  const AnchorShape shape_;
  const AnchorPoolOptions options_;
  mutable std::mutex mutex_;
  std::vector<Entry> entries_;  // oldest first
  double scale_ = 1.0;
  mutable std::optional<PoolError> error_;
  mutable offset::MixOptions error_options_;
};

}  // namespace kedge
