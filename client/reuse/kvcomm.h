// Offsets in a prompt with placeholders: KVCOMM (arXiv 2510.12872), and `linear` beside it.
//
//     role text  question  joint  message  joint  ask
//
// A prompt is fixed text and placeholders in turn. The filling of a placeholder has base KV, which
// was computed elsewhere; an offset brings it into this consumer's context, and another one brings
// the fixed text behind it. Both are learnt from dense KV of earlier prompts of the same consumer.
//
// Each placeholder is decided alone, in order. One that is refused is computed densely over what
// stands before it, with the fixed text behind it, and the next ones go on from there. The last
// token of a prompt is never taken from offsets: the caller forwards it, and so gets logits.
//
// Where it goes past the paper: keys of bases and offsets are not rotated, so that anchors are
// exact at any position; one refused placeholder does not send the whole prompt to dense prefill;
// the gate knows the pool's error (offset_gate.h); kind of base and template are part of the pool.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/reuse/audit.h"
#include "client/reuse/offset_gate.h"
#include "client/reuse/offset_pools.h"
#include "gpu/model/kv_span.h"
#include "gpu/model/model.h"
#include "proto/block_key.h"

namespace kedge {

// KV that was computed by this runner over all that stands before it: the only KV that anything is
// learnt from. It cannot be made of a cache that came from elsewhere.
class DenseContext {
 public:
  static absl::StatusOr<DenseContext> Compute(Model& model, std::span<const int32_t> tokens);
  const KvCache& cache() const { return cache_; }
  std::span<const int32_t> tokens() const { return tokens_; }

 private:
  DenseContext(std::vector<int32_t> tokens, KvCache cache)
      : tokens_(std::move(tokens)), cache_(std::move(cache)) {}
  std::vector<int32_t> tokens_;
  KvCache cache_;
};

struct PromptSegment {
  bool filling = false;
  std::string placeholder;  // of a filling
  int64_t first = 0;        // its tokens' place in the prompt
  int64_t count = 0;
  // The producer's own KV of a filling, keys not rotated, and the key that names it; without it the
  // base is canonical and is computed here.
  const KvSpan* produced = nullptr;
  std::vector<uint8_t> producer;
};

struct OffsetPrompt {
  std::string consumer;
  std::span<const int32_t> tokens;
  int64_t lead = 0;                     // leading tokens that a canonical base is computed behind
  std::vector<PromptSegment> segments;  // together they are `tokens`
};

struct KvcommOptions {
  offset::MixOptions mix{.weighting = offset::Weighting::kFilling, .sharpness = 10.0};
  OffsetGateOptions gate;
  int64_t deadline_ms = 0;  // of a question to the pools; 0: theirs
  // Suspends pools whose answers are not dense ones', and says which calls are to be looked at.
  // Null: none. Outlives the Kvcomm.
  OffsetAudit* audit = nullptr;
  // Each of the three alignments, for ablations.
  bool rotate = true;  // keys go to their true positions; else they stay behind the lead
  bool filling_offset = true;
  bool prefix_offset = true;
};

// What was done with a placeholder.
struct PlaceholderDecision {
  std::string placeholder;
  offset::PoolName pool;  // that was asked
  OffsetRefusal refusal = OffsetRefusal::kNone;
  OffsetEvidence evidence;
  int64_t tokens = 0;         // of the filling
  int64_t prefix_tokens = 0;  // fixed text behind it that was corrected, not computed
  int64_t bytes_moved = 0;    // between here and the pools
  absl::Status unavailable;   // why, with kUnavailable
  // Somebody with time computes the prompt the other way (densely; with kSuspended by offsets), and
  // tells OffsetAudit::Note of `pool` how the first answer compares.
  bool audit = false;
};

// Threads: any, each with a model of its own, all of the same weights.
class Kvcomm {
 public:
  // The pools must outlive it, and are of one model and tenant.
  Kvcomm(const TenantSalt& salt, const Fingerprint& model, const KvcommOptions& options,
         OffsetPools& pools);

  // Learns all placeholders of a prompt from its dense KV. Keeps what was learnt first where the
  // template of a known pool differs: InvalidArgument. Nothing is learnt of empty fillings.
  absl::Status Learn(Model& model, const OffsetPrompt& prompt, const DenseContext& dense);

  // Puts a prompt's KV together in `cache`, which is empty: all tokens but the last one, which the
  // caller forwards. Segments have to be the whole prompt, in order: InvalidArgument. All
  // placeholders are asked for at once; pools that do not answer are a refusal, not an error.
  absl::StatusOr<std::vector<PlaceholderDecision>> Apply(Model& model, const OffsetPrompt& prompt,
                                                         KvCache& cache);

  // Decisions so far, by OffsetRefusal.
  std::array<uint64_t, kOffsetRefusals> decisions() const;

 private:
  struct Bases;  // of a filling and the text behind it
  absl::StatusOr<Bases> BasesOf(Model& model, const OffsetPrompt& prompt, size_t segment) const;
  offset::PoolName NameOf(const OffsetPrompt& prompt, const PromptSegment& segment) const;
  std::unique_ptr<OffsetCall> Ask(const OffsetPrompt& prompt, const PromptSegment& segment,
                                  const Bases& bases) const;
  // Fills in the decision; the answer has rows when it accepts.
  OffsetAnswer Decide(const PromptSegment& segment, OffsetCall& call,
                      PlaceholderDecision& decision) const;

  const TenantSalt salt_;
  const Fingerprint model_;
  const KvcommOptions options_;
  OffsetPools& pools_;
  std::array<std::atomic<uint64_t>, kOffsetRefusals> decisions_{};
};

}  // namespace kedge
