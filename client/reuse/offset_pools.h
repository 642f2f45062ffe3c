// Where offsets are learnt and asked for: the pools of a consumer's placeholders.
//
//     LocalPools   in this process (local_pools.h)
//     NodePools    in the cluster, mixed where the anchors are (node_pools.h)
//
// Both give the same answers to the bit when they were told the same in the same order: weights,
// evidence and fp32 sums come from one piece of code (store/block/anchor_pool.h). A pool does not
// decide: it says what it knows (OffsetEvidence), and client/reuse/offset_gate.h judges.
//
// Threads: any. Asking is asynchronous, so that all placeholders of a prompt are asked for before
// the first answer is needed. Offsets have nothing in layer 0 and keys that are not rotated
// (gpu/offset/kv_rows.h).
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/reuse/offset_gate.h"
#include "gpu/offset/anchor.h"
#include "gpu/offset/mixture.h"
#include "store/block/anchor_pool.h"

namespace kedge {

enum class OffsetMethod { kAnchors, kLinear };

// A run whose dense KV is known. Pointers are the caller's until Learn returns.
struct OffsetLesson {
  offset::PoolName pool;
  offset::Anchor anchor;                         // offsets, and the key of this filling
  const offset::KvRows* filling_base = nullptr;  // not null: maps learn from them
  const offset::KvRows* prefix_base = nullptr;
};

struct OffsetQuestion {
  offset::PoolName pool;
  AnchorShape shape;  // of the caller's bases and template: another one than the pool's is refused
  BlockKey key;       // AnchorKey of this filling
  uint64_t context_digest = 0;  // TokensDigest of all that stands before it
  offset::Sketch sketch;
  // The caller's until Wait returned; maps are applied to them.
  const offset::KvRows* filling_base = nullptr;
  const offset::KvRows* prefix_base = nullptr;
  offset::MixOptions mix;  // scale is the pool's own and not looked at
  bool with_error = true;  // the pool's own error is wanted
  // Rows are not mixed nor sent where the pool's error is above: the bounds of the caller's gate.
  double max_error = std::numeric_limits<double>::infinity();
  double max_token_error = std::numeric_limits<double>::infinity();
  int64_t deadline_ms = 0;  // from now; 0: the pools' default
};

struct OffsetAnswer {
  // What the pool knows without a gate: kNone, kNoPool, kShape, kTemplate or kEmpty. Only with
  // kNone is the rest filled in.
  OffsetRefusal refusal = OffsetRefusal::kNone;
  OffsetEvidence evidence;
  // Offsets to be added to the bases; without tokens (filling) where nothing was mixed: too long,
  // or above the bounds asked for.
  bool has_rows = false;
  offset::KvRows filling;
  offset::KvRows prefix;
  std::vector<BlockKey> active;  // anchors that they are made of
  int64_t bytes_moved = 0;       // over the wire, both ways; 0 within a process
};

// A question under way. One thread at a time, but Cancel: any. Destroying it cancels.
class OffsetCall {
 public:
  virtual ~OffsetCall() = default;
  // Once. Errors: Unavailable, DeadlineExceeded, ResourceExhausted (the node is busy), Cancelled;
  // each is a reason to compute densely and no more. InvalidArgument names a field of the question.
  virtual absl::StatusOr<OffsetAnswer> Wait() = 0;
  virtual void Cancel() = 0;
};

class OffsetPools {
 public:
  virtual ~OffsetPools() = default;

  // What is asked for is mixed from anchors or predicted by maps.
  virtual OffsetMethod method() const = 0;

  // Makes the pool when it is new. When it returns OK the run is in the pool; what else is promised
  // (that it survives a restart) is said by the implementation. A filling that the pool has
  // already is OK and changes nothing. InvalidArgument: another template, base kind, shape than the
  // pool's, an empty or too long filling; then nothing was learnt.
  virtual absl::Status Learn(OffsetLesson lesson) = 0;

  virtual std::unique_ptr<OffsetCall> Ask(OffsetQuestion question) = 0;
  absl::StatusOr<OffsetAnswer> Mix(OffsetQuestion question) {
    return Ask(std::move(question))->Wait();
  }

  // An answer was accepted and used: its anchors stay longer. May be lost; never waits.
  virtual void Activate(const offset::PoolName& pool, const OffsetAnswer& answer) = 0;
};

}  // namespace kedge
