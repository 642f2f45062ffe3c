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

Kvcomm::Kvcomm(const TenantSalt& salt, const Fingerprint& model, const KvcommOptions& options)
    : salt_(salt), model_(model), options_(options) {}

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

Kvcomm::Pool Kvcomm::PoolOf(const offset::PoolName& name, const AnchorShape* create) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = pools_.find(name);
  if (found != pools_.end() || create == nullptr)
    return found == pools_.end() ? Pool{} : found->second;
  Pool pool;
  if (options_.method == OffsetMethod::kAnchors)
    pool.anchors = std::make_shared<AnchorPool>(*create, options_.pool);
  else
    pool.linear = std::make_shared<LinearPool>(*create, options_.linear);
  return pools_.emplace(name, std::move(pool)).first->second;
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
    const Pool pool = PoolOf(NameOf(prompt, segment), &bases->shape);
    absl::Status s = pool.anchors != nullptr
                         ? pool.anchors->Insert(std::move(anchor)).status()
                         : pool.linear->Update(bases->filling, bases->prefix, anchor);
    if (!s.ok()) return s;
  }
  return absl::OkStatus();
}

std::optional<Kvcomm::Offsets> Kvcomm::Decide(const OffsetPrompt& prompt,
                                              const PromptSegment& segment, const Bases& bases,
                                              PlaceholderDecision& decision) {
  const Pool pool = PoolOf(NameOf(prompt, segment), nullptr);
  OffsetEvidence& evidence = decision.evidence;
  const auto refuse = [&](OffsetRefusal refusal) {
    decision.refusal = refusal;
    return std::nullopt;
  };
  if (pool.anchors == nullptr && pool.linear == nullptr) return refuse(OffsetRefusal::kNoPool);
  const AnchorShape& shape = pool.anchors != nullptr ? pool.anchors->shape() : pool.linear->shape();
  if (shape.layers != bases.shape.layers || shape.width != bases.shape.width)
    return refuse(OffsetRefusal::kShape);
  if (!(shape == bases.shape)) return refuse(OffsetRefusal::kTemplate);
  if (pool.linear != nullptr) {
    const std::shared_ptr<const LinearPool::Maps> maps = pool.linear->maps();
    evidence.linear = true;
    evidence.runs = pool.linear->runs();
    if (maps != nullptr) evidence.error = maps->error;
    decision.refusal = Judge(evidence, segment.count, options_.gate);
    if (decision.refusal != OffsetRefusal::kNone) return std::nullopt;
    return Offsets{maps->filling.Predict(bases.filling), maps->prefix.Predict(bases.prefix)};
  }
  const std::shared_ptr<const offset::Anchor> same = pool.anchors->Find(bases.key);
  if (same != nullptr && same->context_digest == bases.context_digest) {
    evidence.runs = pool.anchors->size();
    evidence.same = true;
    return Offsets{same->filling, same->prefix};
  }
  const offset::Sketch sketch = offset::SketchOf(bases.filling);
  offset::MixOptions mix_options = options_.mix;
  mix_options.scale = pool.anchors->scale();
  const offset::Mix mix = pool.anchors->MixFor(sketch, mix_options);
  evidence.runs = pool.anchors->size();
  evidence.longest = pool.anchors->longest();
  evidence.eligible = mix.anchors();
  evidence.entropy = mix.entropy();
  evidence.nearest = mix.nearest();
  if (!options_.gate.off) evidence.error = pool.anchors->LeaveOneOut(mix_options);
  decision.refusal = Judge(evidence, segment.count, options_.gate);
  if (decision.refusal != OffsetRefusal::kNone) return std::nullopt;
  pool.anchors->Activate(sketch, mix_options);
  return Offsets{mix.FillingOffset(), mix.PrefixOffset()};
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
  for (size_t i = 0; i < prompt.segments.size(); ++i) {
    const PromptSegment& segment = prompt.segments[i];
    const int64_t end = segment.first + segment.count;
    if (!segment.filling || segment.count == 0) {
      if (segment.filling)
        decisions.push_back({.placeholder = segment.placeholder, .refusal = OffsetRefusal::kEmpty});
      // Placed with the filling before it, or nothing to do.
      if (cache.length() >= end) continue;
      if (absl::Status s = model.Prefill(prompt.tokens.first(end), cache).status(); !s.ok())
        return s;
      continue;
    }
    absl::StatusOr<Bases> bases = BasesOf(model, prompt, i);
    if (!bases.ok()) return bases.status();
    PlaceholderDecision decision{.placeholder = segment.placeholder, .tokens = segment.count};
    std::optional<Offsets> offsets = Decide(prompt, segment, *bases, decision);
    if (!offsets) {
      absl::Status s = model.Prefill(prompt.tokens.first(end), cache).status();
      if (!s.ok()) return s;
    } else {
      place(bases->filling, options_.filling_offset ? &offsets->filling : nullptr, segment.first);
      decision.prefix_tokens = bases->prefix.tokens;
      place(bases->prefix, options_.prefix_offset ? &offsets->prefix : nullptr, end);
    }
    decisions.push_back(std::move(decision));
  }
  if (cache.length() == total) cache.set_length(total - 1);
  return decisions;
}

std::shared_ptr<AnchorPool> Kvcomm::FindAnchors(const offset::PoolName& name) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = pools_.find(name);
  return found == pools_.end() ? nullptr : found->second.anchors;
}

std::shared_ptr<LinearPool> Kvcomm::FindLinear(const offset::PoolName& name) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = pools_.find(name);
  return found == pools_.end() ? nullptr : found->second.linear;
}

int64_t Kvcomm::bytes() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  int64_t bytes = 0;
  for (const auto& [name, pool] : pools_) {
    if (pool.linear != nullptr) bytes += pool.linear->bytes();
    if (pool.anchors == nullptr) continue;
    for (const BlockKey& key : pool.anchors->keys()) {
      const std::shared_ptr<const offset::Anchor> anchor = pool.anchors->Find(key);
      if (anchor == nullptr) continue;
      bytes += 8 * static_cast<int64_t>(anchor->filling.keys.size() + anchor->prefix.keys.size());
    }
  }
  return bytes;
}

}  // namespace kedge
