// tools/bench quality: what a way of obtaining KV costs in answers, on any checkpoint.
//
// Every task of tests/quality/tasks is asked over dense KV and over each policy's, on the same
// questions. Cases are described in tests/quality/summary.h: dense/accuracy/recall,
// none/points_lost/role, none/kl/role. Values have 95% intervals, clustered by context; there is no
// yardstick but dense itself. Besides: sink/mass and keys/channel_ratio, how LLM-like the model's
// attention and keys are (tests/quality/statistics.h).
//
// Models: those that --model names, in order; without it the shipped ones, eval-1 and, unless
// --quick, eval-2. Figures of the first have plain names, those of others begin with their name.
// After each model its twin (gpu/model/twin.h), with names that begin with twin8/: keys have large
// channels, dense answers are the same.
//
// --quick ends within a minute; its intervals are wider, and say so.
#include <stdlib.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "gpu/model/file_map.h"
#include "gpu/profile/model_identity.h"
#include "proto/model_profile.h"
#include "tests/quality/eval_context.h"
#include "tests/quality/eval_model.h"
#include "tests/quality/evaluate.h"
#include "tests/quality/paired.h"
#include "tests/quality/policies.h"
#include "tests/quality/statistics.h"
#include "tests/quality/summary.h"
#include "tests/quality/task_file.h"
#include "tests/quality/task_source.h"
#include "tools/benchmarks/measure.h"
#include "tools/profile/build_profile.h"

namespace kedge::quality {
namespace {

constexpr char kModels[] = "tests/quality/models/";
constexpr int64_t kContexts = 240;
constexpr int64_t kContextsQuick = 40;
constexpr int64_t kCalibrationContexts = 80;  // 20 a consumer, which is a pool of anchors
constexpr size_t kStatisticsContexts = 4;
constexpr int64_t kProfileContexts = 20;  // of each task, where a profile has to be made
constexpr char kOnDemand[] = "density";   // a task that runs where it is named

struct Flags {
  std::vector<std::string> models;
  std::vector<std::string> policies = {"none", "fetched"};
  std::vector<std::string> only;
  std::string tasks;
  std::string calibration;
  std::string profile;
  std::string generator = "tests/quality/tasks/generate.py";
  int64_t contexts = 0;
  int threads = 0;
  float twin = 8.0f;
  bool query_aware = false;
  bool per_question = false;
  bool quick = false;
  bool json = false;
};

// A folder that is gone at the end.
class ScratchFolder {
 public:
  ScratchFolder()
      : path_((std::filesystem::temp_directory_path() / "kedge-tasks-XXXXXX").string()) {
    if (::mkdtemp(path_.data()) == nullptr) path_.clear();
  }
  ~ScratchFolder() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

class Bench {
 public:
  explicit Bench(const Flags& flags) : flags_(flags), reporter_(flags.json) {}

  absl::Status Run() {
    if (absl::Status s = PrepareTasks(); !s.ok()) return s;
    for (size_t i = 0; i < flags_.models.size(); ++i) {
      absl::StatusOr<EvalModel> model = ReadEvalModel(flags_.models[i]);
      if (!model.ok()) return model.status();
      const std::string prefix = i == 0 ? "" : model->name + "/";
      if (absl::Status s = RunModel(*model, prefix, 1.0f); !s.ok()) return s;
      if (flags_.twin == 1.0f) continue;
      const std::string twin = absl::StrCat(prefix, "twin", flags_.twin, "/");
      if (absl::Status s = RunModel(*model, twin, flags_.twin); !s.ok()) return s;
    }
    return absl::OkStatus();
  }

 private:
  absl::Status PrepareTasks() {
    tests_ = flags_.tasks;
    calibrations_ = flags_.calibration;
    if (tests_.empty()) {
      if (scratch_.path().empty()) return absl::UnavailableError("no temporary folder");
      tests_ = scratch_.path() + "/test";
      calibrations_ = scratch_.path() + "/calibration";
      absl::Status s = GenerateTasks(flags_.generator, "test", flags_.contexts, tests_);
      if (!s.ok()) return s;
      s = GenerateTasks(flags_.generator, "calibration", kCalibrationContexts, calibrations_);
      if (!s.ok()) return s;
    }
    absl::StatusOr<std::vector<std::string>> tasks = TasksIn(tests_);
    if (!tasks.ok()) return tasks.status();
    for (const std::string& name : flags_.only) {
      if (std::find(tasks->begin(), tasks->end(), name) == tasks->end())
        return absl::InvalidArgumentError(absl::StrCat("--task: no '", name, "' in ", tests_));
    }
    // What prunes nothing loses nothing there.
    std::erase(*tasks, kOnDemand);
    tasks_ = flags_.only.empty() ? *std::move(tasks) : flags_.only;
    return absl::OkStatus();
  }

  absl::StatusOr<EvalTask> Read(const std::string& folder, const std::string& name,
                                const EvalModel& model, int64_t contexts) const {
    absl::StatusOr<TaskFile> file = ReadTaskFile(absl::StrCat(folder, "/", name, ".jsonl"));
    if (!file.ok()) return file.status();
    return MakeEvalTask(*file, model,
                        {.query_aware = flags_.query_aware,
                         .per_question = flags_.per_question,
                         .contexts = contexts});
  }

  absl::Status RunModel(const EvalModel& model, const std::string& prefix, float twin) {
    absl::StatusOr<std::vector<Runner>> runners =
        MakeRunners(model, flags_.threads, {.twin_scale = twin});
    if (!runners.ok()) return runners.status();
    if (absl::Status s = FindProfile(model, prefix, twin, *runners); !s.ok()) return s;
    bool first = true;
    for (const std::string& name : tasks_) {
      absl::StatusOr<EvalTask> task = Read(tests_, name, model, flags_.contexts);
      if (!task.ok()) return task.status();
      if (first) {
        if (absl::Status s = PrintStatistics(*runners, *task, prefix); !s.ok()) return s;
      }
      first = false;
      if (absl::Status s = RunTask(model, *task, *runners, prefix); !s.ok()) return s;
    }
    return absl::OkStatus();
  }

  // Sets the profile that chains take their tables from: --profile, the one that lies beside the
  // weights, or one made from calibration contexts. None where no policy asks for one.
  absl::Status FindProfile(const EvalModel& model, const std::string& prefix, float twin,
                           std::vector<Runner>& runners) {
    profile_.reset();
    const bool wanted =
        std::any_of(flags_.policies.begin(), flags_.policies.end(), [](const std::string& name) {
          return absl::IsFailedPrecondition(MakePolicy(name).status());
        });
    if (!wanted) return absl::OkStatus();
    absl::StatusOr<std::string> weights = profile::WeightsDigest(model.directory);
    if (!weights.ok()) return weights.status();
    if (twin != 1.0f) absl::StrAppend(&*weights, "+twin", twin);
    const std::string shipped = model.directory + "/kedge_profile.bin";
    std::string path = twin == 1.0f ? flags_.profile : "";
    if (path.empty() && twin == 1.0f && std::filesystem::exists(shipped)) path = shipped;
    absl::StatusOr<ModelProfile> profile =
        path.empty() ? MakeProfile(model, *weights, runners) : ReadProfile(path);
    if (!profile.ok()) return profile.status();
    absl::Status s = profile->CheckModel(
        profile::ProfiledModelOf(model.config, runners[0].model->kv_dtype(), *weights));
    if (!s.ok()) return s;
    profile_ = *std::move(profile);
    reporter_.PrintValue("quality", prefix + "profile/bytes",
                         static_cast<double>(profile_->bytes().size()), "bytes",
                         path.empty() ? "once a model; made from calibration contexts"
                                      : "once a model; from a file");
    return absl::OkStatus();
  }

  static absl::StatusOr<ModelProfile> ReadProfile(const std::string& path) {
    const absl::StatusOr<FileMap> file = FileMap::Open(path);
    if (!file.ok()) return file.status();
    return ModelProfile::Parse({file->bytes().begin(), file->bytes().end()});
  }

  absl::StatusOr<ModelProfile> MakeProfile(const EvalModel& model, const std::string& weights,
                                           std::vector<Runner>& runners) const {
    if (calibrations_.empty())
      return absl::InvalidArgumentError("--calibration: is needed to make a profile from");
    std::vector<EvalTask> tasks;
    for (const std::string& name : tasks_) {
      absl::StatusOr<EvalTask> task = Read(calibrations_, name, model, kProfileContexts);
      if (!task.ok()) return task.status();
      tasks.push_back(*std::move(task));
    }
    return profile::BuildProfile(model, weights, runners, tasks, {}, [](const std::string&) {});
  }

  absl::Status PrintStatistics(std::vector<Runner>& runners, const EvalTask& task,
                               const std::string& prefix) {
    absl::StatusOr<ModelStatistics> statistics =
        MeasureModel(*runners[0].model, task.contexts, kStatisticsContexts);
    if (!statistics.ok()) return statistics.status();
    const auto print = [&](const std::string& name, const std::vector<double>& by_layer,
                           const char* unit, const std::string& note) {
      reporter_.PrintValue("quality", prefix + name, MeanOverLayers(by_layer), unit, note);
      for (size_t layer = 0; layer < by_layer.size() && !flags_.quick; ++layer)
        reporter_.PrintValue("quality", absl::StrCat(prefix, name, "/layer", layer),
                             by_layer[layer], unit);
    };
    print("sink/mass", statistics->sink, "share",
          absl::StrFormat("of attention goes to the first token; %.4f if to all alike",
                          statistics->uniform));
    print("keys/channel_ratio", statistics->key_channels, "ratio",
          "largest key channel to the median one");
    return absl::OkStatus();
  }

  absl::Status RunTask(const EvalModel& model, const EvalTask& task, std::vector<Runner>& runners,
                       const std::string& prefix) {
    Policies policies;
    std::vector<std::string> names = {"dense"};
    for (const std::string& name : flags_.policies) {
      absl::StatusOr<std::unique_ptr<KvPolicy>> policy =
          MakePolicy(name, profile_ ? &*profile_ : nullptr);
      if (!policy.ok()) return policy.status();
      if (!calibrations_.empty()) {
        absl::StatusOr<EvalTask> calibration = Read(calibrations_, task.name, model, 0);
        if (!calibration.ok()) return calibration.status();
        absl::Status s = (*policy)->Calibrate(*runners[0].model, calibration->contexts);
        if (!s.ok()) return s;
      }
      names.push_back(name);
      policies.push_back(*std::move(policy));
    }
    absl::StatusOr<std::vector<ContextScores>> scores = Evaluate(task, policies, runners);
    if (!scores.ok()) return scores.status();
    const auto tokens = static_cast<int64_t>(task.contexts.front().tokens.size());
    for (const std::unique_ptr<KvPolicy>& policy : policies) {
      if (policy->AcceptedShare() > 0.0) {
        reporter_.PrintValue("quality",
                             absl::StrCat(prefix, policy->name(), "/accepted/", task.name),
                             policy->AcceptedShare(), "share", "of placeholders");
      }
      if (policy->OperationsShare() > 0.0) {
        reporter_.PrintValue("quality",
                             absl::StrCat(prefix, policy->name(), "/operations/", task.name),
                             policy->OperationsShare(), "", "of a dense prefill's");
      }
      if (policy->ReusedShare() > 0.0) {
        reporter_.PrintValue(
            "quality", absl::StrCat(prefix, policy->name(), "/tokens_reused/", task.name),
            policy->ReusedShare(), "share", "of the fillings' tokens, without those computed anew");
      }
      const double bits = policy->BitsPerValue(*runners[0].model, tokens);
      if (bits <= 0.0) continue;
      reporter_.PrintValue("quality",
                           absl::StrCat(prefix, policy->name(), "/bits_per_value/", task.name),
                           bits, "bits", absl::StrCat("a context of ", tokens, " tokens"));
      const double later = policy->LaterBitsPerValue();
      if (later <= 0.0) continue;
      reporter_.PrintValue(
          "quality", absl::StrCat(prefix, policy->name(), "/bits_per_value_later/", task.name),
          later, "bits", "of blocks that begin no sequence");
    }
    for (const QualityFigure& figure : Summarize(task, *scores, names)) Print(figure, prefix);
    if (!task.prose) PrintWon(task, *scores, names, prefix);
    return absl::OkStatus();
  }

  // Of policies that name a share and a layer (deviation0.15@2): what they win over chance and over
  // EPIC at the same cost, where these are asked for as well.
  void PrintWon(const EvalTask& task, const std::vector<ContextScores>& scores,
                const std::vector<std::string>& names, const std::string& prefix) {
    for (size_t i = 0; i < names.size(); ++i) {
      const size_t digit = names[i].find_first_of("0123456789");
      if (digit == std::string::npos) continue;
      for (const std::string other : {"random", "epic"}) {
        const auto found = std::find(names.begin(), names.end(), other + names[i].substr(digit));
        if (found == names.end() || *found == names[i]) continue;
        const Interval won = PointsWon(task, scores, i, found - names.begin());
        bench::Figure line{
            .bench = "quality",
            .name = absl::StrCat(prefix, names[i], "/won_over_", other, "/", task.name),
            .value = won.mean,
            .unit = "points"};
        line.low = won.low;
        line.high = won.high;
        line.note = absl::StrFormat("n=%d in %d contexts", won.values, won.clusters);
        reporter_.Print(line);
      }
    }
  }

  void Print(const QualityFigure& figure, const std::string& prefix) {
    const Interval& interval = figure.interval;
    bench::Figure line{.bench = "quality",
                       .name = prefix + figure.name,
                       .value = interval.mean,
                       .unit = figure.unit};
    line.low = interval.low;
    line.high = interval.high;
    line.note = absl::StrFormat("n=%d in %d contexts", interval.values, interval.clusters);
    if (figure.bar) {
      absl::StrAppendFormat(&line.note, "; interval %.2f wide, bar %g: %s", interval.width(),
                            *figure.bar, figure.narrow_enough() ? "narrow enough" : "TOO WIDE");
      // A bootstrap of nothing but zeros says 0 +- 0; this is what it cannot exclude.
      if (interval.low == 0 && interval.high == 0)
        absl::StrAppendFormat(&line.note, "; none differed, at most %.2f by the rule of three",
                              300.0 / static_cast<double>(interval.values));
    }
    reporter_.Print(line);
  }

  const Flags& flags_;
  bench::Reporter reporter_;
  ScratchFolder scratch_;
  std::string tests_;
  std::string calibrations_;
  std::vector<std::string> tasks_;
  std::optional<ModelProfile> profile_;
};

void AddFlags(CLI::App& app, Flags& flags) {
  app.add_option("--model", flags.models, "Hugging Face checkpoint; may be given several times")
      ->type_name("DIR");
  app.add_option("--policy", flags.policies, "Ways of obtaining KV besides dense")
      ->delimiter(',')
      ->type_name("NAME,...")
      ->capture_default_str();
  app.add_option("--task", flags.only, "These tasks only")->delimiter(',')->type_name("NAME,...");
  app.add_option("--tasks", flags.tasks, "Task files (TASK.jsonl) instead of generated ones")
      ->type_name("DIR");
  app.add_option("--calibration", flags.calibration, "Calibration files to go with --tasks")
      ->type_name("DIR");
  app.add_option(
         "--profile", flags.profile,
         "Where chains take tables from; by default DIR/kedge_profile.bin, or made on the spot")
      ->type_name("FILE");
  app.add_option("--generator", flags.generator, "Makes the task files")->type_name("FILE");
  app.add_option(
         "--contexts", flags.contexts,
         absl::StrCat("Of each task; ", kContexts, ", or ", kContextsQuick, " with --quick"))
      ->check(CLI::Range(1, 100000))
      ->type_name("N");
  app.add_option("--threads", flags.threads, "0 takes all cores")->check(CLI::Range(0, 1024));
  app.add_option("--twin", flags.twin, "Scale of the twin's large key channels; 1 omits the twin")
      ->capture_default_str();
  app.add_flag("--query-aware", flags.query_aware, "Repeat each question before its context");
  app.add_flag("--per-question", flags.per_question,
               "Obtain the context's KV for each question anew: for policies that look at it");
  app.add_flag("--quick", flags.quick, "Under a minute");
  app.add_flag("--json", flags.json, "One JSON object a line");
}

int Main(int argc, char** argv) {
  Flags flags;
  CLI::App app("Asks questions over KV obtained in different ways and counts what is lost.",
               "quality_bench");
  AddFlags(app, flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (flags.models.empty()) {
    flags.models.push_back(std::string(kModels) + "eval-1");
    const std::string second = std::string(kModels) + "eval-2";
    if (!flags.quick && std::filesystem::exists(second)) flags.models.push_back(second);
  }
  if (flags.contexts == 0) flags.contexts = flags.quick ? kContextsQuick : kContexts;
  if (flags.threads == 0)
    flags.threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  std::erase(flags.policies, "dense");  // always there
  const absl::Status status = Bench(flags).Run();
  if (status.ok()) return 0;
  std::fprintf(stderr, "quality_bench: %s\n", std::string(status.message()).c_str());
  return absl::IsInvalidArgument(status) || absl::IsNotFound(status) ? 2 : 1;
}

}  // namespace
}  // namespace kedge::quality

int main(int argc, char** argv) { return kedge::quality::Main(argc, argv); }
