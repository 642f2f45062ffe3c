#include "tests/quality/eval_model.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gpu/model/json_fields.h"

namespace kedge::quality {
namespace {

constexpr int kJsonDepthMax = 8;
// Parameters up to which a copy of the weights for each thread is cheap.
constexpr int64_t kSmallParameters = 64 << 20;

absl::StatusOr<int64_t> ReadEvaluatedTokens(const std::string& directory,
                                            const ModelConfig& config) {
  const std::string path = directory + "/kedge_eval.json";
  std::ifstream file(path, std::ios::binary);
  if (!file) return config.max_positions;  // not one of ours
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  absl::StatusOr<nlohmann::json> root = ParseJsonObject(text, path, kJsonDepthMax);
  if (!root.ok()) return root.status();
  JsonFields fields(*root, path);
  const std::string format = fields.OptionalString("format", "");
  if (format != kEvalFormat)
    fields.Fail("format", absl::StrCat("'", format, "' is not '", kEvalFormat, "'"));
  const int64_t version = fields.RequiredInt("version", 0, INT32_MAX);
  if (version != kEvalVersion)
    fields.Fail("version", absl::StrCat(version, " is not the version read here, ", kEvalVersion));
  const int64_t tokens = fields.RequiredInt("evaluated_tokens", 1, config.max_positions);
  if (!fields.status().ok()) return fields.status();
  return tokens;
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
