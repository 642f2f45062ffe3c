// auto: what client/reuse decides (reuse.h). Fillings whose offsets the gate accepts are corrected,
// the others moved and some of their tokens computed anew, and whatever would cost more than
// computing it is dense. Pools have learnt from the calibration contexts of the same consumer.
//
//     auto                      offsets as kvcomm's, and cacheblend0.15@3
//     auto-linear               offsets by linear maps
//     auto-nogate               whatever can be calculated is accepted (ablation)
//     auto+deviation0.15@4      another way of recomputing; auto+none: offsets or dense
//
// Costs are counted in operations, not measured: decisions are the same on every machine. No
// profile is asked; what is measured here is what a profile would say.
#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/reuse/local_pools.h"
#include "client/reuse/reuse_runner.h"
#include "tests/quality/offset_prompt.h"
#include "tests/quality/policies.h"

namespace kedge::quality {
namespace {

constexpr int64_t kAnchors = 20;
// Check layer 2 still loses a third of role's answers on the shipped models (client/README.md).
constexpr char kRecompute[] = "cacheblend0.15@3";

struct AutoName {
  LocalPoolsOptions pools;
  KvcommOptions offsets;
  bool recomputes = true;
  RecomputeConfig config;
};

absl::StatusOr<AutoName> ParseName(const std::string& text) {
  AutoName name;
  name.pools.pool.capacity = kAnchors;
  const std::vector<std::string> halves = absl::StrSplit(text, absl::MaxSplits('+', 1));
  const std::vector<std::string> words = absl::StrSplit(halves[0], '-');
  for (size_t i = 1; i < words.size(); ++i) {
    if (words[i] == "linear") {
      name.pools.method = OffsetMethod::kLinear;
    } else if (words[i] == "nogate") {
      name.offsets.gate.off = true;
    } else {
      return absl::InvalidArgumentError(
          absl::StrCat("policy: no variant '", words[i], "' of ", text));
    }
  }
  const std::string recompute = halves.size() > 1 ? halves[1] : kRecompute;
  name.recomputes = recompute != "none";
  if (!name.recomputes) return name;
  absl::StatusOr<RecomputeConfig> config = RecomputeConfigOf(recompute);
  if (!config.ok()) return config.status();
  name.config = *config;
  return name;
}

// Operations, as seconds of a machine that does a thousand million.
ReuseRates CountedRates(const ModelConfig& config) {
  const auto project = static_cast<double>((config.heads + 2 * config.kv_heads) * config.head_size);
  const auto finish =
      static_cast<double>(config.heads * config.head_size + 3 * config.intermediate_size);
  const auto layers = static_cast<double>(config.layers);
  const auto width = static_cast<double>(config.kv_heads * config.head_size);
  return {
      .layers = config.layers,
      .token = 1e-9 * layers * 2.0 * static_cast<double>(config.hidden_size) * (project + finish),
      .token_key = 1e-9 * layers * 4.0 * static_cast<double>(config.heads * config.head_size),
      .projection_share = project / (project + finish),
      .place = 1e-9 * layers * 6.0 * width,
      .correct = 1e-9 * layers * (6.0 + 4.0 * kAnchors) * width};
}

class AutoPolicy : public KvPolicy {
 public:
  AutoPolicy(std::string name, const AutoName& parsed) : name_(std::move(name)), parsed_(parsed) {}

  std::string name() const override { return name_; }

  absl::Status Calibrate(Model& model, const std::vector<EvalContext>& calibration) override {
    ReuseOptions options;
    options.offsets = parsed_.offsets;
    options.rules.config = parsed_.config;
    if (!parsed_.recomputes)
      options.rules.recompute = absl::FailedPreconditionError("not asked for");
    options.rates = CountedRates(model.config());
    reuse_.reset();
    pools_ = std::make_unique<LocalPools>(parsed_.pools);
    reuse_ = std::make_unique<ReuseRunner>(TenantSalt{}, Fingerprint{}, options, *pools_);
    std::map<std::string, int64_t> learnt;
    for (const EvalContext& context : calibration) {
      if (learnt[context.consumer]++ >= kAnchors) continue;
      absl::StatusOr<DenseContext> dense = DenseContext::Compute(model, context.tokens);
      if (!dense.ok()) return dense.status();
      absl::Status s = reuse_->Learn(model, PromptOf(context), *dense);
      if (!s.ok()) return s;
    }
    return absl::OkStatus();
  }

  absl::StatusOr<PolicyKv> Obtain(Model& model, const PolicyInput& input) const override {
    if (reuse_ == nullptr)
      return absl::FailedPreconditionError(name_ + ": learns from calibration contexts");
    absl::StatusOr<KvCache> cache = model.NewCache(input.capacity);
    if (!cache.ok()) return cache.status();
    absl::StatusOr<ReuseAnswer> answer =
        reuse_->Run(model, {.prompt = PromptOf(input.context)}, *std::move(cache));
    if (!answer.ok()) return answer.status();
    Add(model, input.context, *answer);
    auto [kv, log] = std::move(answer->kv).Take();
    const bool exact = log.publishable_tokens() == log.tokens();
    return PolicyKv{.cache = std::move(kv), .provenance = Named(log.worst()), .lossless = exact};
  }

  double AcceptedShare() const override { return Share(accepted_, asked_); }
  double ReusedShare() const override { return Share(reused_, fillings_); }
  double OperationsShare() const override { return Share(operations_, dense_); }

 private:
  static KvProvenance Named(Provenance provenance) {
    switch (provenance) {
      case Provenance::kExact:
        return KvProvenance::kExact;
      case Provenance::kDense:
        return KvProvenance::kDense;
      case Provenance::kCorrected:
        return KvProvenance::kCorrected;
      case Provenance::kRecomputed:
        return KvProvenance::kRecomputed;
      case Provenance::kMoved:
        break;
    }
    return KvProvenance::kMoved;
  }
  double Share(const double& part, const double& whole) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return whole > 0 ? part / whole : 0.0;
  }
  void Add(const Model& model, const EvalContext& context, const ReuseAnswer& answer) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const EvalPiece& piece : context.pieces) {
      if (!piece.filling || piece.count == 0) continue;
      fillings_ += static_cast<double>(piece.count);
      ++asked_;
      for (const SegmentDecision& segment : answer.decision.segments)
        accepted_ += segment.first == piece.first && segment.treatment == Treatment::kCorrected;
    }
    // Text behind a corrected filling is corrected with it, and counts here as in `asked`: not.
    for (const SegmentDecision& segment : answer.decision.segments) {
      const bool filling =
          std::any_of(context.pieces.begin(), context.pieces.end(),
                      [&](const EvalPiece& p) { return p.filling && p.first == segment.first; });
      if (!filling) continue;
      const auto count = static_cast<double>(segment.count);
      if (segment.treatment == Treatment::kCorrected) reused_ += count;
      if (segment.treatment == Treatment::kRecomputed)
        reused_ += count * (1.0 - answer.decision.recompute.ratio);
    }
    operations_ += answer.operations;
    dense_ += DenseOperations(model.config(), static_cast<int64_t>(context.tokens.size()));
  }

  const std::string name_;
  const AutoName parsed_;
  std::unique_ptr<LocalPools> pools_;
  std::unique_ptr<ReuseRunner> reuse_;
  mutable std::mutex mutex_;
  mutable double accepted_ = 0;
  mutable double asked_ = 0;
  mutable double reused_ = 0;
  mutable double fillings_ = 0;
  mutable double operations_ = 0;
  mutable double dense_ = 0;
};

}  // namespace

bool IsAutoPolicy(const std::string& name) {
  return name.substr(0, name.find_first_of("-+")) == "auto";
}

absl::StatusOr<std::unique_ptr<KvPolicy>> MakeAutoPolicy(const std::string& name) {
  absl::StatusOr<AutoName> parsed = ParseName(name);
  if (!parsed.ok()) return parsed.status();
  return std::make_unique<AutoPolicy>(name, *parsed);
}

}  // namespace kedge::quality
