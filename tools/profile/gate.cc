#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/quality/evaluate.h"
#include "tests/quality/policies.h"
#include "tests/quality/summary.h"
#include "tools/profile/build_profile.h"

namespace kedge::profile {
namespace {

using quality::EvalTask;
using quality::QualityFigure;

constexpr double kTaskBar = 2.0;  // no task may lose more than twice what the mean may

// What each chain lost on one task. Names of figures: tests/quality/summary.h.
std::vector<GateRecord> RecordsOf(const EvalTask& task, const std::vector<QualityFigure>& figures,
                                  const std::vector<GateBar>& bars) {
  const auto find = [&](const std::string& name) -> const QualityFigure* {
    for (const QualityFigure& figure : figures) {
      if (figure.name == name) return &figure;
    }
    return nullptr;
  };
  std::vector<GateRecord> records;
  for (const GateBar& bar : bars) {
    GateRecord record{.chain = bar.chain, .task = task.name, .bar = kTaskBar * bar.points};
    const QualityFigure* lost =
        find(absl::StrCat(bar.chain, task.prose ? "/loss_added/" : "/points_lost/", task.name));
    const QualityFigure* kl = find(absl::StrCat(bar.chain, "/kl/", task.name));
    if (lost == nullptr) continue;
    const double scale = task.prose ? 100.0 : 1.0;
    record.points_lost = scale * lost->interval.mean;
    record.low = scale * lost->interval.low;
    record.high = scale * lost->interval.high;
    record.questions = static_cast<uint32_t>(lost->interval.values);
    if (kl != nullptr) record.kl = kl->interval.mean;
    record.passed = record.points_lost <= record.bar;
    records.push_back(record);
  }
  return records;
}

// The mean over tasks of one chain; tasks are independent samples.
GateRecord MeanOf(const GateBar& bar, const std::vector<GateRecord>& records) {
  GateRecord mean{.chain = bar.chain, .task = kGateMean, .bar = bar.points};
  double count = 0;
  double below = 0;
  double above = 0;
  for (const GateRecord& r : records) {
    if (r.chain != bar.chain) continue;
    ++count;
    mean.points_lost += r.points_lost;
    mean.kl += r.kl;
    mean.bits_per_value += r.bits_per_value;
    mean.questions += r.questions;
    below += (r.points_lost - r.low) * (r.points_lost - r.low);
    above += (r.high - r.points_lost) * (r.high - r.points_lost);
  }
  if (count == 0) return mean;
  mean.points_lost /= count;
  mean.kl /= count;
  mean.bits_per_value /= count;
  mean.low = mean.points_lost - std::sqrt(below) / count;
  mean.high = mean.points_lost + std::sqrt(above) / count;
  mean.passed = mean.points_lost <= mean.bar;
  return mean;
}

// A way of reuse (client/reuse) instead of a codec chain.
bool IsReuse(const std::string& chain) {
  return quality::IsOffsetPolicy(chain) || quality::IsRecomputePolicy(chain) ||
         quality::IsAutoPolicy(chain);
}

// What a policy learns from before it is asked about this task.
std::vector<quality::EvalContext> LearntFor(const std::string& task,
                                            const std::vector<EvalTask>* learnt) {
  if (learnt == nullptr) return {};
  for (const EvalTask& other : *learnt)
    if (other.name == task) return other.contexts;
  return {};
}

// Whether the chain can encode this model's KV at all: tried on one context.
absl::Status Try(const std::string& chain, const ModelProfile& profile, Model& model,
                 const quality::EvalContext& context) {
  absl::StatusOr<std::unique_ptr<quality::KvPolicy>> policy = quality::MakePolicy(chain, &profile);
  if (!policy.ok()) return policy.status();
  if (IsReuse(chain)) {
    // Over text that nothing stands in from elsewhere, reuse loses nothing and shows nothing.
    for (const quality::EvalPiece& piece : context.pieces) {
      if (!piece.filling || piece.count == 0) continue;
      return (*policy)->Calibrate(model, {});
    }
    return absl::FailedPreconditionError("these samples have no fillings");
  }
  const auto length = static_cast<int64_t>(context.tokens.size());
  absl::StatusOr<KvCache> dense = model.NewCache(length);
  if (!dense.ok()) return dense.status();
  if (absl::Status s = model.Prefill(context.tokens, *dense).status(); !s.ok()) return s;
  return (*policy)
      ->Obtain(model, {.context = context, .dense = *dense, .capacity = length})
      .status();
}

std::vector<GateBar> WhatCanBeMeasured(const std::vector<GateBar>& bars,
                                       const ModelProfile& profile, Model& model,
                                       const std::vector<EvalTask>& tasks,
                                       const Progress& progress) {
  const quality::EvalContext* longest = nullptr;
  for (const EvalTask& task : tasks) {
    for (const quality::EvalContext& context : task.contexts) {
      if (longest == nullptr || context.tokens.size() > longest->tokens.size()) longest = &context;
    }
  }
  std::vector<GateBar> measured;
  for (const GateBar& bar : bars) {
    const absl::Status can =
        longest == nullptr ? absl::OkStatus() : Try(bar.chain, profile, model, *longest);
    if (can.ok()) {
      measured.push_back(bar);
    } else {
      progress(absl::StrCat("left out ", bar.chain, ": ", can.message()));
    }
  }
  return measured;
}

}  // namespace

absl::StatusOr<ModelProfile> WithGate(const ModelProfile& profile,
                                      std::vector<quality::Runner>& runners,
                                      const std::vector<EvalTask>& tasks,
                                      const std::vector<GateBar>& asked, const Progress& progress,
                                      const std::vector<EvalTask>* learnt) {
  const std::vector<GateBar> bars =
      WhatCanBeMeasured(asked, profile, *runners[0].model, tasks, progress);
  std::vector<GateRecord> records;
  for (const EvalTask& task : tasks) {
    quality::Policies policies;
    std::vector<std::string> names = {"dense"};
    for (const GateBar& bar : bars) {
      absl::StatusOr<std::unique_ptr<quality::KvPolicy>> policy =
          quality::MakePolicy(bar.chain, &profile);
      if (!policy.ok()) return policy.status();
      if (IsReuse(bar.chain)) {
        absl::Status s = (*policy)->Calibrate(*runners[0].model, LearntFor(task.name, learnt));
        if (!s.ok()) return s;
      }
      names.push_back(bar.chain);
      policies.push_back(*std::move(policy));
    }
    const auto scores = quality::Evaluate(task, policies, runners);
    if (!scores.ok()) return scores.status();
    std::vector<GateRecord> found = RecordsOf(task, Summarize(task, *scores, names), bars);
    const auto tokens = static_cast<int64_t>(task.contexts.front().tokens.size());
    for (GateRecord& record : found) {
      for (const std::unique_ptr<quality::KvPolicy>& policy : policies) {
        if (policy->name() == record.chain)
          record.bits_per_value = policy->BitsPerValue(*runners[0].model, tokens);
      }
    }
    records.insert(records.end(), found.begin(), found.end());
    progress(absl::StrCat("measured ", task.name));
  }
  std::vector<GateRecord> all = records;
  for (const GateBar& bar : bars) all.push_back(MeanOf(bar, records));

  ModelProfile::Sections sections;
  for (const std::string& name : profile.section_names()) {
    if (name == kGateSection) continue;
    const std::span<const uint8_t> section = *profile.Section(name);
    sections[name].assign(section.begin(), section.end());
  }
  return ModelProfile::Make(profile.model(), sections, all);
}

}  // namespace kedge::profile
