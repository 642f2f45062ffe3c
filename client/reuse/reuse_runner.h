// Finds what can be reused of a prompt, has it decided (reuse.h), and does it on the reference
// runner.
//
//     ReuseRunner reuse(salt, fingerprint, options, pools);
//     auto answer = reuse.Run(*model, {.prompt = prompt, .exact_tokens = fetched, ...}, cache);
//     answer->decision.segments ...            // what was done, and why not better
//     answer->kv.provenance() ...              // and what the KV is, therefore
//
// In order: base KV of each filling (given, kept, or computed alone), one question to the pools
// for every placeholder at once, the decision, the rows of corrected and moved segments put into
// place, and one pass of the model over what is left. Behind an exact prefix everything stands
// where it belongs; a filling that the prefix ends in is corrected from there on.
//
// With `exact_only`, and where nothing approximate is chosen, the pass is a plain prefill: the
// result has the bits of a dense one. Whatever goes wrong on the way (a pool that does not answer,
// a base that is gone, a prefix that does not arrive) ends in dense KV and a reason that is
// counted, never in other bytes.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/reuse/audit.h"
#include "client/reuse/base_kv.h"
#include "client/reuse/blend.h"
#include "client/reuse/kvcomm.h"
#include "client/reuse/provenance.h"
#include "client/reuse/reuse.h"

namespace kedge {

struct ReuseOptions {
  ReuseRules rules;
  ReuseRates rates;
  KvcommOptions offsets;  // mixture, gate, audit, deadline of questions
  // Canonical bases that are not kept are computed alone, before the decision: as the paper does,
  // and at the cost of a prefill of the filling. False: they are not there (WhyNot::kNoBase), and
  // ComputeBases may be called later.
  bool compute_bases = true;
  int64_t base_bytes = int64_t{256} << 20;  // of bases that are kept
  // Whether accepted offsets still answer as dense does; must outlive the runner. Null: nobody
  // asks.
  OffsetAudit* audit = nullptr;
};

struct ReuseInput {
  OffsetPrompt prompt;
  // Rows [0, exact_tokens) of the cache came from a store for these tokens, or are on their way:
  // `wait_for_layer` as in PrefillOptions, an error of which means that they are lost.
  int64_t exact_tokens = 0;
  Fidelity exact_fidelity = Fidelity::kLossless;
  int64_t exact_bytes = 0;  // still to be moved
  LayerHook wait_for_layer;
  int64_t queries = 0;  // of dhd: the prompt's last tokens that ask
  // Base KV of a filling from elsewhere: NotFound when nobody has it, anything else when it was
  // there and is lost. Empty: produced bases as in the prompt, canonical ones from BaseCache.
  std::function<absl::StatusOr<std::shared_ptr<const KvSpan>>(const PromptSegment&)> base;
};

// A placeholder of a call that is to be audited, when there is time.
struct DueAudit {
  offset::PoolName pool;
  size_t segment = 0;  // of the decision
  bool probe = false;  // it was suspended, and computed densely
};

struct ReuseAnswer {
  AssembledKv kv;  // of all tokens
  Logits logits;   // of the last one
  ReuseDecision decision;
  std::vector<ScoredToken> left;  // for DecodeRepair
  double operations = 0;          // of the pass; bases are not counted
  int64_t bases_computed = 0;     // tokens of canonical bases that were computed for this prompt
  std::vector<DueAudit> audits;   // for ReuseRunner::Audit
};

// Threads: any, each with a model of its own, all of the same weights.
class ReuseRunner {
 public:
  // The pools must outlive it.
  ReuseRunner(const TenantSalt& salt, const Fingerprint& model, const ReuseOptions& options,
              OffsetPools& pools);

  const ReuseOptions& options() const { return options_; }

  // `cache` has room for all tokens. Errors of a prompt whose segments are not the whole prompt,
  // and of the model. `decided`: another rank's decision about the same prompt, to be followed;
  // FailedPrecondition where that cannot be done here, and then all ranks must compute densely.
  absl::StatusOr<ReuseAnswer> Run(Model& model, const ReuseInput& input, KvCache cache,
                                  const ReuseDecision* decided = nullptr);

  // What Run would find and decide, nothing of it done: for a scheduler, or the first rank.
  absl::StatusOr<ReuseDecision> Plan(Model& model, const ReuseInput& input);

  // Reuse now, exact later: what an idle worker does with a prompt that was answered
  // approximately. Computes it densely and learns from it; what is returned may be stored.
  absl::StatusOr<AssembledKv> ComputeExact(Model& model, const OffsetPrompt& prompt);
  // Also has the pools find their own error, which they do when they are asked for the first time:
  // now, and not while the next prompt waits. Errors as Kvcomm::Learn's.
  absl::Status Learn(Model& model, const OffsetPrompt& prompt, const DenseContext& dense);
  // What an idle worker does with a call that has audits due: computes it densely and tells the
  // audit how it would have been. Errors of the model.
  absl::Status Audit(Model& model, const ReuseInput& input, const ReuseAnswer& answer);
  // Computes the canonical bases that are not kept: where compute_bases is false, what an idle
  // worker does so that the next prompt with these fillings finds them. Returns their tokens.
  absl::StatusOr<int64_t> ComputeBases(Model& model, const OffsetPrompt& prompt);

  BaseCache& bases() { return bases_; }
  ReuseCounts counts() const;

 private:
  struct Found;

  // With a decision that is followed nothing is looked for that it does not use.
  absl::StatusOr<std::vector<Found>> Find(Model& model, const ReuseInput& input,
                                          const ReuseDecision* decided = nullptr);
  void FindBases(Model& model, const ReuseInput& input, Found& found, const PromptSegment& filling,
                 const PromptSegment* joint);
  void MakeQuestion(const ReuseInput& input, Found& found, const PromptSegment& filling,
                    const PromptSegment& joint);
  void Judge(Found& found) const;
  // Suspends what the audit does not trust, and notes what is due.
  std::vector<DueAudit> AskAudit(std::vector<Found>& found) const;
  absl::StatusOr<ReuseAnswer> Execute(Model& model, const ReuseInput& input,
                                      std::vector<Found>& found, ReuseDecision decision,
                                      KvCache cache);
  absl::StatusOr<ReuseAnswer> Densely(Model& model, const ReuseInput& input, ReuseDecision decision,
                                      KvCache cache);
  void Count(const ReuseDecision& decision);

  const TenantSalt salt_;
  const Fingerprint model_;
  const ReuseOptions options_;
  OffsetPools& pools_;
  Kvcomm kvcomm_;  // learns
  BaseCache bases_;
  mutable std::mutex mutex_;
  ReuseCounts counts_;
};

// Rates of this model on this machine, from a short calibration (three prefills and some moving of
// rows; each the faster of two). The store's rates are the caller's to fill in. Errors as the
// model's.
absl::StatusOr<ReuseRates> MeasureReuseRates(Model& model);

}  // namespace kedge
