// Reuse for an inference engine that is not the reference runner: match, fetch, decide, plan; the
// engine computes.
//
//     class MyEngine : public SessionEngine { ... };         // pages, rows, attention: the
//     engine's Session session(model, {.rules = rules, .rates = rates}); auto done =
//     session.Prefill(prompt, runs, engine);     // KV in the pages, last row computed
//     done->decision, done->provenance                       // what was done, what it is,
//     therefore session.Publish(*done, engine);                        // the blocks that may be
//
// One prompt goes so: the longest exact prefix is matched and leased, and fetched layer by layer
// straight into the engine's pages; runs that stand in other prompts (client/match, or placeholders
// that the engine knows) are offered with KV that belongs to no position; what is done with them is
// decided as for every prompt (reuse.h), at most recomputed: offsets need sketches of the model's
// own KV and come with ReuseRunner. Then one pass over the rows that are left, by RunPlan. While
// layer i is computed the layers behind it arrive.
//
// Whatever does not arrive is computed: a fetch that fails in the middle starts the pass again
// without it. Threads: one call of one Session at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/kv_client.h"
#include "client/reuse/plan_engine.h"
#include "client/reuse/provenance.h"
#include "client/reuse/reuse.h"

namespace kedge {

// A run of the prompt that the engine has KV of, computed behind something else.
struct OfferedRun {
  int64_t first = 0;
  int64_t count = 0;
  int64_t bytes = 0;  // still to be moved
};

class SessionEngine : public PlanEngine {
 public:
  // The memory of `count` blocks of the sequence from `first` on, as the store has them: layer by
  // layer, keys then values. Valid until Prefill returns, or Publish.
  virtual std::vector<sdk::BlockBuffer> Pages(uint32_t first, uint32_t count) = 0;
  // Puts an offered run's KV into the pages, keys rotated at the run's positions. NotFound and
  // anything else: it is gone, and is computed.
  virtual absl::Status Place(const OfferedRun& run) = 0;
  // Begin, for the whole prompt's tokens. Called again when a pass starts anew.
  virtual absl::Status Start(std::span<const int32_t> tokens) = 0;
  // KV of layers below `layer + 1` has arrived, or Project(layer) must not read pages yet: called
  // before WriteKv and Attend of each layer where a fetch is under way.
  virtual void LayerArrived(int64_t layer) { (void)layer; }
};

struct SessionOptions {
  ReuseRules rules;
  ReuseRates rates;
  int64_t queries = 0;  // of dhd
  uint32_t lease_ms = 10000;
  uint32_t deadline_ms = 0;  // of each request to the node; 0: the client's
};

struct SessionPrefill {
  ReuseDecision decision;
  ProvenanceLog provenance;
  uint32_t fetched_blocks = 0;
  int64_t computed_rows = 0;      // through all layers
  std::vector<ScoredToken> left;  // for DecodeRepair
  std::string trouble;            // why something was not fetched; "" when it was
  std::vector<int32_t> tokens;    // of the prompt
};

class Session {
 public:
  // The model must outlive it.
  Session(const sdk::Model& model, uint32_t block_tokens, const SessionOptions& options)
      : model_(model), block_tokens_(block_tokens), options_(options) {}

  // KV of the whole prompt into the engine's pages. `runs` ascend and do not overlap; what of them
  // an exact prefix covers is left alone. Blocks. InvalidArgument names a run that lies outside;
  // else errors of the engine.
  absl::StatusOr<SessionPrefill> Prefill(std::span<const int32_t> tokens,
                                         std::span<const OfferedRun> runs, SessionEngine& engine);

  // Stores the whole blocks that are lossless, exact or dense, from the engine's pages, and waits
  // for it. Returns how many were stored; 0 where nothing may be.
  absl::StatusOr<uint32_t> Publish(const SessionPrefill& prefill, SessionEngine& engine);

 private:
  struct Fetched;
  Fetched Fetch(std::span<const int32_t> tokens, SessionEngine& engine, std::string& trouble) const;

  const sdk::Model& model_;
  const uint32_t block_tokens_;
  const SessionOptions options_;
};

}  // namespace kedge
