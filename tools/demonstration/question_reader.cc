#include "tools/demonstration/question_reader.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace kedge {
namespace {

using nlohmann::json;

absl::Status CannotOpen(const std::string& path) {
  return absl::NotFoundError(absl::StrCat(path, ": cannot be opened: ", std::strerror(errno)));
}

absl::StatusOr<std::string> ParseQuestion(const std::string& line) {
  if (line.size() > 4 * kQuestionBytesMax)
    return absl::InvalidArgumentError(
        absl::StrCat("line: ", line.size(), " bytes, more than ", 4 * kQuestionBytesMax));
  const json object = json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return absl::InvalidArgumentError("line: not a JSON object");
  auto question = object.find("question");
  if (question == object.end()) return absl::InvalidArgumentError("question: missing");
  if (!question->is_string())
    return absl::InvalidArgumentError(
        absl::StrCat("question: a JSON ", question->type_name(), ", not a text"));
  std::string text = question->get<std::string>();
  if (text.empty() || text.size() > kQuestionBytesMax)
    return absl::InvalidArgumentError(
        absl::StrCat("question: ", text.size(), " bytes, not from 1 to ", kQuestionBytesMax));
  return text;
}

}  // namespace

absl::StatusOr<std::vector<std::string>> ReadQuestions(const std::string& path, uint64_t count) {
  std::ifstream file(path);
  if (!file) return CannotOpen(path);
  std::vector<std::string> questions;
  std::string line;
  for (uint64_t number = 1; questions.size() < count && std::getline(file, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    absl::StatusOr<std::string> question = ParseQuestion(line);
    if (!question.ok())
      return absl::InvalidArgumentError(
          absl::StrCat(path, ":", number, ": ", question.status().message()));
    questions.push_back(*std::move(question));
  }
  if (questions.empty()) return absl::InvalidArgumentError(absl::StrCat(path, ": has no question"));
  return questions;
}

absl::StatusOr<std::string> ReadInstructions(const std::string& path) {
  std::ifstream file(path);
  if (!file) return CannotOpen(path);
  std::string text(kInstructionsBytesMax + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.empty()) return absl::InvalidArgumentError(absl::StrCat(path, ": is empty"));
  if (text.size() > kInstructionsBytesMax)
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": has more than ", kInstructionsBytesMax, " bytes"));
  return text;
}

}  // namespace kedge
