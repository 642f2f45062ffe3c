#include "client/reuse/provenance.h"

#include <algorithm>

#include "absl/base/internal/raw_logging.h"
#include "absl/strings/str_cat.h"

namespace kedge {

const char* ProvenanceName(Provenance provenance) {
  switch (provenance) {
    case Provenance::kExact:
      return "exact";
    case Provenance::kDense:
      return "dense";
    case Provenance::kCorrected:
      return "corrected";
    case Provenance::kRecomputed:
      return "recomputed";
    case Provenance::kMoved:
      return "moved";
  }
  return "unknown";
}

void ProvenanceLog::Append(int64_t tokens, Provenance provenance, Fidelity fidelity) {
  ABSL_RAW_CHECK(tokens >= 0, "ProvenanceLog::Append: tokens is negative");
  if (tokens == 0) return;
  const Run run{.end = this->tokens() + tokens,
                .provenance = std::max(provenance, worst()),
                .fidelity = std::max(fidelity, lowest_fidelity())};
  if (!runs_.empty() && runs_.back().provenance == run.provenance &&
      runs_.back().fidelity == run.fidelity) {
    runs_.back().end = run.end;
  } else {
    runs_.push_back(run);
  }
}

const ProvenanceLog::Run& ProvenanceLog::RunOf(int64_t token) const {
  const auto run = std::upper_bound(runs_.begin(), runs_.end(), token,
                                    [](int64_t at, const Run& r) { return at < r.end; });
  ABSL_RAW_CHECK(token >= 0 && run != runs_.end(), "ProvenanceLog: no such token");
  return *run;
}

Provenance ProvenanceLog::At(int64_t token) const { return RunOf(token).provenance; }
Fidelity ProvenanceLog::FidelityAt(int64_t token) const { return RunOf(token).fidelity; }

Provenance ProvenanceLog::worst() const {
  return runs_.empty() ? Provenance::kExact : runs_.back().provenance;
}

Fidelity ProvenanceLog::lowest_fidelity() const {
  return runs_.empty() ? Fidelity::kLossless : runs_.back().fidelity;
}

int64_t ProvenanceLog::publishable_tokens() const {
  int64_t end = 0;
  for (const Run& run : runs_) {
    if (run.provenance > Provenance::kDense || run.fidelity != Fidelity::kLossless) break;
    end = run.end;
  }
  return end;
}

void ProvenanceLog::Truncate(int64_t tokens) {
  while (!runs_.empty() && (runs_.size() > 1 ? runs_[runs_.size() - 2].end : 0) >= tokens)
    runs_.pop_back();
  if (!runs_.empty()) runs_.back().end = std::min(runs_.back().end, tokens);
}

AssembledKv::AssembledKv(KvCache cache, ProvenanceLog log)
    : cache_(std::move(cache)), log_(std::move(log)) {
  ABSL_RAW_CHECK(cache_.length() == log_.tokens(), "AssembledKv: provenance of other tokens");
}

absl::StatusOr<Logits> AssembledKv::Prefill(Model& model, std::span<const int32_t> tokens) {
  const int64_t before = cache_.length();
  absl::StatusOr<Logits> logits = model.Prefill(tokens, cache_);
  log_.Append(cache_.length() - before, Provenance::kDense);
  return logits;
}

absl::StatusOr<Logits> AssembledKv::Decode(Model& model, int32_t token) {
  const int64_t before = cache_.length();
  absl::StatusOr<Logits> logits = model.Decode(token, cache_);
  log_.Append(cache_.length() - before, Provenance::kDense);
  return logits;
}

absl::StatusOr<KvCache*> AssembledKv::ForStore(int64_t tokens) {
  if (tokens < 0 || tokens > cache_.length()) {
    return absl::InvalidArgumentError(
        absl::StrCat("tokens: ", tokens, " of a cache of ", cache_.length()));
  }
  const int64_t publishable = log_.publishable_tokens();
  if (tokens > publishable) {
    return absl::PermissionDeniedError(absl::StrCat(
        "provenance: token ", publishable, " is ", ProvenanceName(log_.At(publishable)), ", ",
        FidelityName(log_.FidelityAt(publishable)),
        "; only lossless exact and dense KV stands under prefix keys"));
  }
  return &cache_;
}

}  // namespace kedge
