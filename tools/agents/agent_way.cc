#include "tools/agents/agent_way.h"

#include <time.h>

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gpu/kernels/sampling.h"

namespace kedge {
namespace {

constexpr int64_t kAnchors = 20;

// Computes `count` tokens greedily behind what the cache holds, KV of all of them included.
absl::StatusOr<std::vector<int32_t>> Decode(Model& model, KvCache& cache, Logits logits,
                                            int64_t count) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i) {
    tokens.push_back(kernels::ArgMax(logits.row(logits.rows() - 1)));
    absl::StatusOr<Logits> next = model.Decode(tokens.back(), cache);
    if (!next.ok()) return next.status();
    logits = *std::move(next);
  }
  return tokens;
}

void FillByChance(KvSpan& span, std::mt19937& random) {
  // bf16 or fp32 of size 1 either way: an exponent that is harmless in both.
  for (auto* bytes : {&span.keys, &span.values})
    for (size_t i = 0; i < bytes->size(); ++i)
      (*bytes)[i] = i % 2 == 1 ? 0x3e : static_cast<uint8_t>(random());
}

offset::KvRows RowsByChance(int64_t layers, int64_t tokens, int64_t width, std::mt19937& random) {
  offset::KvRows rows = offset::KvRows::Of(layers, tokens, width);
  for (auto* values : {&rows.keys, &rows.values})
    for (float& value : *values) value = static_cast<float>(random() % 1024) / 1024.0f - 0.5f;
  return rows;
}

}  // namespace

double Seconds(bool one_thread) {
  timespec time{};
  ::clock_gettime(one_thread ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

absl::StatusOr<std::vector<AgentTurn>> MakeTurns(Model& model, const AgentWorkload& workload,
                                                 int64_t first, int64_t requests, bool decode) {
  const AgentOptions& options = workload.options();
  std::mt19937 random(7);
  std::vector<AgentTurn> turns;
  for (int64_t r = first; r < first + requests; ++r) {
    const absl::StatusOr<AgentRequest> request = workload.Request(r);
    if (!request.ok()) return request.status();
    std::vector<std::vector<int32_t>> messages;
    std::vector<std::shared_ptr<const KvSpan>> produced;
    for (int64_t agent = 0; agent < options.agents; ++agent) {
      AgentTurn turn{.request = r,
                     .agent = agent,
                     .prompt = workload.Prompt(agent, *request, messages),
                     .produced = produced};
      for (const AgentFact& fact : request->facts) {
        turn.asked.push_back(workload.Prompt(agent, *request, messages, fact.ask));
        turn.answers.push_back(fact.answer);
      }
      const auto length = static_cast<int64_t>(turn.prompt.tokens.size());
      if (decode) {
        absl::StatusOr<KvCache> cache = model.NewCache(length + options.output_tokens);
        if (!cache.ok()) return cache.status();
        absl::StatusOr<Logits> logits = model.Prefill(turn.prompt.tokens, *cache);
        if (!logits.ok()) return logits.status();
        auto message = Decode(model, *cache, *std::move(logits), options.output_tokens);
        if (!message.ok()) return message.status();
        absl::StatusOr<KvSpan> span = LiftSpan(model, *cache, length, options.output_tokens);
        if (!span.ok()) return span.status();
        messages.push_back(*std::move(message));
        produced.push_back(std::make_shared<const KvSpan>(*std::move(span)));
      } else {
        std::vector<int32_t> message;
        for (int64_t i = 0; i < options.output_tokens; ++i)
          message.push_back(static_cast<int32_t>(random() % model.config().vocabulary));
        auto span = std::make_shared<KvSpan>(MakeSpan(model, options.output_tokens));
        FillByChance(*span, random);
        messages.push_back(std::move(message));
        produced.push_back(std::move(span));
      }
      turns.push_back(std::move(turn));
    }
  }
  return turns;
}

AgentWay::AgentWay(Model& model, const AgentWorkload& workload, const WayOptions& options)
    : model_(model),
      options_(options),
      exact_tokens_(options.name == "dense" ? 0
                                            : workload.options().prefix_tokens /
                                                  model.block_tokens() * model.block_tokens()) {
  ReuseOptions reuse;
  reuse.rates = options.rates;
  reuse.rules.config = options.recompute;
  reuse.compute_bases = false;
  reuse.offsets.gate.off = options.gate_off || options.name == "kvcomm-nogate";
  const std::string& name = options.name;
  const absl::Status off = absl::FailedPreconditionError("not this way");
  if (name == "dense" || name == "prefix") reuse.rules.exact_only = true;
  if (name == "cacheblend" || name == "dhd" || name == "none") reuse.rules.offsets = off;
  if (name == "kvcomm" || name == "kvcomm-nogate" || name == "linear") reuse.rules.recompute = off;
  LocalPoolsOptions pools;
  pools.pool.capacity = kAnchors;
  if (name == "linear") pools.method = OffsetMethod::kLinear;
  if (options.pools == nullptr) own_pools_ = std::make_unique<LocalPools>(pools);
  pools_ = options.pools != nullptr ? options.pools : own_pools_.get();
  runner_ = std::make_unique<ReuseRunner>(TenantSalt{}, Fingerprint{}, reuse, *pools_);
}

OffsetPrompt AgentWay::PromptOf(const AgentTurn& turn, const AgentPrompt& prompt) const {
  OffsetPrompt made{
      .consumer = absl::StrCat("agent", turn.agent), .tokens = prompt.tokens, .lead = 1};
  for (const AgentPiece& piece : prompt.pieces) {
    PromptSegment segment{.filling = piece.filling, .first = piece.first, .count = piece.count};
    if (piece.filling) segment.placeholder = absl::StrCat(piece.placeholder);
    if (piece.filling && piece.placeholder > 0) {
      segment.produced = turn.produced[piece.placeholder - 1].get();
      segment.producer = {static_cast<uint8_t>(piece.placeholder),
                          static_cast<uint8_t>(turn.request)};
    }
    made.segments.push_back(std::move(segment));
  }
  return made;
}

absl::Status AgentWay::Prepare(const std::vector<AgentTurn>& turns) {
  if (exact_tokens_ == 0) return absl::OkStatus();
  for (const AgentTurn& turn : turns) {
    if (prefixes_.contains(turn.agent)) continue;
    absl::StatusOr<KvCache> cache = model_.NewCache(exact_tokens_);
    if (!cache.ok()) return cache.status();
    const std::span<const int32_t> role(turn.prompt.tokens.data(),
                                        static_cast<size_t>(exact_tokens_));
    if (absl::Status s = model_.Prefill(role, *cache).status(); !s.ok()) return s;
    prefixes_[turn.agent] = std::make_shared<const KvCache>(*std::move(cache));
  }
  return absl::OkStatus();
}

void AgentWay::Forget(const AgentTurn& turn) {
  for (const AgentPiece& piece : turn.prompt.pieces) {
    if (!piece.filling || piece.placeholder != 0) continue;
    const std::span<const int32_t> tokens(turn.prompt.tokens);
    runner_->bases().Forget(tokens.first(1), tokens.subspan(piece.first, piece.count));
  }
}

absl::StatusOr<KvCache> AgentWay::StartOf(const AgentTurn& turn, const AgentPrompt& prompt) const {
  const auto capacity = static_cast<int64_t>(prompt.tokens.size()) + 8;
  if (exact_tokens_ == 0) return model_.NewCache(capacity);
  return model_.Fork(*prefixes_.at(turn.agent), exact_tokens_, capacity);
}

absl::StatusOr<TurnResult> AgentWay::Run(const AgentTurn& turn, const AgentPrompt& prompt,
                                         const std::vector<Treatment>* treatments) {
  const ReuseInput input{.prompt = PromptOf(turn, prompt),
                         .exact_tokens = exact_tokens_,
                         .queries = options_.recompute.policy == RecomputePolicy::kDhd
                                        ? prompt.pieces.back().count
                                        : 0};
  std::optional<ReuseDecision> decided;
  if (treatments != nullptr) {
    absl::StatusOr<ReuseDecision> planned = runner_->Plan(model_, input);
    if (!planned.ok()) return planned.status();
    decided = *std::move(planned);
    if (decided->segments.size() != treatments->size())
      return absl::InternalError("a decision about another number of segments");
    for (size_t i = 0; i < treatments->size(); ++i)
      decided->segments[i].treatment = (*treatments)[i];
  }
  const bool one_thread = model_.device().threads() == 1;
  const double start = Seconds(one_thread);
  absl::StatusOr<KvCache> cache = StartOf(turn, prompt);
  if (!cache.ok()) return cache.status();
  absl::StatusOr<ReuseAnswer> answer =
      runner_->Run(model_, input, *std::move(cache), decided ? &*decided : nullptr);
  if (!answer.ok()) return answer.status();
  const int32_t token = kernels::ArgMax(answer->logits.row(answer->logits.rows() - 1));
  return TurnResult{.seconds = Seconds(one_thread) - start,
                    .decision = std::move(answer->decision),
                    .operations = answer->operations,
                    .bases_computed = answer->bases_computed,
                    .token = token};
}

absl::StatusOr<double> AgentWay::Idle(const AgentTurn& turn) {
  if (options_.name == "dense" || options_.name == "prefix") return 0.0;
  const bool one_thread = model_.device().threads() == 1;
  const double start = Seconds(one_thread);
  const absl::Status s = runner_->ComputeBases(model_, PromptOf(turn, turn.prompt)).status();
  if (!s.ok()) return s;
  return Seconds(one_thread) - start;
}

absl::StatusOr<std::vector<std::vector<int32_t>>> AgentWay::Said(const AgentTurn& turn) {
  std::vector<std::vector<int32_t>> answers;
  for (size_t i = 0; i < turn.asked.size(); ++i) {
    absl::StatusOr<KvCache> cache = StartOf(turn, turn.asked[i]);
    if (!cache.ok()) return cache.status();
    const ReuseInput input{.prompt = PromptOf(turn, turn.asked[i]), .exact_tokens = exact_tokens_};
    absl::StatusOr<ReuseAnswer> answer = runner_->Run(model_, input, *std::move(cache));
    if (!answer.ok()) return answer.status();
    std::vector<int32_t> said;
    Logits logits = std::move(answer->logits);
    while (true) {
      said.push_back(kernels::ArgMax(logits.row(logits.rows() - 1)));
      if (said.size() >= turn.answers[i].size()) break;
      absl::StatusOr<Logits> next = answer->kv.Decode(model_, said.back());
      if (!next.ok()) return next.status();
      logits = *std::move(next);
    }
    answers.push_back(std::move(said));
  }
  return answers;
}

absl::StatusOr<std::vector<bool>> AgentWay::Answers(const AgentTurn& turn) {
  absl::StatusOr<std::vector<std::vector<int32_t>>> said = Said(turn);
  if (!said.ok()) return said.status();
  std::vector<bool> right;
  for (size_t i = 0; i < said->size(); ++i) right.push_back((*said)[i] == turn.answers[i]);
  return right;
}

absl::Status AgentWay::Learn(const AgentTurn& turn) {
  absl::StatusOr<DenseContext> dense = DenseContext::Compute(model_, turn.prompt.tokens);
  if (!dense.ok()) return dense.status();
  return runner_->Learn(model_, PromptOf(turn, turn.prompt), *dense);
}

absl::Status AgentWay::LearnRandom(const std::vector<AgentTurn>& turns, int64_t count) {
  std::mt19937 random(11);
  const ModelConfig& config = model_.config();
  const int64_t width = config.kv_heads * config.head_size;
  std::vector<int64_t> learnt;
  for (const AgentTurn& turn : turns) {
    if (std::find(learnt.begin(), learnt.end(), turn.agent) != learnt.end()) continue;
    learnt.push_back(turn.agent);
    const OffsetPrompt prompt = PromptOf(turn, turn.prompt);
    for (size_t i = 0; i + 1 < prompt.segments.size(); ++i) {
      const PromptSegment& filling = prompt.segments[i];
      const PromptSegment& joint = prompt.segments[i + 1];
      if (!filling.filling) continue;
      const auto kind =
          filling.produced != nullptr ? offset::BaseKind::kProduced : offset::BaseKind::kCanonical;
      const offset::KvRows base = RowsByChance(config.layers, filling.count, width, random);
      const offset::KvRows text = RowsByChance(config.layers, joint.count, width, random);
      for (int64_t anchor = 0; anchor < count; ++anchor) {
        OffsetLesson lesson{.pool = {prompt.consumer, filling.placeholder, kind},
                            .filling_base = &base,
                            .prefix_base = &text};
        const std::vector<int32_t> name = {static_cast<int32_t>(anchor)};
        lesson.anchor.key = offset::AnchorKey({}, {}, lesson.pool, name);
        lesson.anchor.kind = kind;
        lesson.anchor.prefix_digest =
            offset::TokensDigest(prompt.tokens.subspan(joint.first, joint.count));
        lesson.anchor.context_digest = static_cast<uint64_t>(anchor);
        lesson.anchor.filling = RowsByChance(config.layers, filling.count, width, random);
        lesson.anchor.prefix = RowsByChance(config.layers, joint.count, width, random);
        lesson.anchor.sketch = offset::SketchOf(lesson.anchor.filling);
        if (absl::Status s = pools_->Learn(std::move(lesson)); !s.ok()) return s;
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace kedge
