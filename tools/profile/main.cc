// tools/profile_model DIR --out FILE: what was learned about one model, in one file that nodes and
// clients load (proto/model_profile.h).
//
// Samples come from the calibration split of the quality tasks, in whose language the shipped
// models think; for any other checkpoint --text names a file of prompts, one a paragraph. Half of
// them fit bases, tables, layer budgets and query statistics, the other half measure every chain
// for the gate. Prints the gate.
#include <stdlib.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gpu/codec/pruned_chain.h"
#include "gpu/profile/model_identity.h"
#include "tests/quality/task_file.h"
#include "tests/quality/task_source.h"
#include "tools/profile/build_profile.h"

namespace kedge::profile {
namespace {

struct Flags {
  std::string directory;
  std::string out;
  std::string text;
  std::string weights_id;
  std::string generator = "tests/quality/tasks/generate.py";
  int64_t contexts = 40;
  int64_t tokens = 24000;
  int threads = 0;
  float twin = 1.0f;
  std::vector<std::string> chains = {"fp8",
                                     "kivi8g32",
                                     "kivi4g32",
                                     "kivi4g32s8",
                                     "kivi4g64",
                                     "kivi2g32",
                                     "kivi2g32s8",
                                     "kivi2g64",
                                     "had+kivi2g32",
                                     "kivi4g32+rans",
                                     "kivi2g32+rans",
                                     "kivi2g32s8+rans",
                                     "kivi2g64+rans",
                                     "had+kivi2g32+rans",
                                     "archive4",
                                     "archive3",
                                     "archive2",
                                     "archive1.5",
                                     "archive1",
                                     "archive0.75",
                                     "uniform0.75-keydiff+kivi4g32",
                                     "uniform0.75-keydiff+archive1.5",
                                     "uniform0.5-keydiff+kivi4g32",
                                     "uniform0.5-keydiff+archive1.5",
                                     "prefixkv0.9-keydiff+kivi4g32",
                                     "prefixkv0.75-keydiff+kivi4g32",
                                     "prefixkv0.5-keydiff+raw",
                                     "prefixkv0.5-keydiff+kivi4g32",
                                     "prefixkv0.5-expect+kivi4g32",
                                     "prefixkv0.5+kivi4g32",
                                     "prefixkv0.5+kvcrush0.1+kivi4g32",
                                     "kvcomm",
                                     "linear",
                                     "cacheblend0.15@3",
                                     "dhd0.15@3",
                                     "auto"};
};

// What a chain may lose, in points of 100 over the mean of tasks. What is pruned is small already:
// as the archive, it may lose a point.
double BarOf(const std::string& chain) {
  if (codec::PrunedChain::IsPruned(chain)) return 1.0;
  if (chain == "fp8" || chain.find("kivi8") != std::string::npos ||
      chain.find("kivi4") != std::string::npos)
    return 0.5;
  return chain.find("kivi2") != std::string::npos ? 2.0 : 1.0;
}

absl::StatusOr<std::vector<quality::EvalTask>> FromText(const std::string& path,
                                                        const quality::EvalModel& model) {
  std::ifstream file(path);
  std::stringstream content;
  content << file.rdbuf();
  if (!file) return absl::NotFoundError(absl::StrCat(path, ": cannot be read"));
  quality::EvalTask task{.name = "text", .prose = true, .contexts = {}};
  std::string text = content.str();
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find("\n\n", at), text.size());
    absl::StatusOr<std::vector<int32_t>> tokens =
        model.tokenizer.Encode(std::string_view(text).substr(at, end - at));
    at = end + 2;
    if (!tokens.ok()) return tokens.status();
    // Three quarters are the context, the rest is what must be foretold from it.
    const auto most = static_cast<size_t>(model.evaluated_tokens);
    if (tokens->size() > most) tokens->resize(most);
    if (tokens->size() < 16) continue;
    quality::EvalContext& context = task.contexts.emplace_back();
    context.id = context.cluster = absl::StrCat("paragraph", task.contexts.size());
    const auto border = static_cast<int64_t>(tokens->size() * 3 / 4);
    context.tokens.assign(tokens->begin(), tokens->begin() + border);
    context.questions.push_back({.tokens = {(*tokens)[border]},
                                 .answer = {tokens->begin() + border + 1, tokens->end()},
                                 .tag = ""});
  }
  if (task.contexts.size() < 2) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": has ", task.contexts.size(),
                                                   " paragraphs of 16 tokens, 2 are needed"));
  }
  return std::vector<quality::EvalTask>{task};
}

absl::StatusOr<std::vector<quality::EvalTask>> FromTasks(const Flags& flags,
                                                         const quality::EvalModel& model) {
  std::string folder = (std::filesystem::temp_directory_path() / "kedge-profile-XXXXXX").string();
  if (::mkdtemp(folder.data()) == nullptr) return absl::UnavailableError("no temporary folder");
  absl::StatusOr<std::vector<quality::EvalTask>> tasks = std::vector<quality::EvalTask>();
  absl::Status status =
      quality::GenerateTasks(flags.generator, "calibration", 2 * flags.contexts, folder);
  absl::StatusOr<std::vector<std::string>> names = quality::TasksIn(folder);
  if (status.ok() && !names.ok()) status = names.status();
  for (size_t i = 0; status.ok() && i < names->size(); ++i) {
    const auto file = quality::ReadTaskFile(absl::StrCat(folder, "/", (*names)[i], ".jsonl"));
    status = file.status();
    if (!status.ok()) break;
    absl::StatusOr<quality::EvalTask> task = quality::MakeEvalTask(*file, model);
    status = task.status();
    if (status.ok()) tasks->push_back(*std::move(task));
  }
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
  if (!status.ok()) return status;
  return tasks;
}

// The first half of every task's contexts, and the other.
std::pair<std::vector<quality::EvalTask>, std::vector<quality::EvalTask>> Halves(
    std::vector<quality::EvalTask> tasks) {
  std::vector<quality::EvalTask> second = tasks;
  for (size_t i = 0; i < tasks.size(); ++i) {
    const auto half = static_cast<int64_t>(tasks[i].contexts.size() / 2);
    tasks[i].contexts.resize(half);
    second[i].contexts.erase(second[i].contexts.begin(), second[i].contexts.begin() + half);
  }
  return {std::move(tasks), std::move(second)};
}

void PrintGate(const ModelProfile& profile) {
  std::printf("%-32s %-8s %8s %18s %6s %9s %7s %6s\n", "chain", "task", "lost", "interval", "bar",
              "kl", "bits", "passed");
  for (const GateRecord& r : profile.gate()) {
    std::printf("%-32s %-8s %8.2f [%7.2f, %7.2f] %6.2f %9.5f %7.3f %6s\n", r.chain.c_str(),
                r.task.c_str(), r.points_lost, r.low, r.high, r.bar, r.kl, r.bits_per_value,
                r.passed ? "yes" : "NO");
  }
}

absl::Status Run(const Flags& flags) {
  absl::StatusOr<quality::EvalModel> model = quality::ReadEvalModel(flags.directory);
  if (!model.ok()) return model.status();
  std::string weights_id = flags.weights_id;
  if (weights_id.empty()) {
    absl::StatusOr<std::string> digest = WeightsDigest(flags.directory);
    if (!digest.ok()) return digest.status();
    weights_id = *digest;
  }
  if (flags.twin != 1.0f) absl::StrAppend(&weights_id, "+twin", flags.twin);
  absl::StatusOr<std::vector<quality::EvalTask>> tasks =
      flags.text.empty() ? FromTasks(flags, *model) : FromText(flags.text, *model);
  if (!tasks.ok()) return tasks.status();
  const int threads = flags.threads > 0
                          ? flags.threads
                          : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  absl::StatusOr<std::vector<quality::Runner>> runners =
      quality::MakeRunners(*model, threads, {.twin_scale = flags.twin});
  if (!runners.ok()) return runners.status();
  const auto progress = [](const std::string& what) {
    std::fprintf(stderr, "profile_model: %s\n", what.c_str());
  };
  const auto [fit, check] = Halves(*std::move(tasks));
  absl::StatusOr<ProfileOptions> options = OptionsFor(flags.chains);
  if (!options.ok()) return options.status();
  options->tokens_max = flags.tokens;
  absl::StatusOr<ModelProfile> profile =
      BuildProfile(*model, weights_id, *runners, fit, *options, progress);
  if (!profile.ok()) return profile.status();
  std::vector<GateBar> bars;
  for (const std::string& chain : flags.chains) bars.push_back({chain, BarOf(chain)});
  profile = WithGate(*profile, *runners, check, bars, progress, &fit);
  if (!profile.ok()) return profile.status();
  PrintGate(*profile);
  std::ofstream out(flags.out, std::ios::binary);
  out.write(reinterpret_cast<const char*>(profile->bytes().data()),
            static_cast<std::streamsize>(profile->bytes().size()));
  out.close();
  if (!out) return absl::UnavailableError(absl::StrCat(flags.out, ": cannot be written"));
  std::printf("profile %s of %s: %zu bytes in %s\n", profile->id().ToHex().c_str(),
              weights_id.c_str(), profile->bytes().size(), flags.out.c_str());
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  Flags flags;
  CLI::App app(
      "Computes a model's profile: bases, entropy tables, layer budgets, and what every chain "
      "loses.",
      "profile_model");
  app.add_option("DIR", flags.directory, "Hugging Face checkpoint with its tokenizer")->required();
  app.add_option("--out", flags.out, "The profile to write")->required()->type_name("FILE");
  app.add_option("--text", flags.text, "Prompts, one a paragraph, instead of the quality tasks")
      ->type_name("FILE");
  app.add_option("--weights-id", flags.weights_id,
                 "What the engines call these weights; by default their digest");
  app.add_option("--generator", flags.generator, "Makes the task files")->type_name("FILE");
  app.add_option("--contexts", flags.contexts, "Of each task, for fitting; as many for the gate")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  app.add_option("--tokens", flags.tokens, "That are fitted to, at most")
      ->check(CLI::Range(64, 100000000))
      ->capture_default_str();
  app.add_option("--threads", flags.threads, "0 takes all cores")->check(CLI::Range(0, 1024));
  app.add_option("--twin", flags.twin, "Profile the twin with key channels this much larger");
  app.add_option("--chain", flags.chains, "Chains and ways of reuse to measure for the gate")
      ->delimiter(',')
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = Run(flags);
  if (status.ok()) return 0;
  std::fprintf(stderr, "profile_model: %s\n", std::string(status.message()).c_str());
  return absl::IsInvalidArgument(status) || absl::IsNotFound(status) ? 2 : 1;
}

}  // namespace
}  // namespace kedge::profile

int main(int argc, char** argv) { return kedge::profile::Main(argc, argv); }
