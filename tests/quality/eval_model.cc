#include "tests/quality/eval_model.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"

namespace kedge::quality {
namespace {

using nlohmann::json;

// Parameters up to which a copy of the weights for each thread is cheap.
constexpr int64_t kSmallParameters = 64 << 20;

absl::StatusOr<int64_t> ReadEvaluatedTokens(const std::string& directory,
                                            const ModelConfig& config) {
  const std::string path = directory + "/kedge_eval.json";
  std::ifstream file(path, std::ios::binary);
  if (!file) return config.max_positions;  // not one of ours
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const json root = json::parse(text, nullptr, /*allow_exceptions=*/false);
  const auto fail = [&](const std::string& why) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", why));
  };
  if (!root.is_object()) return fail("not a JSON object");
  const auto value = [&root](const char* name) {
    return root.contains(name) ? root[name] : json();
  };
  if (value("format") != kEvalFormat)
    return fail(absl::StrCat("format: ", value("format").dump(), " is not \"", kEvalFormat, "\""));
  if (value("version") != kEvalVersion)
    return fail(absl::StrCat("version: ", value("version").dump(),
                             " is not the version read here, ", kEvalVersion));
  const json tokens = value("evaluated_tokens");
  if (!tokens.is_number_integer() || tokens.get<int64_t>() < 1 ||
      tokens.get<int64_t>() > config.max_positions)
    return fail(absl::StrCat("evaluated_tokens: ", tokens.dump(),
                             " is not in [1, max_position_embeddings = ", config.max_positions,
                             "]"));
  return tokens.get<int64_t>();
}

std::string LastPart(std::string directory) {
  while (directory.size() > 1 && directory.back() == '/') directory.pop_back();
  return directory.substr(directory.rfind('/') + 1);
}

}  // namespace

absl::StatusOr<EvalModel> ReadEvalModel(const std::string& directory) {
  absl::StatusOr<ModelConfig> config = ReadModelConfig(directory);
  if (!config.ok()) return config.status();
  absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Load(directory);
  if (!tokenizer.ok()) return tokenizer.status();
  if (tokenizer->vocabulary() > config->vocabulary) {
    return absl::InvalidArgumentError(
        absl::StrCat(directory, "/tokenizer.json: ", tokenizer->vocabulary(),
                     " tokens do not fit in the model's vocab_size: ", config->vocabulary));
  }
  absl::StatusOr<int64_t> tokens = ReadEvaluatedTokens(directory, *config);
  if (!tokens.ok()) return tokens.status();
  return EvalModel{.directory = directory,
                   .name = LastPart(directory),
                   .config = *std::move(config),
                   .tokenizer = *std::move(tokenizer),
                   .evaluated_tokens = *tokens};
}

absl::StatusOr<std::vector<Runner>> MakeRunners(const EvalModel& model, int threads,
                                                const ModelOptions& options) {
  std::vector<Runner> runners;
  for (int i = 0; i < threads; ++i) {
    Runner runner;
    runner.device = std::make_unique<CpuDevice>(1);
    absl::StatusOr<std::unique_ptr<Model>> loaded =
        Model::Load(model.directory, *runner.device, options);
    if (!loaded.ok()) return loaded.status();
    runner.model = *std::move(loaded);
    const bool small = runner.model->parameters() <= kSmallParameters;
    if (!small && threads > 1) {
      runner.model.reset();
      runner.device = std::make_unique<CpuDevice>(threads);
      loaded = Model::Load(model.directory, *runner.device, options);
      if (!loaded.ok()) return loaded.status();
      runner.model = *std::move(loaded);
    }
    runners.push_back(std::move(runner));
    if (!small) break;
  }
  return runners;
}

}  // namespace kedge::quality
