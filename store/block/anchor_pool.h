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
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "gpu/offset/anchor.h"
#include "gpu/offset/mixture.h"
#include "store/block/offset_evidence.h"

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

  PoolErrorShares shares() const;
};

// What a filling asks of a pool.
struct PoolQuestion {
  BlockKey key;  // of the anchor that this filling would have
  uint64_t context_digest = 0;
  offset::MixOptions mix;  // its scale is not looked at: the pool has one
  bool with_error = true;  // evidence.error is wanted; else it says 0 of 0
  // No rows where the pool's error of fillings is above: what a gate would refuse need not be mixed
  // nor sent. A pool whose error is not known is mixed.
  double max_error = std::numeric_limits<double>::infinity();
  double max_token_error = std::numeric_limits<double>::infinity();
};

struct PoolAnswer {
  OffsetEvidence evidence;
  bool has_rows = false;
  offset::KvRows filling;  // offsets
  offset::KvRows prefix;
  std::vector<BlockKey> active;  // the anchors that it is made of: for Activate, if it is used
  int64_t bytes_read = 0;        // of anchors' offsets
};

class AnchorPool {
 public:
  AnchorPool(const AnchorShape& shape, const AnchorPoolOptions& options);

  // True when it was added, false when the pool has one under this key. InvalidArgument names what
  // differs: base kind, layers, width or the template behind the placeholder; or an empty filling.
  // `evicted`, when given, is told who went for it.
  absl::StatusOr<bool> Insert(offset::Anchor anchor, std::vector<BlockKey>* evicted = nullptr);

  // What survives a restart: the anchors in the order of their insertion, and how often each was
  // active. A pool that takes it in, while it is empty, goes on to the bit as the one that gave it.
  struct Member {
    BlockKey key;
    uint64_t activations = 0;
    friend bool operator==(const Member&, const Member&) = default;
  };
  std::vector<Member> members() const;
  // INVALID_ARGUMENT as Insert; then nothing was taken. Past the capacity the first ones stay.
  absl::Status Restore(std::vector<offset::Anchor> anchors, std::span<const uint64_t> activations);

  const AnchorShape& shape() const { return shape_; }
  const AnchorPoolOptions& options() const { return options_; }
  int64_t size() const;
  // Of anchors and sketches, as kept in memory.
  int64_t bytes() const;
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
  // Everything at once, of the anchors of one moment: evidence, and the offsets where there are
  // some. The anchor of this very filling in this very context answers alone. Node and client call
  // this, so that they agree to the bit.
  PoolAnswer Ask(const offset::Sketch& filling, const PoolQuestion& question) const;
  // Counts the anchors that a filling which was accepted made use of: those of PoolAnswer::active
  // that are still here. The second finds them first.
  void Activate(std::span<const BlockKey> active);
  void Activate(const offset::Sketch& filling, const offset::MixOptions& options);
  PoolError LeaveOneOut(const offset::MixOptions& options) const;
  // Computes the error that the next question will ask for, if it asks as the last one did.
  void Refresh() const;

 private:
  struct Entry {
    std::shared_ptr<const offset::Anchor> anchor;
    uint64_t activations = 0;
  };
  using AnchorList = std::vector<std::shared_ptr<const offset::Anchor>>;
  AnchorList Anchors() const;
  std::vector<BlockKey> Active(const AnchorList& anchors, const offset::Sketch& filling,
                               const offset::MixOptions& options) const;
  PoolError ErrorOfAll(const AnchorList& anchors, const offset::MixOptions& options) const;
  PoolErrorShares SharesOfAll(const AnchorList& anchors, const offset::MixOptions& options) const;
  bool Current(const AnchorList& anchors) const;  // mutex_ is held
  absl::Status Check(const offset::Anchor& anchor) const;
  BlockKey EvictOne();  // mutex_ is held
  void Changed();       // mutex_ is held

  const AnchorShape shape_;
  const AnchorPoolOptions options_;
  mutable std::mutex mutex_;
  std::vector<Entry> entries_;  // oldest first
  double scale_ = 1.0;
  // Of the last options that were asked for, until the pool changes.
  mutable std::mutex error_mutex_;  // one computes, others wait for it; taken before mutex_
  mutable std::optional<offset::MixOptions> asked_;
  mutable std::optional<PoolErrorShares> shares_;
  mutable offset::MixOptions shares_options_;
};

}  // namespace kedge
