#include "tools/demonstration/serving.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "gpu/device/device_cpu.h"
#include "gpu/model/byte_tokenizer.h"
#include "gpu/model/model.h"
#include "gpu/model/random_checkpoint.h"
#include "tools/demonstration/interrupt.h"
#include "tools/demonstration/progress.h"

namespace kedge {
namespace {

constexpr char kWeightsId[] = "kedge/demonstration-llama, seed 7";
constexpr int64_t kWarmUpTokens = 64;

WorkerOptions DemoWorker() {
  return {.weights_id = kWeightsId, .tokenizer_id = ByteTokenizer::kId};
}

std::vector<int32_t> PromptOf(const std::string& instructions, const std::string& question) {
  const ByteTokenizer tokenizer;
  std::vector<int32_t> prompt = tokenizer.Encode(instructions, /*add_bos=*/true);
  prompt.push_back(ByteTokenizer::kSeparator);
  const std::vector<int32_t> tail = tokenizer.Encode(question, /*add_bos=*/false);
  prompt.insert(prompt.end(), tail.begin(), tail.end());
  return prompt;
}

absl::StatusOr<std::unique_ptr<Model>> MakeModel(const std::string& directory, CpuDevice& device) {
  Progress progress("Writing a checkpoint with random weights", 2);
  if (absl::Status s = WriteRandomCheckpoint(directory, DemoModel(), kDemoSeed); !s.ok()) return s;
  progress.Set(1, "loading it");
  absl::StatusOr<std::unique_ptr<Model>> model = Model::Load(directory, device);
  progress.Set(2);
  return model;
}

absl::Status Answer(Worker& worker, const std::vector<int32_t>& prompt, int64_t answer_tokens,
                    Served* answer) {
  if (Interrupted()) return absl::CancelledError("interrupted");
  absl::StatusOr<Served> served = worker.Serve(prompt, answer_tokens);
  if (!served.ok()) return served.status();
  *answer = *std::move(served);
  return absl::OkStatus();
}

absl::Status AnswerAll(Model& model, DemoNode& node,
                       const std::vector<std::vector<int32_t>>& prompts,
                       const ServingOptions& options, ServingFigures* figures) {
  const int64_t answer_tokens = options.answer_tokens;
  const WorkerOptions worker = DemoWorker();
  absl::StatusOr<std::unique_ptr<Worker>> dense = Worker::Create(model, nullptr, worker);
  if (!dense.ok()) return dense.status();
  // Brings weights and code into memory, so that the first question does not pay for it.
  const std::span<const int32_t> opening(prompts[0]);
  Served ignored;
  if (absl::Status s = Answer(
          **dense,
          {opening.begin(), opening.begin() + std::min<int64_t>(kWarmUpTokens, opening.size())}, 1,
          &ignored);
      !s.ok())
    return s;

  Progress progress("Answering questions", 3 * prompts.size());
  uint64_t done = 0;
  absl::StatusOr<const sdk::Client*> client = node.Connect();
  if (!client.ok()) return client.status();
  {
    absl::StatusOr<std::unique_ptr<Worker>> first = Worker::Create(model, *client, worker);
    if (!first.ok()) return first.status();
    for (size_t i = 0; i < prompts.size(); ++i) {
      ServedQuestion& question = figures->questions[i];
      if (absl::Status s = Answer(**dense, prompts[i], answer_tokens, &question.dense); !s.ok())
        return s;
      progress.Set(++done, "without Kedge");
      if (absl::Status s = Answer(**first, prompts[i], answer_tokens, &question.first); !s.ok())
        return s;
      progress.Set(++done, "with Kedge, for the first time");
    }
  }  // the worker goes before its client does
  client = node.Connect();
  if (!client.ok()) return client.status();
  absl::StatusOr<std::unique_ptr<Worker>> again = Worker::Create(model, *client, worker);
  if (!again.ok()) return again.status();
  for (size_t i = 0; i < prompts.size(); ++i) {
    if (absl::Status s = Answer(**again, prompts[i], answer_tokens, &figures->questions[i].again);
        !s.ok())
      return s;
    progress.Set(++done, "again, by another worker");
  }
  return absl::OkStatus();
}

}  // namespace

ModelConfig DemoModel() {
  return {.architecture = Architecture::kLlama,
          .hidden_size = 512,
          .intermediate_size = 1408,
          .layers = 8,
          .heads = 8,
          .kv_heads = 4,
          .head_size = 64,
          .vocabulary = ByteTokenizer::kVocabulary,
          .max_positions = 1 << 17,
          .dtype = DType::kBf16};
}

absl::StatusOr<ServingFigures> ServeQuestions(DemoNode& node, const ServingOptions& options) {
  CpuDevice device;
  absl::StatusOr<std::unique_ptr<Model>> model = MakeModel(options.directory, device);
  if (!model.ok()) return model.status();

  std::vector<std::vector<int32_t>> prompts;
  for (const std::string& question : options.questions)
    prompts.push_back(PromptOf(options.instructions, question));
  ServingFigures figures;
  figures.model = absl::StrFormat("%s with %d layers, %.1f million random weights",
                                  ArchitectureName((*model)->config().architecture),
                                  (*model)->config().layers, (*model)->parameters() / 1e6);
  figures.parameters = (*model)->parameters();
  figures.block_tokens = (*model)->block_tokens();
  figures.block_bytes = static_cast<int64_t>((*model)->kv_shape().raw_block_bytes());
  figures.instruction_tokens = static_cast<int64_t>(PromptOf(options.instructions, "").size());
  figures.questions.resize(prompts.size());
  if (absl::Status s = AnswerAll(**model, node, prompts, options, &figures); !s.ok()) return s;
  for (const ServedQuestion& question : figures.questions) {
    figures.stored.Add(question.first, figures.block_bytes);
    figures.stored.Add(question.again, figures.block_bytes);
  }
  return figures;
}

bool ServingFigures::same_tokens() const {
  return std::all_of(questions.begin(), questions.end(),
                     [](const ServedQuestion& question) { return question.same_tokens(); });
}

}  // namespace kedge
