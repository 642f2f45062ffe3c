// Pruned chains (gpu/codec/pruned_chain.h): of the dense KV's whole blocks every layer keeps the
// tokens that the chain chooses, encoded, before any question is known; the tokens behind the last
// whole block are computed over what came back. Layer budgets and query statistics are the
// profile's, or, without one, learned from the calibration contexts.
//
// And what a choice has to be held against, at the budgets of prefixkvB:
//
//     randomB...    the same tokens of one random order in every layer
//     oracleB...    what the questions and their right answers look at: the most attention that any
//                   head gives in any of them. Knows what will be asked; no store can do that
//     askedB...     the same of the questions without their answers: what a session may do with KV
//                   that is its own, as the papers do
#include <algorithm>
#include <atomic>
#include <cstring>
#include <numeric>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gpu/codec/pruned_chain.h"
#include "gpu/kernels/column_mass.h"
#include "gpu/model/prune_profile.h"
#include "gpu/model/score_capture.h"
#include "tests/quality/policies.h"

namespace kedge::quality {
namespace {

using codec::Kept;
using codec::PrunedChain;
using codec::TokenScores;

// Of a task's calibration contexts: curves and statistics are settled by then.
constexpr size_t kProfileContexts = 8;

enum class Choice { kChain, kRandom, kOracle, kAsked };
struct ChoiceName {
  Choice choice;
  std::string_view prefix;
};
constexpr ChoiceName kChoices[] = {{Choice::kChain, "prefixkv"},
                                   {Choice::kChain, "uniform"},
                                   {Choice::kRandom, "random"},
                                   {Choice::kOracle, "oracle"},
                                   {Choice::kAsked, "asked"}};

int64_t WholeTokens(const Model& model, const EvalContext& context) {
  const auto length = static_cast<int64_t>(context.tokens.size());
  return length - length % model.block_tokens();
}

// Prefills the context's whole blocks alone, as their key names them, and captures.
absl::StatusOr<codec::ScoreSidecar> Captured(Model& model, const EvalContext& context,
                                             int64_t window) {
  const int64_t whole = WholeTokens(model, context);
  ScoreCapture capture(model, whole, window);
  PrefillOptions options;
  capture.Attach(options);
  absl::StatusOr<KvCache> cache = model.NewCache(whole);
  if (!cache.ok()) return cache.status();
  const std::span<const int32_t> tokens = std::span(context.tokens).first(whole);
  if (absl::Status s = model.Prefill(tokens, *cache, options).status(); !s.ok()) return s;
  return capture.Finish();
}

class PrunedPolicy : public KvPolicy {
 public:
  PrunedPolicy(std::string name, std::string chain, Choice choice)
      : name_(std::move(name)), chain_name_(std::move(chain)), choice_(choice) {}

  std::string name() const override { return name_; }

  absl::Status UseProfile(const ModelProfile& profile) {
    absl::StatusOr<PrunedChain> chain = PrunedChain::Parse(chain_name_, &profile);
    if (!chain.ok()) return chain.status();
    chain_ = *std::move(chain);
    return absl::OkStatus();
  }

  absl::Status Calibrate(Model& model, const std::vector<EvalContext>& calibration) override {
    if (chain_) return absl::OkStatus();
    PruneProfiler profiler(model);
    for (size_t i = 0; i < std::min(calibration.size(), kProfileContexts); ++i)
      if (absl::Status s = profiler.Add(model, calibration[i].tokens); !s.ok()) return s;
    absl::StatusOr<codec::PruneProfile> profile = profiler.Build();
    if (!profile.ok()) return profile.status();
    absl::StatusOr<PrunedChain> chain = PrunedChain::Make(chain_name_, *std::move(profile));
    if (!chain.ok()) return chain.status();
    chain_ = *std::move(chain);
    return absl::OkStatus();
  }

  // Parts with the positions in them, and the sidecar where there is one.
  double BitsPerValue(const Model&, int64_t) const override {
    if (values_ == 0) return 0.0;
    return 8.0 * static_cast<double>(bytes_) / static_cast<double>(values_);
  }

  absl::StatusOr<PolicyKv> Obtain(Model& model, const PolicyInput& input) const override {
    if (!chain_) {
      return absl::FailedPreconditionError(
          absl::StrCat(name_, ": neither a profile nor calibration contexts"));
    }
    const auto length = static_cast<int64_t>(input.context.tokens.size());
    codec::SequenceTask task{.shape = model.kv_shape(),
                             .tokens = WholeTokens(model, input.context)};
    absl::StatusOr<KvCache> cache = model.NewCache(input.capacity);
    if (!cache.ok()) return cache.status();
    if (task.tokens > 0) {
      const kernels::RopeTable rope = model.RopeTableAt(0, task.tokens);
      const kernels::RopeTable ahead = model.RopeTableAt(task.tokens, codec::kQueriesAhead);
      task.rope = &rope;
      task.ahead = &ahead;
      const absl::StatusOr<Kept> kept = Choose(model, task, input);
      if (!kept.ok()) return kept.status();
      if (absl::Status s = ThereAndBack(task, *kept, input.dense, *cache); !s.ok()) return s;
    }
    if (task.tokens < length) {
      absl::Status s = model.Prefill(input.context.tokens, *cache).status();
      if (!s.ok()) return s;
    }
    return PolicyKv{
        .cache = *std::move(cache), .provenance = KvProvenance::kExact, .lossless = false};
  }

 private:
  absl::StatusOr<Kept> Choose(Model& model, const codec::SequenceTask& task,
                              const PolicyInput& input) const {
    if (choice_ == Choice::kRandom) return chain_->ChooseBy(task, RandomScores(task, input));
    if (choice_ == Choice::kOracle || choice_ == Choice::kAsked) {
      const absl::StatusOr<TokenScores> scores = AskedScores(model, task, input);
      if (!scores.ok()) return scores.status();
      return chain_->ChooseBy(task, *scores);
    }
    std::optional<codec::ScoreSidecar> sidecar;
    if (chain_->needs_sidecar()) {
      const int64_t window = chain_->score() == codec::ScoreKind::kSum ? 0 : codec::kScoreWindow;
      absl::StatusOr<codec::ScoreSidecar> captured = Captured(model, input.context, window);
      if (!captured.ok()) return captured.status();
      sidecar = *std::move(captured);
      bytes_ += static_cast<int64_t>(sidecar->encoded_bytes());
    }
    const auto source = [&](int64_t layer, Component component) {
      return input.dense.PartSpan(layer, component, 0, task.tokens);
    };
    return chain_->Choose(task, source, sidecar ? &*sidecar : nullptr);
  }

  static TokenScores RandomScores(const codec::SequenceTask& task, const PolicyInput& input) {
    TokenScores scores = TokenScores::Zeros(task.shape.layer_count, 1, task.tokens);
    uint32_t state = 1;
    for (const int32_t token : input.context.tokens)
      state = state * 1664525u + static_cast<uint32_t>(token) + 1013904223u;
    for (int64_t t = 0; t < task.tokens; ++t) {
      state = state * 1664525u + 1013904223u;
      for (int64_t layer = 0; layer < scores.layers; ++layer)
        scores.of(layer, 0)[t] = static_cast<float>(state >> 8);
    }
    return scores;
  }

  // The most that any head of the layer gives a token, a row on average, in any of the questions.
  absl::StatusOr<TokenScores> AskedScores(Model& model, const codec::SequenceTask& task,
                                          const PolicyInput& input) const {
    const EvalContext& context = input.context;
    TokenScores scores = TokenScores::Zeros(task.shape.layer_count, 1, task.tokens);
    for (const EvalQuestion& question : context.questions) {
      std::vector<int32_t> tokens = context.tokens;
      tokens.insert(tokens.end(), question.tokens.begin(), question.tokens.end());
      if (choice_ == Choice::kOracle)
        tokens.insert(tokens.end(), question.answer.begin(), question.answer.end() - 1);
      const auto length = static_cast<int64_t>(tokens.size());
      const auto asked = static_cast<int64_t>(context.tokens.size());
      std::vector<float> mass(scores.layers * model.config().heads * length);
      PrefillOptions options;
      options.on_attention_done = [&](int64_t layer, const kernels::AttentionArgs& args) {
        kernels::ColumnMass(model.device(), args, 0, length,
                            mass.data() + layer * args.heads * length);
      };
      absl::StatusOr<KvCache> cache = model.Fork(input.dense, asked, length);
      if (!cache.ok()) return cache.status();
      if (absl::Status s = model.Prefill(tokens, *cache, options).status(); !s.ok()) return s;
      for (size_t i = 0; i < mass.size(); ++i) {
        const auto token = static_cast<int64_t>(i) % length;
        if (token >= task.tokens) continue;
        const int64_t layer = static_cast<int64_t>(i) / (model.config().heads * length);
        float& score = scores.of(layer, 0)[token];
        score = std::max(score, mass[i] / static_cast<float>(length - asked));
      }
    }
    return scores;
  }

  absl::Status ThereAndBack(const codec::SequenceTask& task, const Kept& kept, const KvCache& dense,
                            KvCache& cache) const {
    Kept read;
    std::vector<std::vector<uint8_t>> parts;
    for (int64_t layer = 0; layer < task.shape.layer_count; ++layer) {
      for (const Component component : {Component::kK, Component::kV}) {
        absl::StatusOr<std::vector<uint8_t>> part = chain_->EncodePart(
            task, layer, component, kept[layer], dense.PartSpan(layer, component, 0, task.tokens));
        if (!part.ok()) return part.status();
        bytes_ += static_cast<int64_t>(part->size());
        parts.push_back(*std::move(part));
      }
      absl::StatusOr<std::vector<int32_t>> positions =
          chain_->ReadKept(task, layer, parts[2 * layer]);
      if (!positions.ok()) return positions.status();
      read.push_back(*std::move(positions));
    }
    values_ += task.tokens * task.shape.part_count() * task.shape.kv_heads * task.shape.head_size;
    if (absl::Status s = cache.SetPruned(task.tokens, read); !s.ok()) return s;
    for (int64_t layer = 0; layer < task.shape.layer_count; ++layer) {
      for (const Component component : {Component::kK, Component::kV}) {
        const size_t index = 2 * layer + (component == Component::kV ? 1 : 0);
        absl::Status s = chain_->DecodePart(task, layer, component, read[layer], parts[index],
                                            cache.PartSpan(layer, component, 0, cache.rows(layer)));
        if (!s.ok()) return s;
      }
    }
    return absl::OkStatus();
  }

  const std::string name_;
  const std::string chain_name_;
  const Choice choice_;
  std::optional<PrunedChain> chain_;  // once there is a profile
  // What Obtain has encoded so far.
  mutable std::atomic<int64_t> bytes_ = 0;
  mutable std::atomic<int64_t> values_ = 0;
};

}  // namespace

bool IsPrunedPolicy(const std::string& name) {
  return std::any_of(std::begin(kChoices), std::end(kChoices), [&](const ChoiceName& choice) {
    return name.compare(0, choice.prefix.size(), choice.prefix.data(), choice.prefix.size()) == 0;
  });
}

absl::StatusOr<std::unique_ptr<KvPolicy>> MakePrunedPolicy(const std::string& name,
                                                           const ModelProfile* profile) {
  for (const ChoiceName& choice : kChoices) {
    const std::string prefix(choice.prefix);
    if (name.compare(0, prefix.size(), prefix) != 0) continue;
    const std::string chain =
        choice.choice == Choice::kChain ? name : "prefixkv" + name.substr(prefix.size());
    // The name, before there is a profile: any layer budgets and query statistics will do.
    codec::PruneProfile any{.queries = codec::QueryStats{}};
    any.budgets.curves.push_back({0.0, 1.0});
    absl::Status s = PrunedChain::Make(chain, std::move(any), profile).status();
    if (!s.ok()) return s;
    auto policy = std::make_unique<PrunedPolicy>(name, chain, choice.choice);
    const bool learned = profile != nullptr && profile->Section(codec::kPrefixKvSection).ok();
    if (learned) s = policy->UseProfile(*profile);
    if (!s.ok()) return s;
    return policy;
  }
  return absl::InvalidArgumentError(absl::StrCat("policy: '", name, "' prunes nothing"));
}

}  // namespace kedge::quality
