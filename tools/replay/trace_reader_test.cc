#include "tools/replay/trace_reader.h"

#include <cstdlib>
#include <fstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kedge {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string ErrorOf(std::string_view line) {
  absl::StatusOr<TraceRequest> request = ParseTraceLine(line);
  return request.ok() ? "" : std::string(request.status().message());
}

std::string WriteFile(const std::string& name, const std::string& text) {
  const char* directory = std::getenv("TEST_TMPDIR");
  std::string path = std::string(directory != nullptr ? directory : "/tmp") + "/" + name;
  std::ofstream(path) << text;
  return path;
}

TEST(TraceReaderTest, ReadsALine) {
  absl::StatusOr<TraceRequest> request = ParseTraceLine(
      R"({"timestamp": 27, "input_length": 1025, "output_length": 3, "hash_ids": [0, 46, 7]})");
  ASSERT_TRUE(request.ok()) << request.status().message();
  EXPECT_EQ(request->timestamp_ms, 27);
  EXPECT_EQ(request->input_length, 1025u);
  EXPECT_EQ(request->output_length, 3u);
  EXPECT_THAT(request->hash_ids, ElementsAre(0, 46, 7));
  EXPECT_EQ(request->whole_blocks(), 2u) << "the third block has one token";
}

TEST(TraceReaderTest, NamesTheFieldAndTheValue) {
  EXPECT_THAT(ErrorOf("{"), HasSubstr("line: not JSON"));
  EXPECT_THAT(ErrorOf("[1]"), HasSubstr("not an object"));
  EXPECT_THAT(ErrorOf(R"({"input_length": 1})"), HasSubstr("timestamp: missing"));
  EXPECT_THAT(ErrorOf(R"({"timestamp": 0, "input_length": -4})"),
              AllOf(HasSubstr("input_length"), HasSubstr("-4")));
  EXPECT_THAT(ErrorOf(R"({"timestamp": 0, "input_length": "12"})"),
              AllOf(HasSubstr("input_length"), HasSubstr("\"12\"")));
  EXPECT_THAT(ErrorOf(R"({"timestamp": 0, "input_length": 1.5})"), HasSubstr("1.5"));
  EXPECT_THAT(ErrorOf(R"({"timestamp": 0, "input_length": 99999999999})"),
              AllOf(HasSubstr("input_length"), HasSubstr("99999999999")));
  EXPECT_THAT(ErrorOf(R"({"timestamp": 0, "input_length": 5, "output_length": 1})"),
              HasSubstr("hash_ids: missing"));
  EXPECT_THAT(
      ErrorOf(R"({"timestamp": 0, "input_length": 513, "output_length": 1, "hash_ids": [1]})"),
      AllOf(HasSubstr("hash_ids: 1 of them"), HasSubstr("513")));
  EXPECT_THAT(
      ErrorOf(R"({"timestamp": 0, "input_length": 513, "output_length": 1, "hash_ids": [1, -2]})"),
      AllOf(HasSubstr("hash_ids: -2"), HasSubstr("index 1")));
}

TEST(TraceReaderTest, ShowsLongValuesCut) {
  std::string error = ErrorOf(R"({"timestamp": ")" + std::string(10000, 'x') + "\"}");
  EXPECT_LT(error.size(), 200u);
  EXPECT_THAT(ErrorOf(std::string(kTraceLineBytesMax + 1, ' ')), HasSubstr("line: "));
}

TEST(TraceReaderTest, ReadsTheOpeningOfAFile) {
  const std::string line =
      R"({"timestamp": 0, "input_length": 512, "output_length": 1, "hash_ids": [9]})";
  std::string path = WriteFile("opening.jsonl", line + "\n\n" + line + "\n" + line + "\n");
  absl::StatusOr<std::vector<TraceRequest>> trace = ReadTrace(path, 2);
  ASSERT_TRUE(trace.ok()) << trace.status().message();
  EXPECT_EQ(trace->size(), 2u);
  trace = ReadTrace(path, 100);
  ASSERT_TRUE(trace.ok());
  EXPECT_EQ(trace->size(), 3u);
}

TEST(TraceReaderTest, NamesPathAndLineNumber) {
  const std::string line =
      R"({"timestamp": 0, "input_length": 512, "output_length": 1, "hash_ids": [9]})";
  std::string path = WriteFile("damaged.jsonl", line + "\n" + line.substr(0, 20) + "\n");
  EXPECT_THAT(std::string(ReadTrace(path, 9).status().message()), HasSubstr("damaged.jsonl:2: "));
  EXPECT_TRUE(ReadTrace(path, 1).ok()) << "the second line was not asked for";
  EXPECT_EQ(ReadTrace("/nonexistent.jsonl", 9).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(ReadTrace(WriteFile("empty.jsonl", "\n"), 9).status().message()),
              HasSubstr("no request"));
}

}  // namespace
}  // namespace kedge
