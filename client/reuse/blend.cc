#include "client/reuse/blend.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace kedge {
namespace {

// Values of the rows, of one value a token; empty stays empty.
std::vector<float> OfRows(std::span<const float> tokens, std::span<const int32_t> rows) {
  std::vector<float> values;
  if (tokens.empty()) return values;
  for (const int32_t row : rows) values.push_back(tokens[row]);
  return values;
}

absl::Status CheckRequest(const BlendRequest& request) {
  const size_t tokens = request.tokens.size();
  if (!request.noise.empty() && request.noise.size() != tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("noise: ", request.noise.size(), " values for ", tokens, " tokens"));
  }
  if (!request.oracle.empty() && request.oracle.size() != tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("oracle: ", request.oracle.size(), " values for ", tokens, " tokens"));
  }
  if (request.queries < 0 || request.queries > static_cast<int64_t>(tokens)) {
    return absl::InvalidArgumentError(
        absl::StrCat("queries: ", request.queries, " of ", tokens, " tokens"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<BlendResult> Blend(Model& model, const BlendRequest& request, KvCache& cache) {
  if (absl::Status s = CheckRequest(request); !s.ok()) return s;
  absl::StatusOr<RecomputePlanner> planner =
      RecomputePlanner::Make(request.config, model.config().layers,
                             static_cast<int64_t>(request.tokens.size()), request.segments);
  if (!planner.ok()) return planner.status();
  absl::StatusOr<Recomputation> run =
      Recomputation::Start(model, request.tokens, planner->start(), cache, request.wait_for_layer);
  if (!run.ok()) return run.status();
  while (!run->done()) {
    const int64_t layer = run->layer();
    const bool chooses = planner->Chooses(layer);
    if (absl::Status s = run->Project(); !s.ok()) return s;
    std::vector<float> deviation;
    if (chooses && planner->needs_deviation()) deviation = run->ValueDeviation();
    run->WriteKv();
    if (chooses) {
      std::vector<float> attention;
      if (planner->needs_attention() && request.queries > 0)
        attention = OfRows(run->AttentionOfLast(request.queries), run->positions());
      const std::vector<float> noise = OfRows(request.noise, run->positions());
      const std::vector<float> oracle = OfRows(request.oracle, run->positions());
      const std::vector<int32_t> kept = planner->Choose(
          layer, run->positions(),
          {.deviation = deviation, .noise = noise, .attention = attention, .oracle = oracle});
      if (absl::Status s = run->Keep(kept); !s.ok()) return s;
    }
    run->Finish();
  }
  absl::StatusOr<Logits> logits = run->LastLogits();
  if (!logits.ok()) return logits.status();
  return BlendResult{.logits = *std::move(logits),
                     .computed = {run->positions().begin(), run->positions().end()},
                     .left = planner->left(),
                     .operations = run->operations()};
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
