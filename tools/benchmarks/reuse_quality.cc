#include "tools/benchmarks/reuse_quality.h"

#include <algorithm>
#include <map>
#include <memory>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/reuse/local_pools.h"
#include "client/reuse/reuse_runner.h"
#include "gpu/kernels/sampling.h"
#include "tests/quality/mix_file.h"
#include "tests/quality/offset_prompt.h"
#include "tests/quality/policies.h"
#include "tests/quality/summary.h"
#include "tests/quality/task_file.h"
#include "tests/quality/task_source.h"

namespace kedge::bench {
namespace {

using quality::EvalContext;
using quality::EvalTask;

constexpr int64_t kCalibration = 80;
constexpr int64_t kAnchors = 20;
constexpr int64_t kJudged = 24;

// Role's templates with another task's fillings and questions: the same placeholders, other needs.
EvalContext InTemplatesOf(const EvalContext& role, const EvalContext& other) {
  EvalContext made{.id = absl::StrCat(role.id, "+", other.id),
                   .consumer = role.consumer,
                   .cluster = other.cluster,
                   .lead = role.lead,
                   .questions = other.questions};
  std::vector<const quality::EvalPiece*> fillings;
  for (const quality::EvalPiece& piece : other.pieces)
    if (piece.filling) fillings.push_back(&piece);
  size_t next = 0;
  for (const quality::EvalPiece& piece : role.pieces) {
    if (piece.filling && next == fillings.size()) break;
    const EvalContext& from = piece.filling ? other : role;
    quality::EvalPiece taken = piece.filling ? *fillings[next++] : piece;
    const int64_t first = taken.first;
    taken.placeholder = piece.placeholder;
    taken.first = static_cast<int64_t>(made.tokens.size());
    made.tokens.insert(made.tokens.end(), from.tokens.begin() + first,
                       from.tokens.begin() + first + taken.count);
    made.pieces.push_back(taken);
  }
  return made;
}

absl::StatusOr<std::vector<bool>> RightAnswers(Model& model, KvCache& cache,
                                               const EvalContext& context) {
  std::vector<bool> right;
  for (const quality::EvalQuestion& question : context.questions) {
    absl::StatusOr<Logits> logits = quality::AnswerLogits(model, cache, context, question);
    if (!logits.ok()) return logits.status();
    bool all = true;
    for (size_t i = 0; i < question.answer.size(); ++i)
      all &= kernels::ArgMax(logits->row(static_cast<int64_t>(i))) == question.answer[i];
    right.push_back(all);
  }
  return right;
}

}  // namespace

absl::Status ReuseQuality::Prepare() {
  if (scratch_.empty()) return absl::UnavailableError("no temporary folder");
  for (const auto& [split, contexts] :
       {std::pair{"test", quality::kMixContexts}, {"calibration", kCalibration}}) {
    absl::Status s =
        quality::GenerateTasks(generator_, split, contexts, absl::StrCat(scratch_, "/", split));
    if (!s.ok()) return s;
  }
  absl::StatusOr<std::vector<quality::Runner>> runners = quality::MakeRunners(eval_, threads_, {});
  if (!runners.ok()) return runners.status();
  runners_ = *std::move(runners);
  return absl::OkStatus();
}

absl::StatusOr<EvalTask> ReuseQuality::Read(const std::string& split, const std::string& task,
                                            int64_t contexts) const {
  absl::StatusOr<quality::TaskFile> file =
      quality::ReadTaskFile(absl::StrCat(scratch_, "/", split, "/", task, ".jsonl"));
  if (!file.ok()) return file.status();
  return quality::MakeEvalTask(*file, eval_, {.contexts = contexts});
}

absl::Status ReuseQuality::GateOn(const std::string& name, const std::vector<EvalContext>& learnt,
                                  const std::vector<EvalContext>& asked) {
  Model& model = *runners_[0].model;
  LocalPools pools({.pool = {.capacity = kAnchors}});
  ReuseOptions options;
  options.rates = {.layers = model.config().layers, .token = 1};  // dense is never faster
  options.rules.recompute = absl::FailedPreconditionError("not asked for");
  ReuseRunner gated({}, {}, options, pools);
  options.offsets.gate.off = true;
  ReuseRunner open({}, {}, options, pools);
  std::map<std::string, int64_t> runs;
  for (const EvalContext& context : learnt) {
    if (runs[context.consumer]++ >= kAnchors) continue;
    absl::StatusOr<DenseContext> dense = DenseContext::Compute(model, context.tokens);
    if (!dense.ok()) return dense.status();
    if (absl::Status s = gated.Learn(model, PromptOf(context), *dense); !s.ok()) return s;
  }
  double calls = 0, corrected_calls = 0, wrong = 0, repairable = 0;
  double repairable_placeholders = 0, repairable_accepted = 0;
  double lost = 0, questions = 0;
  std::map<std::string, double> refusals;
  for (const EvalContext& context : asked) {
    const int64_t capacity = quality::CapacityFor(context);
    absl::StatusOr<KvCache> dense = quality::DenseKv(model, context, capacity);
    if (!dense.ok()) return dense.status();
    absl::StatusOr<std::vector<bool>> truth = RightAnswers(model, *dense, context);
    if (!truth.ok()) return truth.status();
    std::vector<bool> said[2];
    int64_t accepted = 0, placeholders = 0;
    for (ReuseRunner* runner : {&open, &gated}) {
      absl::StatusOr<KvCache> cache = model.NewCache(capacity);
      if (!cache.ok()) return cache.status();
      absl::StatusOr<ReuseAnswer> answer =
          runner->Run(model, {.prompt = PromptOf(context)}, *std::move(cache));
      if (!answer.ok()) return answer.status();
      KvCache kv = std::move(answer->kv).Take().first;
      absl::StatusOr<std::vector<bool>> right = RightAnswers(model, kv, context);
      if (!right.ok()) return right.status();
      said[runner == &gated] = *std::move(right);
      if (runner == &open) continue;
      for (const quality::EvalPiece& piece : context.pieces) {
        if (!piece.filling || piece.count == 0) continue;
        ++placeholders;
        for (const SegmentDecision& segment : answer->decision.segments) {
          if (segment.first != piece.first) continue;
          accepted += segment.treatment == Treatment::kCorrected;
          if (segment.why == WhyNot::kOffsets) ++refusals[OffsetRefusalName(segment.offsets)];
        }
      }
    }
    const auto loses = [&](const std::vector<bool>& answers) {
      int64_t count = 0;
      for (size_t i = 0; i < truth->size(); ++i) count += (*truth)[i] && !answers[i];
      return count;
    };
    ++calls;
    questions += static_cast<double>(truth->size());
    lost += static_cast<double>(loses(said[1]));
    corrected_calls += accepted > 0;
    wrong += accepted > 0 && loses(said[1]) > 0;
    if (loses(said[0]) > 0) continue;
    ++repairable;
    repairable_placeholders += static_cast<double>(placeholders);
    repairable_accepted += static_cast<double>(accepted);
  }
  std::string why;
  for (const auto& [refusal, count] : refusals)
    absl::StrAppendFormat(&why, "%s%s %d", why.empty() ? "" : ", ", refusal,
                          static_cast<int>(count));
  reporter_.PrintValue(
      "reuse", name + "/wrong-accepts", corrected_calls > 0 ? wrong / corrected_calls : 0.0,
      "share",
      absl::StrFormat("%d of %d calls with something corrected, of %d", static_cast<int>(wrong),
                      static_cast<int>(corrected_calls), static_cast<int>(calls)));
  reporter_.PrintValue(
      "reuse", name + "/repairable-accepted",
      repairable_placeholders > 0 ? repairable_accepted / repairable_placeholders : 0.0, "share",
      absl::StrFormat("of the placeholders of %d repairable calls; refusals: %s",
                      static_cast<int>(repairable), why));
  reporter_.PrintValue("reuse", name + "/points_lost", 100 * lost / questions, "points",
                       absl::StrFormat("of %d questions", static_cast<int>(questions)));
  return absl::OkStatus();
}

absl::Status ReuseQuality::Gate() {
  const int64_t contexts = quick_ ? 4 : kJudged;
  std::map<std::string, EvalTask> learnt, asked;
  for (const char* task : {"role", "alias", "ditto", "carry"}) {
    absl::StatusOr<EvalTask> calibration = Read("calibration", task, quick_ ? 40 : kCalibration);
    absl::StatusOr<EvalTask> test = Read("test", task, contexts);
    if (!calibration.ok()) return calibration.status();
    if (!test.ok()) return test.status();
    learnt[task] = *std::move(calibration);
    asked[task] = *std::move(test);
  }
  const auto stream = [](const std::map<std::string, EvalTask>& tasks, bool shared) {
    std::vector<EvalContext> all;
    const EvalTask& role = tasks.at("role");
    for (size_t i = 0; i < role.contexts.size(); ++i) {
      all.push_back(role.contexts[i]);
      for (const char* name : {"alias", "ditto", "carry"}) {
        // Half of the calls are role's.
        if (shared && i % 3 != (name[0] == 'a' ? 0u : name[0] == 'd' ? 1u : 2u)) continue;
        const EvalContext& other = tasks.at(name).contexts[i];
        all.push_back(shared ? InTemplatesOf(role.contexts[i], other) : other);
      }
    }
    return all;
  };
  if (absl::Status s = GateOn("gate", stream(learnt, true), stream(asked, true)); !s.ok()) return s;
  return GateOn("gate/by-task", stream(learnt, false), stream(asked, false));
}

absl::Status ReuseQuality::Judge(const EvalTask& task, const std::vector<std::string>& names,
                                 const std::vector<EvalContext>& calibration,
                                 const std::string& prefix, double* lost) {
  quality::Policies policies;
  std::vector<std::string> all = {"dense"};
  for (const std::string& name : names) {
    absl::StatusOr<std::unique_ptr<quality::KvPolicy>> policy = quality::MakePolicy(name);
    if (!policy.ok()) return policy.status();
    absl::Status s = (*policy)->Calibrate(*runners_[0].model, calibration);
    if (!s.ok()) return s;
    all.push_back(name);
    policies.push_back(*std::move(policy));
  }
  const auto scores = quality::Evaluate(task, policies, runners_);
  if (!scores.ok()) return scores.status();
  for (const quality::QualityFigure& figure : quality::Summarize(task, *scores, all)) {
    const bool points = absl::StrContains(figure.name, "/points_lost/");
    if (!points && !absl::StrContains(figure.name, "/kl/")) continue;
    if (std::count(figure.name.begin(), figure.name.end(), '/') != 2) continue;
    if (points && lost != nullptr) *lost = figure.interval.mean;
    reporter_.Print({.bench = "reuse",
                     .name = prefix + figure.name,
                     .value = figure.interval.mean,
                     .unit = figure.unit,
                     .low = figure.interval.low,
                     .high = figure.interval.high,
                     .note = absl::StrFormat("n=%d in %d contexts", figure.interval.values,
                                             figure.interval.clusters)});
  }
  for (const auto& policy : policies) {
    const auto share = [&](const char* what, double value, const char* note) {
      if (value > 0)
        reporter_.PrintValue("reuse",
                             absl::StrCat(prefix, policy->name(), "/", what, "/", task.name), value,
                             "share", note);
    };
    share("accepted", policy->AcceptedShare(), "of placeholders");
    share("tokens_reused", policy->ReusedShare(),
          "of the fillings' tokens, the most an oracle could reuse; without recomputed ones");
    share("operations", policy->OperationsShare(), "of a dense prefill's");
  }
  return absl::OkStatus();
}

absl::Status ReuseQuality::Auto(const std::string& mix_file) {
  absl::StatusOr<quality::Mix> mix = quality::ReadMix(mix_file);
  if (!mix.ok()) return mix.status();
  if (absl::Status same = quality::CheckMix(*mix, mix_file, scratch_ + "/test"); !same.ok())
    return same;
  std::map<std::string, std::vector<int64_t>> chosen;
  for (const quality::MixEntry& entry : mix->entries) chosen[entry.task].push_back(entry.index);
  double worst = 0;
  for (const auto& [name, indices] : chosen) {
    absl::StatusOr<EvalTask> task = Read("test", name, 0);
    if (!task.ok()) return task.status();
    absl::StatusOr<EvalTask> calibration = Read("calibration", name, quick_ ? 40 : 0);
    if (!calibration.ok()) return calibration.status();
    EvalTask some{.name = task->name, .prose = task->prose};
    for (const int64_t index : indices) {
      if (quick_ && some.contexts.size() == 2) break;
      some.contexts.push_back(task->contexts[index]);
    }
    double lost = 0;
    absl::Status s = Judge(some, {"auto"}, calibration->contexts, "", &lost);
    if (!s.ok()) return s;
    worst = std::max(worst, lost);
  }
  reporter_.PrintValue("reuse", "auto/points_lost", worst, "points",
                       absl::StrCat("the worst task of the mix ", mix->digest.substr(0, 12)));
  return absl::OkStatus();
}

absl::Status ReuseQuality::Ablations() {
  absl::StatusOr<EvalTask> role = Read("test", "role", kJudged);
  absl::StatusOr<EvalTask> calibration = Read("calibration", "role", 0);
  if (!role.ok()) return role.status();
  if (!calibration.ok()) return calibration.status();
  const std::vector<EvalContext>& learnt = calibration->contexts;
  absl::Status s =
      Judge(*role,
            {"none", "kvcomm", "linear", "kvcomm-nogate", "linear-nogate", "kvcomm-nogate-norotate",
             "kvcomm-nogate-nofilling", "kvcomm-nogate-noprefix", "kvcomm-nogate-nearest",
             "kvcomm-nogate-mean", "kvcomm-paper", "kvcomm-nogate-n1", "kvcomm-nogate-n2",
             "kvcomm-nogate-n5", "kvcomm-nogate-n10"},
            learnt, "ablation/");
  if (!s.ok()) return s;
  for (const char* name : {"alias", "ditto", "carry"}) {
    absl::StatusOr<EvalTask> task = Read("test", name, kJudged);
    absl::StatusOr<EvalTask> past = Read("calibration", name, 0);
    if (!task.ok()) return task.status();
    if (!past.ok()) return past.status();
    s = Judge(*task, {"kvcomm", "linear", "kvcomm-nogate", "linear-nogate"}, past->contexts,
              "ablation/");
    if (!s.ok()) return s;
  }
  // Ten of twenty are learnt: which ones depends on the order.
  std::vector<double> lost;
  for (int order = 0; order < 3; ++order) {
    std::vector<EvalContext> shuffled = learnt;
    if (order == 1) std::reverse(shuffled.begin(), shuffled.end());
    if (order == 2)
      std::rotate(shuffled.begin(), shuffled.begin() + static_cast<int64_t>(shuffled.size() / 2),
                  shuffled.end());
    lost.push_back(0);
    s = Judge(*role, {"kvcomm-n10"}, shuffled, absl::StrCat("ablation/order", order, "/"),
              &lost.back());
    if (!s.ok()) return s;
  }
  const auto [low, high] = std::minmax_element(lost.begin(), lost.end());
  reporter_.PrintValue("reuse", "ablation/order/spread", *high - *low, "points",
                       "kvcomm-n10 on role, three orders of learning");
  return absl::OkStatus();
}

}  // namespace kedge::bench
