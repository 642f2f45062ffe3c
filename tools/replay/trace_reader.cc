#include "tools/replay/trace_reader.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace kedge {
namespace {

using nlohmann::json;

// A value as it is shown in an error: cut, so that a hostile file does not fill the terminal.
std::string Shown(const json& value) {
  std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 60) + "...";
  return text;
}

absl::Status Bad(const char* field, const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat(field, ": ", why));
}

// An integer field from 0 to `max`.
absl::StatusOr<uint64_t> Count(const json& object, const char* field, uint64_t max) {
  auto found = object.find(field);
  if (found == object.end()) return Bad(field, "missing");
  if (!found->is_number_unsigned())
    return Bad(field, absl::StrCat(Shown(*found), " is not a whole number from 0 up"));
  uint64_t value = found->get<uint64_t>();
  if (value > max) return Bad(field, absl::StrCat(value, " is more than ", max));
  return value;
}

absl::Status ReadHashIds(const json& object, TraceRequest* request) {
  auto ids = object.find("hash_ids");
  if (ids == object.end()) return Bad("hash_ids", "missing");
  if (!ids->is_array()) return Bad("hash_ids", absl::StrCat(Shown(*ids), " is not a list"));
  uint64_t blocks = (request->input_length + kTraceBlockTokens - 1) / kTraceBlockTokens;
  if (ids->size() != blocks)
    return Bad("hash_ids",
               absl::StrCat(ids->size(), " of them, input_length ", request->input_length, " has ",
                            blocks, " blocks of ", kTraceBlockTokens, " tokens"));
  request->hash_ids.reserve(ids->size());
  for (const json& id : *ids) {
    if (!id.is_number_unsigned())
      return Bad("hash_ids", absl::StrCat(Shown(id), " at index ", request->hash_ids.size(),
                                          " is not a whole number from 0 up"));
    request->hash_ids.push_back(id.get<uint64_t>());
  }
  return absl::OkStatus();
}

bool IsBlank(std::string_view line) {
  return line.find_first_not_of(" \t\r") == std::string_view::npos;
}

}  // namespace

absl::StatusOr<TraceRequest> ParseTraceLine(std::string_view line) {
  if (line.size() > kTraceLineBytesMax)
    return Bad("line", absl::StrCat(line.size(), " bytes, more than ", kTraceLineBytesMax));
  json object = json::parse(line.begin(), line.end(), nullptr, /*allow_exceptions=*/false);
  if (object.is_discarded()) return Bad("line", "not JSON");
  if (!object.is_object())
    return Bad("line", absl::StrCat("a JSON ", object.type_name(), ", not an object"));

  TraceRequest request;
  absl::StatusOr<uint64_t> timestamp = Count(object, "timestamp", INT64_MAX);
  if (!timestamp.ok()) return timestamp.status();
  request.timestamp_ms = static_cast<int64_t>(*timestamp);
  absl::StatusOr<uint64_t> input =
      Count(object, "input_length", kTraceBlocksMax * kTraceBlockTokens);
  if (!input.ok()) return input.status();
  request.input_length = *input;
  absl::StatusOr<uint64_t> output = Count(object, "output_length", kTraceOutputLengthMax);
  if (!output.ok()) return output.status();
  request.output_length = *output;
  if (absl::Status s = ReadHashIds(object, &request); !s.ok()) return s;
  return request;
}

absl::StatusOr<std::vector<TraceRequest>> ReadTrace(const std::string& path, uint64_t requests) {
  std::ifstream file(path);
  if (!file)
    return absl::NotFoundError(absl::StrCat(path, ": cannot be opened: ", std::strerror(errno)));
  std::vector<TraceRequest> trace;
  std::string line;
  for (uint64_t number = 1; trace.size() < requests && std::getline(file, line); ++number) {
    if (IsBlank(line)) continue;
    absl::StatusOr<TraceRequest> request = ParseTraceLine(line);
    if (!request.ok())
      return absl::InvalidArgumentError(absl::StrCat(
          path, ":", number, ": ",
          absl::string_view(request.status().message().data(), request.status().message().size())));
    trace.push_back(*std::move(request));
  }
  if (file.bad()) return absl::DataLossError(absl::StrCat(path, ": cannot be read to its end"));
  if (trace.empty()) return absl::InvalidArgumentError(absl::StrCat(path, ": has no request"));
  return trace;
}

}  // namespace kedge
