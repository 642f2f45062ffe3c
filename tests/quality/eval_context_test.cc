#include "tests/quality/eval_context.h"

#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gpu/model/random_checkpoint.h"
#include "gtest/gtest.h"
#include "tests/quality/testing_eval.h"

namespace kedge::quality {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string Replace(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}
TaskFile Parse(const std::string& text) {
  absl::StatusOr<TaskFile> file = ParseTaskFile(text, "toy.jsonl");
  EXPECT_TRUE(file.ok()) << file.status();
  return *std::move(file);
}
std::string ErrorOf(const absl::Status& status) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  return std::string(status.message());
}

TEST(EvalContext, PiecesAreJoinedAndRemembered) {
  const EvalModel model = MakeTestingEvalModel("pieces");
  EXPECT_EQ(model.name, "pieces");
  EXPECT_EQ(model.evaluated_tokens, 256);
  const EvalTask task = MakeTestingTask(model);
  EXPECT_EQ(task.name, "toy");
  EXPECT_FALSE(task.prose);
  ASSERT_EQ(task.contexts.size(), 3u);
  const EvalContext& context = task.contexts[0];
  EXPECT_EQ(context.lead, 1);
  EXPECT_EQ(context.tokens.size(), 93u);
  EXPECT_EQ(context.tokens[0], 0);
  ASSERT_EQ(context.pieces.size(), 5u);
  EXPECT_EQ(context.pieces[1].first, 11);
  EXPECT_EQ(context.pieces[1].count, 45);
  EXPECT_TRUE(context.pieces[1].filling);
  EXPECT_EQ(context.pieces[4].first + context.pieces[4].count, 93);
  EXPECT_THAT(context.questions[1].answer, ElementsAre(3, 4, 5));
  EXPECT_EQ(context.cluster, "toy/0");
}

TEST(EvalContext, AQueryAwareQuestionStandsBehindBos) {
  const EvalModel model = MakeTestingEvalModel("aware");
  const TaskFile file = Parse(TestingTaskFile());
  absl::StatusOr<EvalTask> task = MakeEvalTask(file, model, {.query_aware = true, .contexts = 2});
  ASSERT_TRUE(task.ok()) << task.status();
  ASSERT_EQ(task->contexts.size(), 6u) << "each question has a context of its own";
  const EvalContext& context = task->contexts[2];
  EXPECT_EQ(context.cluster, "toy/0");
  EXPECT_EQ(context.tokens.size(), 94u);
  EXPECT_EQ(context.tokens[0], 0);
  EXPECT_EQ(context.tokens[1], 11) << "a9 is repeated";
  EXPECT_EQ(context.pieces[0].count, 12);
  EXPECT_EQ(context.questions.size(), 1u);
}

TEST(EvalContext, PerQuestionTheContextIsTheSame) {
  const EvalModel model = MakeTestingEvalModel("apart");
  const TaskFile file = Parse(TestingTaskFile());
  absl::StatusOr<EvalTask> whole = MakeEvalTask(file, model, {.contexts = 2});
  absl::StatusOr<EvalTask> task = MakeEvalTask(file, model, {.per_question = true, .contexts = 2});
  ASSERT_TRUE(whole.ok() && task.ok()) << task.status();
  ASSERT_EQ(task->contexts.size(), 6u);
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(task->contexts[i].tokens, whole->contexts[i / 3].tokens);
    EXPECT_EQ(task->contexts[i].cluster, whole->contexts[i / 3].cluster);
    ASSERT_EQ(task->contexts[i].questions.size(), 1u);
    EXPECT_EQ(task->contexts[i].questions[0].tokens,
              whole->contexts[i / 3].questions[i % 3].tokens);
  }
}

TEST(EvalContext, ProseIsScoredOnItsLastPiece) {
  const EvalModel model = MakeTestingEvalModel("prose");
  const TaskFile file = Parse(
      "{\"format\":\"kedge-tasks\",\"version\":2,\"task\":\"prose\",\"split\":\"test\","
      "\"contexts\":1}\n{\"id\":\"p\",\"pieces\":[{\"kind\":\"template\",\"text\":\"<bos> a1\"},"
      "{\"kind\":\"template\",\"text\":\"a2 a3 a4\"}],\"questions\":[]}\n");
  absl::StatusOr<EvalTask> task = MakeEvalTask(file, model);
  ASSERT_TRUE(task.ok()) << task.status();
  EXPECT_TRUE(task->prose);
  EXPECT_THAT(task->contexts[0].tokens, ElementsAre(0, 3));
  EXPECT_THAT(task->contexts[0].questions[0].tokens, ElementsAre(4));
  EXPECT_THAT(task->contexts[0].questions[0].answer, ElementsAre(5, 6));
}

TEST(EvalContext, WhatIsTooLongOrUnknownIsNamed) {
  const EvalModel model = MakeTestingEvalModel("short", 97);
  EXPECT_EQ(model.evaluated_tokens, 97);
  const TaskFile file = Parse(TestingTaskFile());
  const std::string error = ErrorOf(MakeEvalTask(file, model).status());
  EXPECT_THAT(error, HasSubstr("toy/0: length: 98 tokens"));
  EXPECT_THAT(error, HasSubstr("short was evaluated up to 97"));
  const EvalModel other = MakeTestingEvalModel("unknown");
  EXPECT_THAT(
      ErrorOf(
          MakeEvalTask(Parse(Replace(TestingTaskFile(), "\"a9\"", "\"zebra\"")), other).status()),
      HasSubstr("zebra"));
}

// A tokenizer of bytes: the model's own BOS stands for <bos>, and texts are joined by spaces.
TEST(EvalContext, OtherTokenizersGetSpacesAndTheirOwnBos) {
  const std::string directory =
      MakeTestingEvalModel("bytes").directory;  // its weights; another tokenizer
  std::string vocabulary = "\"\\u0120\": 1";
  for (int i = 0; i < 26; ++i)
    absl::StrAppend(&vocabulary, ", \"", std::string(1, static_cast<char>('a' + i)), "\": ", i + 2);
  for (int i = 0; i < 10; ++i) absl::StrAppend(&vocabulary, ", \"", i, "\": ", i + 30);
  std::ofstream(directory + "/tokenizer.json")
      << "{\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false},"
      << "\"model\": {\"type\": \"BPE\", \"merges\": [], \"vocab\": {" << vocabulary << "}}}";
  ModelConfig config = ReadEvalModel(directory)->config;
  config.bos_token = 77;
  std::ofstream(directory + "/config.json") << ModelConfigToJson(config);
  absl::StatusOr<EvalModel> model = ReadEvalModel(directory);
  ASSERT_TRUE(model.ok()) << model.status();
  const std::string text =
      "{\"format\":\"kedge-tasks\",\"version\":2,\"task\":\"toy\",\"split\":\"test\","
      "\"contexts\":1}\n{\"id\":\"x\",\"pieces\":[{\"kind\":\"template\",\"text\":\"<bos> ab\"},"
      "{\"kind\":\"filling\",\"placeholder\":0,\"text\":\"c\"}],"
      "\"questions\":[{\"text\":\"d\",\"answer\":\"1\"}]}\n";
  absl::StatusOr<EvalTask> task = MakeEvalTask(Parse(text), *model);
  ASSERT_TRUE(task.ok()) << task.status();
  EXPECT_THAT(task->contexts[0].tokens, ElementsAre(77, 2, 3, 1, 4));
  EXPECT_EQ(task->contexts[0].lead, 1);
  EXPECT_THAT(task->contexts[0].questions[0].tokens, ElementsAre(1, 5));
  EXPECT_THAT(task->contexts[0].questions[0].answer, ElementsAre(1, 31));
}

TEST(EvalModel, ForeignDirectoriesAreRefusedByName) {
  EXPECT_EQ(ReadEvalModel("/nonexistent").status().code(), absl::StatusCode::kNotFound);
  const std::string directory = MakeTestingEvalModel("foreign", 200).directory;
  const auto write = [&](const char* text) {
    std::ofstream(directory + "/kedge_eval.json") << text;
    return ErrorOf(ReadEvalModel(directory).status());
  };
  EXPECT_THAT(write("{\"format\": \"x\", \"version\": 1}"), HasSubstr("format: 'x'"));
  EXPECT_THAT(write("{\"format\": \"kedge-eval-model\", \"version\": 9}"), HasSubstr("version: 9"));
  EXPECT_THAT(
      write("{\"format\": \"kedge-eval-model\", \"version\": 1, \"evaluated_tokens\": 999}"),
      HasSubstr("evaluated_tokens: 999"));
  EXPECT_THAT(write("{"), HasSubstr("not valid JSON"));
  std::ofstream(directory + "/kedge_eval.json")
      << "{\"format\": \"kedge-eval-model\", \"version\": 1, \"evaluated_tokens\": 200}";
  std::ofstream(directory + "/tokenizer.json")
      << "{\"pre_tokenizer\": {\"type\": \"WhitespaceSplit\"}, \"model\": {\"type\": "
         "\"WordLevel\", \"vocab\": {\"a\": 102}}}";
  EXPECT_THAT(ErrorOf(ReadEvalModel(directory).status()), HasSubstr("vocab_size: 102"));
}

}  // namespace
}  // namespace kedge::quality
