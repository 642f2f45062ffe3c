#include "tests/quality/task_file.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gpu/model/file_map.h"
#include "gpu/model/json_fields.h"

namespace kedge::quality {
namespace {

using nlohmann::json;

constexpr int64_t kContextsMax = 1'000'000;
constexpr size_t kListMax = 100'000;  // pieces or questions of one context
constexpr int kJsonDepthMax = 8;

// One line's fields. After the first error getters return nothing of use.
class Line {
 public:
  Line(std::string_view text, std::string_view file, int64_t number)
      : place_(absl::StrCat(std::string(file), ":", number)) {
    absl::StatusOr<json> root = ParseJsonObject(text, place_, kJsonDepthMax);
    status_ = root.status();
    root_ = root.ok() ? *std::move(root) : json::object();
  }

  const json& root() const { return root_; }
  const absl::Status& status() const { return status_; }
  void Fail(const std::string& field, const std::string& why) {
    if (!status_.ok()) return;
    status_ = absl::InvalidArgumentError(absl::StrCat(place_, ": ", field, ": ", why));
  }
  std::string Text(const json& object, const std::string& name, bool required = true) {
    const auto at = object.find(name);
    if (at == object.end()) {
      if (required) Fail(name, "missing field");
      return "";
    }
    if (!at->is_string()) {
      Fail(name, absl::StrCat(ShowJson(*at), " is not a string"));
      return "";
    }
    return at->get<std::string>();
  }
  int64_t Integer(const json& object, const std::string& name, int64_t low, int64_t high) {
    const auto at = object.find(name);
    if (at == object.end()) {
      Fail(name, "missing field");
      return low;
    }
    if (!at->is_number_integer() || at->get<int64_t>() < low || at->get<int64_t>() > high) {
      Fail(name, absl::StrCat(ShowJson(*at), " is not an integer in [", low, ", ", high, "]"));
      return low;
    }
    return at->get<int64_t>();
  }
  // The objects of a list.
  std::vector<json> Objects(const std::string& name) {
    const auto at = root_.find(name);
    if (at == root_.end() || !at->is_array() || at->size() > kListMax) {
      Fail(name, at == root_.end() ? "missing field" : "not a list of objects");
      return {};
    }
    for (const json& item : *at) {
      if (!item.is_object()) Fail(name, absl::StrCat(ShowJson(item), " is not an object"));
    }
    return status_.ok() ? at->get<std::vector<json>>() : std::vector<json>();
  }

 private:
  const std::string place_;
  json root_;
  absl::Status status_;
};

absl::StatusOr<int64_t> ReadHeader(Line& line, TaskFile& result) {
  if (!line.status().ok()) return line.status();
  const std::string format = line.Text(line.root(), "format");
  if (line.status().ok() && format != kTaskFormat)
    line.Fail("format", absl::StrCat("'", format, "' is not '", kTaskFormat, "'"));
  if (!line.status().ok()) return line.status();
  const auto version = line.root().find("version");
  if (version == line.root().end() || *version != kTaskVersion) {
    line.Fail("version", absl::StrCat(version == line.root().end() ? "missing" : ShowJson(*version),
                                      " is not the version read here, ", kTaskVersion));
    return line.status();
  }
  result.version = kTaskVersion;
  result.task = line.Text(line.root(), "task");
  result.split = line.Text(line.root(), "split");
  const int64_t contexts = line.Integer(line.root(), "contexts", 1, kContextsMax);
  if (!line.status().ok()) return line.status();
  return contexts;
}

TaskPiece ReadPiece(Line& line, const json& object, size_t number) {
  TaskPiece piece;
  const std::string kind = line.Text(object, "kind");
  if (kind != "template" && kind != "filling")
    line.Fail(absl::StrCat("pieces[", number, "].kind"),
              absl::StrCat("'", kind, "' is neither template nor filling"));
  piece.filling = kind == "filling";
  if (piece.filling) piece.placeholder = line.Integer(object, "placeholder", 0, 1 << 20);
  piece.text = line.Text(object, "text");
  piece.plain = line.Text(object, "plain", /*required=*/false);
  return piece;
}

TaskContext ReadContext(Line& line) {
  TaskContext context;
  context.id = line.Text(line.root(), "id");
  context.consumer = line.Text(line.root(), "consumer", /*required=*/false);
  context.group = line.Text(line.root(), "group", /*required=*/false);
  for (const json& piece : line.Objects("pieces"))
    context.pieces.push_back(ReadPiece(line, piece, context.pieces.size()));
  if (context.pieces.empty() || context.pieces[0].filling)
    line.Fail("pieces", "must begin with a template");
  for (const json& object : line.Objects("questions")) {
    TaskQuestion question;
    question.text = line.Text(object, "text");
    question.answer = line.Text(object, "answer");
    question.tag = line.Text(object, "tag", /*required=*/false);
    if (question.text.empty() || question.answer.empty())
      line.Fail(absl::StrCat("questions[", context.questions.size(), "]"),
                "text and answer must not be empty");
    context.questions.push_back(std::move(question));
  }
  if (context.questions.empty() && context.pieces.size() < 2)
    line.Fail("pieces", "without questions there must be two or more");
  return context;
}

}  // namespace

absl::StatusOr<TaskFile> ParseTaskFile(std::string_view text, std::string_view file) {
  TaskFile result;
  int64_t expected = 0;
  int64_t number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    Line line(text.substr(begin, end - begin), file, ++number);
    begin = end + 1;
    if (!line.status().ok()) return line.status();
    if (number == 1) {
      absl::StatusOr<int64_t> contexts = ReadHeader(line, result);
      if (!contexts.ok()) return contexts.status();
      expected = *contexts;
      continue;
    }
    result.contexts.push_back(ReadContext(line));
    if (!line.status().ok()) return line.status();
  }
  if (number == 0 || static_cast<int64_t>(result.contexts.size()) != expected) {
    return absl::InvalidArgumentError(absl::StrCat(std::string(file), ": contexts: ", expected,
                                                   " in the header, ", result.contexts.size(),
                                                   " in the file"));
  }
  return result;
}

absl::StatusOr<TaskFile> ReadTaskFile(const std::string& path) {
  absl::StatusOr<FileMap> file = FileMap::Open(path);
  if (!file.ok()) return file.status();
  const std::span<const uint8_t> bytes = file->bytes();
  return ParseTaskFile({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path);
}

}  // namespace kedge::quality
