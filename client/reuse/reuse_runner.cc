#include "client/reuse/reuse_runner.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gpu/offset/sketch.h"

namespace kedge {
namespace {

using Kind = FoundSegment::Kind;
using offset::KvRows;

absl::Status CheckInput(const ReuseInput& input, const KvCache* cache) {
  const auto total = static_cast<int64_t>(input.prompt.tokens.size());
  int64_t at = 0;
  for (const PromptSegment& segment : input.prompt.segments) {
    if (segment.first != at || segment.count < 0) {
      return absl::InvalidArgumentError(absl::StrCat("prompt.segments: ", segment.count,
                                                     " tokens at ", segment.first,
                                                     " do not begin at ", at));
    }
    if (segment.produced != nullptr && segment.produced->tokens != segment.count) {
      return absl::InvalidArgumentError(absl::StrCat(
          "prompt.produced: KV of ", segment.produced->tokens, " tokens for ", segment.count));
    }
    at += segment.count;
  }
  if (at != total || total == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("prompt.segments: end at ", at, " of ", total, " tokens"));
  }
  if (input.prompt.lead < 0 || input.prompt.lead > total)
    return absl::InvalidArgumentError(absl::StrCat("prompt.lead: ", input.prompt.lead));
  if (input.exact_tokens < 0 || input.exact_tokens > total) {
    return absl::InvalidArgumentError(
        absl::StrCat("exact_tokens: ", input.exact_tokens, " of ", total));
  }
  if (cache != nullptr && cache->capacity() < total)
    return absl::OutOfRangeError(
        absl::StrCat("cache: room for ", cache->capacity(), " of ", total));
  if (cache != nullptr && cache->pruned())
    return absl::InvalidArgumentError("cache: it was pruned, and has no row of every token");
  return absl::OkStatus();
}

// What is decided for a segment; corrected, which needs everything, where nothing is.
Treatment Treated(const ReuseDecision* decided, size_t segment) {
  if (decided == nullptr) return Treatment::kCorrected;
  if (segment >= decided->segments.size()) return Treatment::kDense;
  return decided->segments[segment].treatment;
}

}  // namespace

// A found segment and what is known of it.
struct ReuseRunner::Found {
  FoundSegment segment;
  int64_t first = 0;  // in the prompt
  int64_t skip = 0;   // rows of the base before it: an exact prefix ends inside the filling
  bool lost = false;
  // Of a filling.
  std::shared_ptr<const KvSpan> base;
  KvRows rows;
  KvRows joint;
  int64_t bases_computed = 0;
  OffsetQuestion question;
  std::unique_ptr<OffsetCall> call;  // ends before the rows that it looks at
  OffsetAnswer answer;
};

ReuseRunner::ReuseRunner(const TenantSalt& salt, const Fingerprint& model,
                         const ReuseOptions& options, OffsetPools& pools)
    : salt_(salt),
      model_(model),
      options_(options),
      pools_(pools),
      kvcomm_(salt, model, options.offsets, pools),
      bases_(options.base_bytes) {}

void ReuseRunner::FindBases(Model& model, const ReuseInput& input, Found& found,
                            const PromptSegment& filling, const PromptSegment* joint) {
  const std::span<const int32_t> lead = input.prompt.tokens.first(input.prompt.lead);
  const std::span<const int32_t> tokens = input.prompt.tokens.subspan(filling.first, filling.count);
  absl::StatusOr<std::shared_ptr<const KvSpan>> base = nullptr;
  if (input.base) {
    base = input.base(filling);
    found.lost = !base.ok() && !absl::IsNotFound(base.status());
  } else if (filling.produced != nullptr) {
    base = std::shared_ptr<const KvSpan>(std::shared_ptr<const KvSpan>(), filling.produced);
  } else if ((base = bases_.Find(lead, tokens)); *base == nullptr && options_.compute_bases) {
    base = bases_.Get(model, lead, tokens);
    found.bases_computed = filling.count;
  }
  if (!base.ok() || *base == nullptr || (*base)->tokens != filling.count) return;
  absl::StatusOr<std::shared_ptr<const KvSpan>> text = nullptr;
  if (joint != nullptr) {
    text = bases_.Get(model, lead, input.prompt.tokens.subspan(joint->first, joint->count));
    if (!text.ok()) return;
    found.joint = RowsOf(**text);
  }
  found.base = *std::move(base);
  found.rows = RowsOf(*found.base);
  if (joint == nullptr) found.joint = KvRows::Of(found.rows.layers, 0, found.rows.width);
  found.segment.has_base = true;
}

void ReuseRunner::MakeQuestion(const ReuseInput& input, Found& found, const PromptSegment& filling,
                               const PromptSegment& joint) {
  const OffsetPrompt& prompt = input.prompt;
  const offset::PoolName pool{
      prompt.consumer, filling.placeholder,
      filling.produced != nullptr ? offset::BaseKind::kProduced : offset::BaseKind::kCanonical};
  const OffsetGateOptions& gate = options_.offsets.gate;
  found.question = {
      .pool = pool,
      .shape = {pool.kind, found.rows.layers, found.rows.width, joint.count,
                offset::TokensDigest(prompt.tokens.subspan(joint.first, joint.count))},
      .key =
          offset::AnchorKey(salt_, model_, pool,
                            prompt.tokens.subspan(filling.first, filling.count), filling.producer),
      .context_digest = offset::TokensDigest(prompt.tokens.first(filling.first)),
      .sketch = offset::SketchOf(found.rows),
      .filling_base = &found.rows,
      .prefix_base = &found.joint,
      .mix = options_.offsets.mix,
      .with_error = !gate.off,
      .deadline_ms = options_.offsets.deadline_ms};
  if (!gate.off) {
    found.question.max_error = gate.max_error;
    found.question.max_token_error = gate.max_token_error;
  }
}

void ReuseRunner::Judge(Found& found) const {
  absl::StatusOr<OffsetAnswer> answer = found.call->Wait();
  found.call.reset();
  FoundSegment& segment = found.segment;
  if (!answer.ok()) {
    segment.offsets = OffsetRefusal::kUnavailable;
    return;
  }
  found.answer = *std::move(answer);
  segment.offset_bytes = found.answer.bytes_moved;
  segment.offsets = found.answer.refusal;
  if (segment.offsets != OffsetRefusal::kNone) return;
  segment.offsets = kedge::Judge(found.answer.evidence, found.rows.tokens, options_.offsets.gate);
  if (segment.offsets == OffsetRefusal::kNone && !found.answer.has_rows)
    segment.offsets = OffsetRefusal::kPoolError;
}

absl::StatusOr<std::vector<ReuseRunner::Found>> ReuseRunner::Find(Model& model,
                                                                  const ReuseInput& input,
                                                                  const ReuseDecision* decided) {
  std::vector<Found> all;
  if (input.exact_tokens > 0) {
    Found found;
    found.segment = {.kind = Kind::kPrefix,
                     .count = input.exact_tokens,
                     .fidelity = input.exact_fidelity,
                     .bytes = input.exact_bytes};
    all.push_back(std::move(found));
  }
  const std::vector<PromptSegment>& segments = input.prompt.segments;
  const bool approximates =
      !options_.rules.exact_only && (options_.rules.offsets.ok() || options_.rules.recompute.ok());
  for (size_t i = 0; i < segments.size(); ++i) {
    const int64_t end = segments[i].first + segments[i].count;
    if (end <= input.exact_tokens) continue;
    Found found;
    found.first = std::max(segments[i].first, input.exact_tokens);
    found.skip = found.first - segments[i].first;
    found.segment.count = end - found.first;
    const bool behind_filling = !all.empty() && all.back().segment.kind == Kind::kFilling;
    if (segments[i].filling) {
      found.segment.kind = Kind::kFilling;
      const bool has_joint = i + 1 < segments.size() && !segments[i + 1].filling;
      if (approximates && Treated(decided, all.size()) != Treatment::kDense)
        FindBases(model, input, found, segments[i], has_joint ? &segments[i + 1] : nullptr);
      else
        found.segment.has_base = segments[i].produced != nullptr;
    } else if (behind_filling) {
      found.segment.kind = Kind::kJoint;
    }
    all.push_back(std::move(found));
  }
  // Where the rows lie is settled now: every placeholder is asked for before the first answer is
  // waited for.
  if (!approximates || !options_.rules.offsets.ok()) return all;
  for (size_t i = 0; i < all.size(); ++i) {
    Found& found = all[i];
    if (found.segment.kind != Kind::kFilling || found.base == nullptr) continue;
    if (Treated(decided, i) != Treatment::kCorrected) continue;
    const int64_t filling_first = found.first - found.skip;
    const auto filling =
        std::find_if(segments.begin(), segments.end(), [&](const PromptSegment& s) {
          return s.filling && s.count > 0 && s.first == filling_first;
        });
    const int64_t behind = filling->first + filling->count;
    PromptSegment joint{.first = behind};
    if (filling + 1 != segments.end() && !(filling + 1)->filling) joint = *(filling + 1);
    MakeQuestion(input, found, *filling, joint);
    found.call = pools_.Ask(found.question);
  }
  for (Found& found : all)
    if (found.call != nullptr) Judge(found);
  return all;
}

absl::StatusOr<ReuseDecision> ReuseRunner::Plan(Model& model, const ReuseInput& input) {
  if (absl::Status s = CheckInput(input, nullptr); !s.ok()) return s;
  absl::StatusOr<std::vector<Found>> found = Find(model, input);
  if (!found.ok()) return found.status();
  std::vector<FoundSegment> segments;
  for (const Found& f : *found) segments.push_back(f.segment);
  return Decide(segments, options_.rules, options_.rates);
}

absl::StatusOr<ReuseAnswer> ReuseRunner::Run(Model& model, const ReuseInput& input, KvCache cache,
                                             const ReuseDecision* decided) {
  if (absl::Status s = CheckInput(input, &cache); !s.ok()) return s;
  absl::StatusOr<std::vector<Found>> found = Find(model, input, decided);
  if (!found.ok()) return found.status();
  std::vector<DueAudit> audits;
  if (decided == nullptr) audits = AskAudit(*found);
  std::vector<FoundSegment> segments;
  for (const Found& f : *found) segments.push_back(f.segment);
  absl::StatusOr<ReuseDecision> decision = Decide(segments, options_.rules, options_.rates);
  if (!decision.ok()) return decision.status();
  for (size_t i = 0; i < found->size(); ++i) {
    if ((*found)[i].lost) decision->segments[i].why = WhyNot::kLost;
  }
  if (decided != nullptr) {
    if (decided->segments.size() != decision->segments.size())
      return absl::FailedPreconditionError("decided: it is about other segments");
    for (size_t i = 0; i < found->size(); ++i) {
      const SegmentDecision& other = decided->segments[i];
      if (other.first != (*found)[i].first || other.count != (*found)[i].segment.count)
        return absl::FailedPreconditionError("decided: it is about other segments");
      const bool joint = segments[i].kind == Kind::kJoint;
      const bool can =
          other.treatment == Treatment::kDense ||
          (other.treatment == Treatment::kExact && segments[i].kind == Kind::kPrefix) ||
          (other.treatment == Treatment::kRecomputed && (*found)[i].base != nullptr) ||
          (other.treatment == Treatment::kCorrected &&
           (joint ? decided->segments[i - 1].treatment == Treatment::kCorrected
                  : (*found)[i].answer.has_rows));
      if (!can) {
        return absl::FailedPreconditionError(absl::StrCat("decided: segment ", i, " cannot be ",
                                                          TreatmentName(other.treatment), " here"));
      }
    }
    *decision = *decided;
  }
  absl::StatusOr<ReuseAnswer> answer =
      Execute(model, input, *found, *std::move(decision), std::move(cache));
  if (!answer.ok()) return answer;
  for (DueAudit& audit : audits) {
    const Treatment treatment = answer->decision.segments[audit.segment].treatment;
    if (audit.probe || treatment == Treatment::kCorrected)
      answer->audits.push_back(std::move(audit));
  }
  return answer;
}

std::vector<DueAudit> ReuseRunner::AskAudit(std::vector<Found>& found) const {
  std::vector<DueAudit> due;
  if (options_.offsets.audit == nullptr) return due;
  for (size_t i = 0; i < found.size(); ++i) {
    FoundSegment& segment = found[i].segment;
    if (segment.kind != Kind::kFilling || found[i].base == nullptr ||
        segment.offsets != OffsetRefusal::kNone) {
      continue;
    }
    const AuditTurn turn = options_.offsets.audit->Turn(found[i].question.pool);
    if (!turn.trusted) segment.offsets = OffsetRefusal::kSuspended;
    if (turn.audit) due.push_back({found[i].question.pool, i, !turn.trusted});
  }
  return due;
}

absl::Status ReuseRunner::Audit(Model& model, const ReuseInput& input, const ReuseAnswer& answer) {
  if (answer.audits.empty() || options_.offsets.audit == nullptr) return absl::OkStatus();
  const auto total = static_cast<int64_t>(input.prompt.tokens.size());
  absl::StatusOr<KvCache> cache = model.NewCache(total);
  if (!cache.ok()) return cache.status();
  const absl::StatusOr<Logits> dense = model.Prefill(input.prompt.tokens, *cache);
  if (!dense.ok()) return dense.status();
  for (const DueAudit& audit : answer.audits) {
    if (!audit.probe) {
      options_.offsets.audit->Note(audit.pool, CompareAnswers(dense->row(0), answer.logits.row(0)));
      continue;
    }
    // As it would have been: this placeholder corrected, and the rest as it was.
    if (answer.decision.tokens(Treatment::kExact) > 0) {
      cache->set_length(std::min(input.exact_tokens, total - 1));
    } else {
      cache->set_length(0);
    }
    ReuseDecision decided = answer.decision;
    decided.segments[audit.segment].treatment = Treatment::kCorrected;
    ReuseInput again = input;
    again.wait_for_layer = nullptr;  // the dense rows are there
    absl::StatusOr<KvCache> copy = model.Fork(*cache, cache->length(), total);
    if (!copy.ok()) return copy.status();
    absl::StatusOr<ReuseAnswer> corrected = Run(model, again, *std::move(copy), &decided);
    if (!corrected.ok()) continue;  // the pool has nothing any more
    options_.offsets.audit->Note(audit.pool,
                                 CompareAnswers(dense->row(0), corrected->logits.row(0)));
  }
  return absl::OkStatus();
}

absl::StatusOr<ReuseAnswer> ReuseRunner::Densely(Model& model, const ReuseInput& input,
                                                 ReuseDecision decision, KvCache cache) {
  for (SegmentDecision& segment : decision.segments) {
    if (segment.treatment == Treatment::kDense) continue;
    segment.treatment = Treatment::kDense;
    segment.why = WhyNot::kLost;
  }
  decision.points_lost = 0.0;
  cache.set_length(0);
  absl::StatusOr<Logits> logits = model.Prefill(input.prompt.tokens, cache);
  if (!logits.ok()) return logits.status();
  ProvenanceLog log;
  log.Append(cache.length(), Provenance::kDense);
  Count(decision);
  const auto tokens = static_cast<int64_t>(input.prompt.tokens.size());
  return ReuseAnswer{.kv = AssembledKv(std::move(cache), std::move(log)),
                     .logits = *std::move(logits),
                     .decision = std::move(decision),
                     .operations = DenseOperations(model.config(), tokens)};
}

absl::StatusOr<ReuseAnswer> ReuseRunner::Execute(Model& model, const ReuseInput& input,
                                                 std::vector<Found>& found, ReuseDecision decision,
                                                 KvCache cache) {
  const auto total = static_cast<int64_t>(input.prompt.tokens.size());
  std::vector<ReusedSegment> segments;
  ProvenanceLog log;
  int64_t exact = 0;
  int64_t computed_bases = 0;
  bool approximate = false;
  for (size_t i = 0; i < found.size(); ++i) {
    Found& now = found[i];
    const SegmentDecision& segment = decision.segments[i];
    const auto first = static_cast<int32_t>(segment.first);
    const auto count = static_cast<int32_t>(segment.count);
    computed_bases += now.bases_computed;
    // Layers that are on their way must not be written by their arrival over rows that are right:
    // what stands in front of exact_tokens is left alone here.
    if (segment.treatment == Treatment::kExact) {
      exact = segment.count;
      segments.push_back({first, count, /*fixed=*/true});
    } else if (segment.treatment == Treatment::kCorrected) {
      approximate = true;
      segments.push_back({first, count, /*fixed=*/true});
      if (now.segment.kind == Kind::kFilling) {
        if (options_.offsets.filling_offset) AddOffset(now.answer.filling, now.rows);
        PlaceRows(model, now.rows, now.first - now.skip, now.skip, cache);
        pools_.Activate(now.question.pool, now.answer);
      } else {
        Found& before = found[i - 1];
        if (options_.offsets.prefix_offset) AddOffset(before.answer.prefix, before.joint);
        PlaceRows(model, before.joint, now.first, 0, cache);
      }
    } else if (segment.treatment == Treatment::kRecomputed) {
      approximate = true;
      segments.push_back({first, count});
      PlaceRows(model, now.rows, now.first - now.skip, now.skip, cache);
    }
    log.Append(segment.count, ProvenanceOf(segment.treatment),
               segment.treatment == Treatment::kExact ? input.exact_fidelity : Fidelity::kLossless);
  }

  if (!approximate) {
    // All exact: the last token is given up and computed, since its logits are wanted.
    cache.set_length(std::min(exact, total - 1));
    PrefillOptions options;
    if (exact > 0) options.wait_for_layer = input.wait_for_layer;
    absl::StatusOr<Logits> logits = model.Prefill(input.prompt.tokens, cache, options);
    if (!logits.ok() && exact > 0)
      return Densely(model, input, std::move(decision), std::move(cache));
    if (!logits.ok()) return logits.status();
    Count(decision);
    const double operations = DenseOperations(model.config(), total) -
                              DenseOperations(model.config(), std::min(exact, total - 1));
    return ReuseAnswer{.kv = AssembledKv(std::move(cache), std::move(log)),
                       .logits = *std::move(logits),
                       .decision = std::move(decision),
                       .operations = operations,
                       .bases_computed = computed_bases};
  }

  cache.set_length(total);
  BlendRequest request{.tokens = input.prompt.tokens,
                       .segments = segments,
                       .config = decision.recompute,
                       .queries = input.queries};
  if (exact > 0) request.wait_for_layer = input.wait_for_layer;
  if (decision.tokens(Treatment::kRecomputed) == 0) request.config.policy = RecomputePolicy::kNone;
  absl::StatusOr<BlendResult> blended = Blend(model, request, cache);
  if (!blended.ok()) return Densely(model, input, std::move(decision), std::move(cache));
  Count(decision);
  return ReuseAnswer{.kv = AssembledKv(std::move(cache), std::move(log)),
                     .logits = std::move(blended->logits),
                     .decision = std::move(decision),
                     .left = std::move(blended->left),
                     .operations = blended->operations,
                     .bases_computed = computed_bases};
}

absl::StatusOr<AssembledKv> ReuseRunner::ComputeExact(Model& model, const OffsetPrompt& prompt) {
  absl::StatusOr<DenseContext> dense = DenseContext::Compute(model, prompt.tokens);
  if (!dense.ok()) return dense.status();
  if (absl::Status s = Learn(model, prompt, *dense); !s.ok()) return s;
  const int64_t tokens = dense->cache().length();
  absl::StatusOr<KvCache> cache = model.Fork(dense->cache(), tokens, tokens);
  if (!cache.ok()) return cache.status();
  ProvenanceLog log;
  log.Append(tokens, Provenance::kDense);
  return AssembledKv(*std::move(cache), std::move(log));
}

absl::Status ReuseRunner::Learn(Model& model, const OffsetPrompt& prompt,
                                const DenseContext& dense) {
  if (absl::Status s = kvcomm_.Learn(model, prompt, dense); !s.ok()) return s;
  if (options_.offsets.gate.off || !options_.rules.offsets.ok()) return absl::OkStatus();
  if (absl::Status s = ComputeBases(model, prompt).status(); !s.ok()) return s;
  const ReuseInput input{.prompt = prompt};
  for (size_t i = 0; i < prompt.segments.size(); ++i) {
    const PromptSegment& filling = prompt.segments[i];
    if (!filling.filling || filling.count == 0) continue;
    PromptSegment joint{.first = filling.first + filling.count};
    const bool has_joint = i + 1 < prompt.segments.size() && !prompt.segments[i + 1].filling;
    if (has_joint) joint = prompt.segments[i + 1];
    Found found;
    FindBases(model, input, found, filling, has_joint ? &joint : nullptr);
    if (found.base == nullptr) continue;
    MakeQuestion(input, found, filling, joint);
    // Not of the run that was just learnt, which needs no error; and no rows are wanted.
    found.question.context_digest = ~found.question.context_digest;
    found.question.max_error = -1;
    (void)pools_.Ask(found.question)->Wait();
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> ReuseRunner::ComputeBases(Model& model, const OffsetPrompt& prompt) {
  int64_t computed = 0;
  for (const PromptSegment& segment : prompt.segments) {
    if (!segment.filling || segment.count == 0 || segment.produced != nullptr) continue;
    const std::span<const int32_t> lead = prompt.tokens.first(prompt.lead);
    const std::span<const int32_t> tokens = prompt.tokens.subspan(segment.first, segment.count);
    if (bases_.Find(lead, tokens) != nullptr) continue;
    if (absl::Status s = bases_.Get(model, lead, tokens).status(); !s.ok()) return s;
    computed += segment.count;
  }
  return computed;
}

void ReuseRunner::Count(const ReuseDecision& decision) {
  const std::lock_guard<std::mutex> lock(mutex_);
  counts_.Add(decision);
}

ReuseCounts ReuseRunner::counts() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return counts_;
}

}  // namespace kedge
