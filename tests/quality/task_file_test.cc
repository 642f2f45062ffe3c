#include "tests/quality/task_file.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/quality/testing_eval.h"

namespace kedge::quality {
namespace {

using ::testing::HasSubstr;

std::string Replace(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}
std::string ErrorOf(const std::string& text) {
  absl::StatusOr<TaskFile> file = ParseTaskFile(text, "t.jsonl");
  EXPECT_FALSE(file.ok());
  EXPECT_EQ(file.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(file.status().message());
}

TEST(TaskFile, Reads) {
  absl::StatusOr<TaskFile> file = ParseTaskFile(TestingTaskFile(), "t.jsonl");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->task, "toy");
  EXPECT_EQ(file->split, "test");
  ASSERT_EQ(file->contexts.size(), 3u);
  const TaskContext& context = file->contexts[1];
  EXPECT_EQ(context.id, "toy/1");
  EXPECT_EQ(context.consumer, "toy-0");
  ASSERT_EQ(context.pieces.size(), 5u);
  EXPECT_FALSE(context.pieces[0].filling);
  EXPECT_TRUE(context.pieces[3].filling);
  EXPECT_EQ(context.pieces[3].placeholder, 1);
  EXPECT_THAT(context.pieces[0].text, HasSubstr("<bos> a1 a8"));
  ASSERT_EQ(context.questions.size(), 3u);
  EXPECT_EQ(context.questions[1].answer, "a1 a2 a3");
  EXPECT_EQ(context.questions[1].tag, "far");
}

TEST(TaskFile, AnotherFormatOrVersionIsRefusedByName) {
  EXPECT_THAT(ErrorOf(Replace(TestingTaskFile(), "kedge-tasks", "other")),
              HasSubstr("t.jsonl:1: format: 'other' is not 'kedge-tasks'"));
  EXPECT_THAT(ErrorOf(Replace(TestingTaskFile(), "\"version\": 2", "\"version\": 1")),
              HasSubstr("t.jsonl:1: version: 1 is not the version read here, 2"));
  EXPECT_THAT(ErrorOf(Replace(TestingTaskFile(), "\"version\": 2, ", "")), HasSubstr("version"));
}

TEST(TaskFile, DamageNamesLineFieldAndValue) {
  EXPECT_THAT(ErrorOf(""), HasSubstr("contexts"));
  EXPECT_THAT(ErrorOf("nonsense\n"), HasSubstr("t.jsonl:1: not valid JSON"));
  EXPECT_THAT(ErrorOf("[1]\n"), HasSubstr("t.jsonl:1: JSON object expected"));
  EXPECT_THAT(ErrorOf("{\"version\": " + std::string(100000, '[') + "\n"), HasSubstr("deep"));
  const std::string whole = TestingTaskFile();
  const std::string cut = whole.substr(0, whole.rfind('\n', whole.size() - 2) + 1);
  EXPECT_THAT(ErrorOf(cut), HasSubstr("contexts: 3 in the header, 2 in the file"));
  EXPECT_THAT(ErrorOf(whole.substr(0, whole.size() - 30)), HasSubstr("t.jsonl:4"));
  EXPECT_THAT(ErrorOf(Replace(whole, "\"template\"", "\"magic\"")),
              HasSubstr("t.jsonl:2: pieces[0].kind: 'magic'"));
  EXPECT_THAT(ErrorOf(Replace(whole, "\"placeholder\": 0", "\"placeholder\": -1")),
              HasSubstr("placeholder: -1"));
  EXPECT_THAT(ErrorOf(Replace(whole, "\"answer\": \"a5\"", "\"answer\": 5")),
              HasSubstr("answer: 5 is not a string"));
  EXPECT_THAT(ErrorOf(Replace(whole, "\"answer\": \"a5\"", "\"answer\": \"\"")),
              HasSubstr("questions[0]"));
  EXPECT_THAT(ErrorOf(Replace(whole, "\"contexts\": 3", "\"contexts\": 0")),
              HasSubstr("contexts: 0"));
  EXPECT_EQ(ReadTaskFile("/nonexistent.jsonl").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace kedge::quality
