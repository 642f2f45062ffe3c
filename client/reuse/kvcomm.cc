#include "client/reuse/kvcomm.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gpu/kernels/cast.h"
#include "gpu/kernels/rope.h"

namespace kedge {
namespace {

using offset::KvRows;

KvRows RowsOf(const KvSpan& span) {
  const KvCache::Geometry& geometry = span.geometry;
  KvRows rows = KvRows::Of(geometry.layers, span.tokens, geometry.kv_heads * geometry.head_size);
  const auto count = static_cast<int64_t>(rows.keys.size());
  kernels::CastToFloat(geometry.dtype, span.keys.data(), count, rows.keys.data());
  kernels::CastToFloat(geometry.dtype, span.values.data(), count, rows.values.data());
  return rows;
}

// Writes rows [0, tokens) at `first`, keys rotated as at position `turned`, rounded once.
void Place(const Model& model, KvRows& rows, int64_t first, int64_t turned, KvCache& cache) {
  const KvCache::Geometry& geometry = cache.geometry();
  const kernels::RopeTable table = model.RopeTableAt(turned, rows.tokens);
  const int64_t count = rows.tokens * rows.width;
  for (int64_t layer = 0; layer < rows.layers; ++layer) {
    float* keys = rows.keys.data() + layer * count;
    kernels::Rope(model.device(), table, rows.tokens, geometry.kv_heads, geometry.head_size,
                  rows.width, keys);
    kernels::CastFromFloat(geometry.dtype, keys, count,
                           cache.PartSpan(layer, Component::kK, first, rows.tokens).data());
    kernels::CastFromFloat(geometry.dtype, rows.values.data() + layer * count, count,
                           cache.PartSpan(layer, Component::kV, first, rows.tokens).data());
  }
}

absl::Status CheckSegments(const OffsetPrompt& prompt) {
  int64_t at = 0;
  for (const PromptSegment& segment : prompt.segments) {
    if (segment.first != at || segment.count < 0) {
      return absl::InvalidArgumentError(absl::StrCat("prompt.segments: [", segment.first, ", ",
                                                     segment.first + segment.count,
                                                     ") does not begin at ", at));
    }
    if (segment.produced != nullptr && segment.produced->tokens != segment.count) {
      return absl::InvalidArgumentError(absl::StrCat(
          "prompt.produced: KV of ", segment.produced->tokens, " tokens for ", segment.count));
    }
    at += segment.count;
  }
  if (at != static_cast<int64_t>(prompt.tokens.size())) {
    return absl::InvalidArgumentError(
        absl::StrCat("prompt.segments: end at ", at, " of ", prompt.tokens.size(), " tokens"));
  }
  if (prompt.lead < 0 || prompt.lead > at)
    return absl::InvalidArgumentError(absl::StrCat("prompt.lead: ", prompt.lead));
  return absl::OkStatus();
}

// The fixed text behind a filling; count 0 where there is none.
PromptSegment TextBehind(const OffsetPrompt& prompt, size_t segment) {
  if (segment + 1 < prompt.segments.size() && !prompt.segments[segment + 1].filling)
    return prompt.segments[segment + 1];
  return {.first = prompt.segments[segment].first + prompt.segments[segment].count};
}

}  // namespace

struct Kvcomm::Bases {
  KvRows filling;
  KvRows prefix;
  AnchorShape shape;
  BlockKey key;
  uint64_t context_digest = 0;
};

absl::StatusOr<DenseContext> DenseContext::Compute(Model& model, std::span<const int32_t> tokens) {
  absl::StatusOr<KvCache> cache = model.NewCache(static_cast<int64_t>(tokens.size()));
  if (!cache.ok()) return cache.status();
  if (absl::Status s = model.Prefill(tokens, *cache).status(); !s.ok()) return s;
  return DenseContext({tokens.begin(), tokens.end()}, *std::move(cache));
}

Kvcomm::Kvcomm(const TenantSalt& salt, const Fingerprint& model, const KvcommOptions& options,
               OffsetPools& pools)
    : salt_(salt), model_(model), options_(options), pools_(pools) {}

offset::PoolName Kvcomm::NameOf(const OffsetPrompt& prompt, const PromptSegment& segment) const {
  return {prompt.consumer, segment.placeholder,
          segment.produced != nullptr ? offset::BaseKind::kProduced : offset::BaseKind::kCanonical};
}

absl::StatusOr<Kvcomm::Bases> Kvcomm::BasesOf(Model& model, const OffsetPrompt& prompt,
                                              size_t index) const {
  const PromptSegment& segment = prompt.segments[index];
  const PromptSegment behind = TextBehind(prompt, index);
  const std::span<const int32_t> lead = prompt.tokens.first(prompt.lead);
  const std::span<const int32_t> filling = prompt.tokens.subspan(segment.first, segment.count);
  const std::span<const int32_t> text = prompt.tokens.subspan(behind.first, behind.count);
  Bases bases;
  if (segment.produced != nullptr) {
    bases.filling = RowsOf(*segment.produced);
  } else {
    absl::StatusOr<KvSpan> span = ComputeAlone(model, lead, filling);
    if (!span.ok()) return span.status();
    bases.filling = RowsOf(*span);
  }
  absl::StatusOr<KvSpan> span = ComputeAlone(model, lead, text);
  if (!span.ok()) return span.status();
  bases.prefix = RowsOf(*span);
  const offset::PoolName name = NameOf(prompt, segment);
  bases.shape = {name.kind, bases.filling.layers, bases.filling.width, behind.count,
                 offset::TokensDigest(text)};
  bases.context_digest = offset::TokensDigest(prompt.tokens.first(segment.first));
  bases.key = AnchorKey(salt_, model_, name, filling, segment.producer);
  return bases;
}

absl::Status Kvcomm::Learn(Model& model, const OffsetPrompt& prompt, const DenseContext& dense) {
  if (absl::Status s = CheckSegments(prompt); !s.ok()) return s;
  if (!std::equal(prompt.tokens.begin(), prompt.tokens.end(), dense.tokens().begin(),
                  dense.tokens().end())) {
    return absl::InvalidArgumentError("dense: its tokens are not the prompt's");
  }
  for (size_t i = 0; i < prompt.segments.size(); ++i) {
    const PromptSegment& segment = prompt.segments[i];
    if (!segment.filling || segment.count == 0) continue;
    absl::StatusOr<Bases> bases = BasesOf(model, prompt, i);
    if (!bases.ok()) return bases.status();
    const PromptSegment behind = TextBehind(prompt, i);
    absl::StatusOr<KvSpan> filling = LiftSpan(model, dense.cache(), segment.first, segment.count);
    if (!filling.ok()) return filling.status();
    absl::StatusOr<KvSpan> prefix = LiftSpan(model, dense.cache(), behind.first, behind.count);
    if (!prefix.ok()) return prefix.status();
    offset::Anchor anchor{.key = bases->key,
                          .kind = bases->shape.kind,
                          .prefix_digest = bases->shape.prefix_digest,
                          .context_digest = bases->context_digest,
                          .sketch = offset::SketchOf(bases->filling),
                          .filling = offset::OffsetOf(RowsOf(*filling), bases->filling),
                          .prefix = offset::OffsetOf(RowsOf(*prefix), bases->prefix)};
    absl::Status s =
        pools_.Learn({NameOf(prompt, segment), std::move(anchor), &bases->filling, &bases->prefix});
    if (!s.ok()) return s;
  }
  return absl::OkStatus();
}

std::unique_ptr<OffsetCall> Kvcomm::Ask(const OffsetPrompt& prompt, const PromptSegment& segment,
                                        const Bases& bases) const {
  OffsetQuestion question{.pool = NameOf(prompt, segment),
                          .shape = bases.shape,
                          .key = bases.key,
                          .context_digest = bases.context_digest,
                          .sketch = offset::SketchOf(bases.filling),
                          .filling_base = &bases.filling,
                          .prefix_base = &bases.prefix,
                          .mix = options_.mix,
                          .with_error = !options_.gate.off,
                          .deadline_ms = options_.deadline_ms};
  if (!options_.gate.off) {
    question.max_error = options_.gate.max_error;
    question.max_token_error = options_.gate.max_token_error;
  }
  return pools_.Ask(std::move(question));
}

OffsetAnswer Kvcomm::Decide(const PromptSegment& segment, OffsetCall& call,
                            PlaceholderDecision& decision) const {
  absl::StatusOr<OffsetAnswer> answer = call.Wait();
  if (!answer.ok()) {
    decision.refusal = OffsetRefusal::kUnavailable;
    decision.unavailable = answer.status();
    return {};
  }
  decision.bytes_moved = answer->bytes_moved;
  decision.evidence = answer->evidence;
  decision.refusal = answer->refusal;
  if (decision.refusal != OffsetRefusal::kNone) return {};
  decision.refusal = Judge(answer->evidence, segment.count, options_.gate);
  // A pool that has nothing to give cannot be accepted, whatever it says of itself.
  if (decision.refusal == OffsetRefusal::kNone && !answer->has_rows)
    decision.refusal = OffsetRefusal::kPoolError;
  if (decision.refusal != OffsetRefusal::kNone) return {};
  if (options_.audit != nullptr) {
    const AuditTurn turn = options_.audit->Turn(decision.pool);
    decision.audit = turn.audit;
    if (!turn.trusted) {
      decision.refusal = OffsetRefusal::kSuspended;
      return {};
    }
  }
  pools_.Activate(decision.pool, *answer);
  return *std::move(answer);
}

absl::StatusOr<std::vector<PlaceholderDecision>> Kvcomm::Apply(Model& model,
                                                               const OffsetPrompt& prompt,
                                                               KvCache& cache) {
  if (absl::Status s = CheckSegments(prompt); !s.ok()) return s;
  if (cache.length() != 0 || prompt.tokens.empty())
    return absl::InvalidArgumentError("cache: it has to be empty, and the prompt must not be");
  const auto total = static_cast<int64_t>(prompt.tokens.size());
  if (cache.capacity() < total)
    return absl::OutOfRangeError(absl::StrCat("cache: room for ", cache.capacity(), " of ", total));
  std::vector<PlaceholderDecision> decisions;
  const auto place = [&](KvRows& base, const KvRows* offset, int64_t first) {
    if (offset != nullptr) AddOffset(*offset, base);
    Place(model, base, first, options_.rotate ? first : prompt.lead, cache);
    cache.set_length(first + base.tokens);
  };
  struct Asked {
    Bases bases;
    std::unique_ptr<OffsetCall> call;  // ends before the bases that it looks at
  };
  std::vector<std::unique_ptr<Asked>> asked(prompt.segments.size());
  for (size_t i = 0; i < prompt.segments.size(); ++i) {
    if (!prompt.segments[i].filling || prompt.segments[i].count == 0) continue;
    absl::StatusOr<Bases> bases = BasesOf(model, prompt, i);
    if (!bases.ok()) return bases.status();
    asked[i] = std::make_unique<Asked>(Asked{*std::move(bases), nullptr});
    asked[i]->call = Ask(prompt, prompt.segments[i], asked[i]->bases);
  }
  for (size_t i = 0; i < prompt.segments.size(); ++i) {
    const PromptSegment& segment = prompt.segments[i];
    const int64_t end = segment.first + segment.count;
    PlaceholderDecision decision{.placeholder = segment.placeholder, .tokens = segment.count};
    OffsetAnswer offsets;
    if (asked[i] != nullptr) {
      decision.pool = NameOf(prompt, segment);
      offsets = Decide(segment, *asked[i]->call, decision);
    } else if (segment.filling) {
      decision.refusal = OffsetRefusal::kEmpty;
    }
    if (offsets.has_rows) {
      Bases& bases = asked[i]->bases;
      place(bases.filling, options_.filling_offset ? &offsets.filling : nullptr, segment.first);
      decision.prefix_tokens = bases.prefix.tokens;
      place(bases.prefix, options_.prefix_offset ? &offsets.prefix : nullptr, end);
    } else if (cache.length() < end) {  // else it was placed with the filling before it
      if (absl::Status s = model.Prefill(prompt.tokens.first(end), cache).status(); !s.ok())
        return s;
    }
    asked[i].reset();
    if (!segment.filling) continue;
    ++decisions_[static_cast<size_t>(decision.refusal)];
    decisions.push_back(std::move(decision));
  }
  if (cache.length() == total) cache.set_length(total - 1);
  return decisions;
}

std::array<uint64_t, kOffsetRefusals> Kvcomm::decisions() const {
  std::array<uint64_t, kOffsetRefusals> counts;
  std::copy(decisions_.begin(), decisions_.end(), counts.begin());
  return counts;
}

}  // namespace kedge
