#include "tests/quality/testing_eval.h"

#include <cstdlib>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "gpu/model/random_checkpoint.h"
#include "gtest/gtest.h"

namespace kedge::quality {
namespace {

std::string Words(int first, int count) {
  std::string words;
  for (int i = 0; i < count; ++i)
    absl::StrAppend(&words, i == 0 ? "" : " ", "a", (first + i * 7) % 100);
  return words;
}

}  // namespace

EvalModel MakeTestingEvalModel(const std::string& name, int64_t evaluated_tokens,
                               int64_t head_size) {
  const char* root = std::getenv("TEST_TMPDIR");
  const std::string directory = std::string(root == nullptr ? "/tmp" : root) + "/" + name;
  const ModelConfig config{.hidden_size = 48,
                           .intermediate_size = 96,
                           .layers = 2,
                           .heads = 4,
                           .kv_heads = 2,
                           .head_size = head_size,
                           .vocabulary = 102,
                           .max_positions = 256,
                           .dtype = DType::kBf16};
  const absl::Status written = WriteRandomCheckpoint(directory, config, 3);
  EXPECT_TRUE(written.ok()) << written;
  std::string vocabulary = "\"<bos>\": 0, \"<unk>\": 1";
  for (int i = 0; i < 100; ++i) absl::StrAppend(&vocabulary, ", \"a", i, "\": ", i + 2);
  std::ofstream(directory + "/tokenizer.json")
      << "{\"added_tokens\": [{\"id\": 0, \"content\": \"<bos>\"}],"
      << "\"pre_tokenizer\": {\"type\": \"WhitespaceSplit\"},"
      << "\"model\": {\"type\": \"WordLevel\", \"unk_token\": \"<unk>\", \"vocab\": {" << vocabulary
      << "}}}";
  if (evaluated_tokens > 0) {
    std::ofstream(directory + "/kedge_eval.json")
        << "{\"format\": \"kedge-eval-model\", \"version\": 1, \"evaluated_tokens\": "
        << evaluated_tokens << "}";
  }
  absl::StatusOr<EvalModel> model = ReadEvalModel(directory);
  EXPECT_TRUE(model.ok()) << model.status();
  return *std::move(model);
}

std::string TestingTaskFile() {
  std::string file =
      "{\"format\": \"kedge-tasks\", \"version\": 2, \"task\": \"toy\", \"split\": \"test\", "
      "\"seed\": 1, \"contexts\": 3}\n";
  for (int i = 0; i < 3; ++i) {
    absl::StrAppend(&file, "{\"id\": \"toy/", i, "\", \"consumer\": \"toy-0\", \"pieces\": [",
                    "{\"kind\": \"template\", \"text\": \"<bos> ", Words(i, 10), "\"}, ",
                    "{\"kind\": \"filling\", \"placeholder\": 0, \"text\": \"", Words(3 * i, 45),
                    "\"}, {\"kind\": \"template\", \"text\": \"", Words(5, 4), "\"}, ",
                    "{\"kind\": \"filling\", \"placeholder\": 1, \"text\": \"", Words(i + 50, 30),
                    "\"}, {\"kind\": \"template\", \"text\": \"", Words(9, 3), "\"}], ",
                    "\"questions\": [{\"text\": \"", Words(i + 20, 3),
                    "\", \"answer\": \"a5\", \"tag\": \"near\"}, {\"text\": \"", Words(i + 30, 2),
                    "\", \"answer\": \"a1 a2 a3\", \"tag\": \"far\"}, {\"text\": \"a9\", ",
                    "\"answer\": \"a4\", \"tag\": \"far\"}]}\n");
  }
  return file;
}

EvalTask MakeTestingTask(const EvalModel& model) {
  absl::StatusOr<TaskFile> file = ParseTaskFile(TestingTaskFile(), "toy.jsonl");
  EXPECT_TRUE(file.ok()) << file.status();
  absl::StatusOr<EvalTask> task = MakeEvalTask(*file, model);
  EXPECT_TRUE(task.ok()) << task.status();
  return *std::move(task);
}

}  // namespace kedge::quality
