#include "client/reuse/blend.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace kedge {
absl::Status RunnerEngine::Begin(std::span<const int32_t> positions) {
  absl::StatusOr<Recomputation> run =
      Recomputation::Start(model_, tokens_, positions, cache_, wait_for_layer_);
  if (!run.ok()) return run.status();
  run_.emplace(*std::move(run));
  return absl::OkStatus();
}

absl::Status RunnerEngine::Project(int64_t) { return run_->Project(); }

absl::StatusOr<std::vector<float>> RunnerEngine::ValueDeviation(int64_t) {
  return run_->ValueDeviation();
}

absl::Status RunnerEngine::WriteKv(int64_t) {
  run_->WriteKv();
  return absl::OkStatus();
}

absl::StatusOr<std::vector<float>> RunnerEngine::AttentionOfLast(int64_t, int64_t queries) {
  const std::span<const int32_t> rows = run_->positions();
  const auto count = static_cast<int64_t>(rows.size());
  // Where some of them are fixed rows they ask nothing.
  if (queries > count || rows[count - queries] != cache_.length() - queries)
    return absl::UnimplementedError("queries: they are not among the rows");
  const std::vector<float> tokens = run_->AttentionOfLast(queries);
  std::vector<float> values;
  for (const int32_t row : rows) values.push_back(tokens[row]);
  return values;
}

absl::Status RunnerEngine::Attend(int64_t, std::span<const int32_t> positions) {
  if (positions.size() != run_->positions().size()) {
    if (absl::Status s = run_->Keep(positions); !s.ok()) return s;
  }
  run_->Finish();
  return absl::OkStatus();
}

absl::StatusOr<BlendResult> Blend(Model& model, const BlendRequest& request, KvCache& cache) {
  RunnerEngine engine(model, request.tokens, cache, request.wait_for_layer);
  absl::StatusOr<PlanResult> result =
      RunPlan(engine, {.tokens = static_cast<int64_t>(request.tokens.size()),
                       .segments = request.segments,
                       .config = request.config,
                       .queries = request.queries,
                       .noise = request.noise,
                       .oracle = request.oracle});
  if (!result.ok()) return result.status();
  absl::StatusOr<Logits> logits = engine.run().LastLogits();
  if (!logits.ok()) return logits.status();
  return BlendResult{.logits = *std::move(logits),
                     .computed = std::move(result->computed),
                     .left = std::move(result->left),
                     .operations = engine.run().operations()};
}

RepairedSequence::RepairedSequence(Model& model, std::span<const int32_t> tokens, KvCache cache,
                                   DecodeRepair repair)
    : model_(&model),
      tokens_(tokens.begin(), tokens.end()),
      cache_(std::move(cache)),
      repair_(std::move(repair)) {}

absl::StatusOr<RepairedSequence> RepairedSequence::Make(Model& model,
                                                        std::span<const int32_t> tokens,
                                                        const KvCache& blended, DecodeRepair repair,
                                                        int64_t max_tokens) {
  const auto length = static_cast<int64_t>(tokens.size());
  if (length != blended.length()) {
    return absl::InvalidArgumentError(
        absl::StrCat("tokens: ", length, " for a cache of ", blended.length()));
  }
  absl::StatusOr<KvCache> copy = model.Fork(blended, length, max_tokens);
  if (!copy.ok()) return copy.status();
  return RepairedSequence(model, tokens, *std::move(copy), std::move(repair));
}

absl::StatusOr<Logits> RepairedSequence::Decode(int32_t token) {
  const std::vector<int32_t> repaired = repair_.Next();
  if (!repaired.empty()) {
    absl::StatusOr<Recomputation> run = Recomputation::Start(*model_, tokens_, repaired, cache_);
    if (!run.ok()) return run.status();
    if (absl::Status s = run->RunToEnd(); !s.ok()) return s;
    operations_ += run->operations();
  }
  absl::StatusOr<Logits> logits = model_->Decode(token, cache_);
  if (logits.ok()) tokens_.push_back(token);
  return logits;
}

}  // namespace kedge
