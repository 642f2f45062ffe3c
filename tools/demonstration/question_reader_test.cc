#include "tools/demonstration/question_reader.h"

#include <cstdlib>
#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kedge {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string WriteFile(const std::string& text) {
  const char* directory = std::getenv("TEST_TMPDIR");
  std::string path = std::string(directory != nullptr ? directory : "/tmp") + "/questions.jsonl";
  std::ofstream(path) << text;
  return path;
}

std::string ErrorOf(const std::string& text) {
  return std::string(ReadQuestions(WriteFile(text), 10).status().message());
}

TEST(QuestionReaderTest, ReadsTheFirstQuestions) {
  const std::string path = WriteFile(
      "{\"question\": \"One?\", \"answer\": \"1\"}\n\n{\"question\": \"Tw\\u00f6?\"}\n{}\n");
  auto questions = ReadQuestions(path, 2);
  ASSERT_TRUE(questions.ok()) << questions.status().message();
  EXPECT_THAT(*questions, ElementsAre("One?", "Tw\xc3\xb6?"));
}

TEST(QuestionReaderTest, NamesLineFieldAndValue) {
  EXPECT_THAT(ErrorOf("{\"question\": \"?\"}\n{}"), HasSubstr("questions.jsonl:2: question"));
  EXPECT_THAT(ErrorOf("{\"question\": 7}"), HasSubstr("question: a JSON number"));
  EXPECT_THAT(ErrorOf("{\"question\": \"\"}"), HasSubstr("question: 0 bytes"));
  EXPECT_THAT(ErrorOf("{\"question\": \"" + std::string(20000, '?') + "\"}"), HasSubstr("20000"));
  EXPECT_THAT(ErrorOf("not JSON"), HasSubstr(":1: line"));
  EXPECT_THAT(ErrorOf(std::string(100000, '[')), HasSubstr("line: 100000 bytes"));
  EXPECT_THAT(ErrorOf("\n"), HasSubstr("no question"));
  EXPECT_EQ(ReadQuestions("/nonexistent", 1).status().code(), absl::StatusCode::kNotFound);
}

TEST(QuestionReaderTest, ReadsInstructions) {
  auto text = ReadInstructions(WriteFile("Be brief.\n"));
  ASSERT_TRUE(text.ok());
  EXPECT_EQ(*text, "Be brief.\n");
  EXPECT_FALSE(ReadInstructions(WriteFile("")).ok());
  EXPECT_FALSE(ReadInstructions(WriteFile(std::string(kInstructionsBytesMax + 1, 'x'))).ok());
  EXPECT_EQ(ReadInstructions("/nonexistent").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace kedge
