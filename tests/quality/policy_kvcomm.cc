// kvcomm, linear: fillings from their canonical base KV (computed alone, as `none` does), brought
// into the consumer's context by offsets that were learnt from the calibration contexts of the same
// consumer (client/reuse/kvcomm.h). What the gate refuses is computed densely.
//
// A name is kvcomm or linear and any of these, each behind a '-':
//
//     nearest, mean     instead of the mixture (kvcomm)
//     token             weights by token (kvcomm)
//     paper             the paper's gate: entropy at most 0.3, of weights that are nearly one-hot
//     nogate            whatever can be calculated is accepted
//     norotate, nofilling, noprefix   one of the three alignments off
//     nN                at most N calibration contexts a consumer (20)
//     rN                maps of rank N (linear)
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/reuse/kvcomm.h"
#include "client/reuse/local_pools.h"
#include "tests/quality/offset_prompt.h"
#include "tests/quality/policies.h"

namespace kedge::quality {
namespace {

constexpr int64_t kAnchors = 20;

struct Choice {
  KvcommOptions options;
  LocalPoolsOptions pools;
  int64_t contexts = kAnchors;
};

// False when there is no such variant.
bool Apply(const std::string& word, Choice& choice) {
  KvcommOptions& options = choice.options;
  int64_t number = 0;
  const bool numbered = word.size() > 1 && absl::SimpleAtoi(word.substr(1), &number) && number > 0;
  if (word == "nearest") {
    options.mix.weighting = offset::Weighting::kNearest;
  } else if (word == "mean") {
    options.mix.weighting = offset::Weighting::kMean;
  } else if (word == "token") {
    options.mix.weighting = offset::Weighting::kToken;
  } else if (word == "paper") {
    // Sums over all layers and tokens, as in the authors' code, are this much larger.
    options.mix.sharpness = 100;
    options.gate.gamma = 0.3;
    options.gate.max_distance = options.gate.max_error = options.gate.max_token_error =
        std::numeric_limits<double>::infinity();
  } else if (word == "nogate") {
    options.gate.off = true;
  } else if (word == "norotate") {
    options.rotate = false;
  } else if (word == "nofilling") {
    options.filling_offset = false;
  } else if (word == "noprefix") {
    options.prefix_offset = false;
  } else if (numbered && word[0] == 'n') {
    choice.contexts = number;
  } else if (numbered && word[0] == 'r' && choice.pools.method == OffsetMethod::kLinear) {
    choice.pools.linear.rank = number;
  } else {
    return false;
  }
  return true;
}

class KvcommPolicy : public KvPolicy {
 public:
  KvcommPolicy(std::string name, const Choice& choice) : name_(std::move(name)), choice_(choice) {}

  std::string name() const override { return name_; }

  absl::Status Calibrate(Model& model, const std::vector<EvalContext>& calibration) override {
    LocalPoolsOptions options = choice_.pools;
    options.pool.capacity = choice_.contexts;
    kvcomm_.reset();
    pools_ = std::make_unique<LocalPools>(options);
    kvcomm_ = std::make_unique<Kvcomm>(TenantSalt{}, Fingerprint{}, choice_.options, *pools_);
    std::map<std::string, int64_t> learnt;
    for (const EvalContext& context : calibration) {
      if (learnt[context.consumer]++ >= choice_.contexts) continue;
      absl::StatusOr<DenseContext> dense = DenseContext::Compute(model, context.tokens);
      if (!dense.ok()) return dense.status();
      absl::Status s = kvcomm_->Learn(model, PromptOf(context), *dense);
      if (!s.ok()) return s;
    }
    return absl::OkStatus();
  }

  absl::StatusOr<PolicyKv> Obtain(Model& model, const PolicyInput& input) const override {
    if (kvcomm_ == nullptr)
      return absl::FailedPreconditionError(name_ + ": learns from calibration contexts");
    absl::StatusOr<KvCache> cache = model.NewCache(input.capacity);
    if (!cache.ok()) return cache.status();
    PolicyKv kv{.cache = *std::move(cache)};
    absl::StatusOr<std::vector<PlaceholderDecision>> decisions =
        kvcomm_->Apply(model, PromptOf(input.context), kv.cache);
    if (!decisions.ok()) return decisions.status();
    absl::Status s = model.Prefill(input.context.tokens, kv.cache).status();
    if (!s.ok()) return s;
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const PlaceholderDecision& decision : *decisions) {
      const bool accepted = decision.refusal == OffsetRefusal::kNone;
      if (accepted) kv.provenance = KvProvenance::kCorrected;
      accepted_ += accepted;
      ++asked_;
    }
    return kv;
  }

  double AcceptedShare() const override {
    const std::lock_guard<std::mutex> lock(mutex_);
    return asked_ == 0 ? 0.0 : static_cast<double>(accepted_) / static_cast<double>(asked_);
  }

 private:
  const std::string name_;
  const Choice choice_;
  std::unique_ptr<LocalPools> pools_;
  std::unique_ptr<Kvcomm> kvcomm_;
  mutable std::mutex mutex_;
  mutable int64_t accepted_ = 0;
  mutable int64_t asked_ = 0;
};

}  // namespace

bool IsOffsetPolicy(const std::string& name) {
  const std::string method = name.substr(0, name.find('-'));
  return method == "kvcomm" || method == "linear";
}

absl::StatusOr<std::unique_ptr<KvPolicy>> MakeOffsetPolicy(const std::string& name) {
  const std::vector<std::string> words = absl::StrSplit(name, '-');
  Choice choice;
  if (words[0] == "linear") choice.pools.method = OffsetMethod::kLinear;
  for (size_t i = 1; i < words.size(); ++i) {
    if (!Apply(words[i], choice))
      return absl::InvalidArgumentError(
          absl::StrCat("policy: no variant '", words[i], "' of ", name));
  }
  return std::make_unique<KvcommPolicy>(name, choice);
}

}  // namespace kedge::quality
