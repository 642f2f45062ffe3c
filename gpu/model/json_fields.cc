#include "gpu/model/json_fields.h"

#include <cmath>
#include <set>
#include <vector>

#include "absl/strings/str_cat.h"

namespace kedge {
namespace {

using nlohmann::json;

// Watches a parse for what the finished tree no longer shows: depth and repeated keys.
class Strictness {
 public:
  explicit Strictness(int max_depth) : max_depth_(max_depth) {}

  bool operator()(int depth, json::parse_event_t event, json& parsed) {
    switch (event) {
      case json::parse_event_t::object_start:
      case json::parse_event_t::array_start:
        if (depth >= max_depth_) Complain(absl::StrCat("nested more than ", max_depth_, " deep"));
        keys_.emplace_back();
        break;
      case json::parse_event_t::object_end:
      case json::parse_event_t::array_end:
        if (!keys_.empty()) keys_.pop_back();
        break;
      case json::parse_event_t::key:
        if (!keys_.empty() && !keys_.back().insert(parsed.get<std::string>()).second) {
          Complain(absl::StrCat("key ", ShowJson(parsed), " appears twice"));
        }
        break;
      case json::parse_event_t::value:
        break;
    }
    return complaint_.empty();  // once there is a complaint, nothing more is kept
  }

  const std::string& complaint() const { return complaint_; }

 private:
  void Complain(std::string text) {
    if (complaint_.empty()) complaint_ = std::move(text);
  }

  int max_depth_;
  std::vector<std::set<std::string>> keys_;
  std::string complaint_;
};

}  // namespace

std::string ShowJson(const json& value) {
  constexpr size_t kShown = 60;
  if (value.is_structured() && value.size() > 16) {
    return absl::StrCat(value.is_array() ? "array" : "object", " of ", value.size(), " elements");
  }
  std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  if (text.size() > kShown) text = absl::StrCat(text.substr(0, kShown), "...");
  return text;
}

absl::StatusOr<json> ParseJsonObject(std::string_view text, std::string_view file, int max_depth) {
  const std::string name(file);
  Strictness strictness(max_depth);
  json root = json::parse(
      text.begin(), text.end(),
      [&](int depth, json::parse_event_t event, json& parsed) {
        return strictness(depth, event, parsed);
      },
      /*allow_exceptions=*/false);
  if (!strictness.complaint().empty()) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": JSON ", strictness.complaint()));
  }
  if (root.is_discarded()) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": not valid JSON (", text.size(), " bytes)"));
  }
  if (!root.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": JSON object expected, found ", ShowJson(root)));
  }
  return root;
}

bool JsonFields::Has(const char* name) const {
  const auto at = object_.find(name);
  return at != object_.end() && !at->is_null();
}

void JsonFields::Fail(const char* name, const std::string& why) {
  if (!status_.ok()) return;
  status_ = absl::InvalidArgumentError(absl::StrCat(file_, ": ", prefix_, name, ": ", why));
}

int64_t JsonFields::RequiredInt(const char* name, int64_t low, int64_t high) {
  if (!Has(name)) {
    Fail(name, "missing field");
    return low;
  }
  const json& value = Get(name);
  const bool fits = value.is_number_integer() &&
                    (!value.is_number_unsigned() || value.get<uint64_t>() <= INT64_MAX);
  if (!fits || value.get<int64_t>() < low || value.get<int64_t>() > high) {
    Fail(name, absl::StrCat(ShowJson(value), " is not an integer in [", low, ", ", high, "]"));
    return low;
  }
  return value.get<int64_t>();
}

int64_t JsonFields::OptionalInt(const char* name, int64_t low, int64_t high, int64_t fallback) {
  return Has(name) ? RequiredInt(name, low, high) : fallback;
}

double JsonFields::RequiredNumber(const char* name, double low, double high) {
  if (!Has(name)) {
    Fail(name, "missing field");
    return low;
  }
  const json& value = Get(name);
  if (!value.is_number() || !(value.get<double>() >= low && value.get<double>() <= high)) {
    Fail(name, absl::StrCat(ShowJson(value), " is not a number in [", low, ", ", high, "]"));
    return low;
  }
  return value.get<double>();
}

double JsonFields::OptionalNumber(const char* name, double low, double high, double fallback) {
  return Has(name) ? RequiredNumber(name, low, high) : fallback;
}

bool JsonFields::OptionalBool(const char* name, bool fallback) {
  if (!Has(name)) return fallback;
  const json& value = Get(name);
  if (!value.is_boolean()) {
    Fail(name, absl::StrCat(ShowJson(value), " is not true or false"));
    return fallback;
  }
  return value.get<bool>();
}

std::string JsonFields::OptionalString(const char* name, const std::string& fallback) {
  if (!Has(name)) return fallback;
  const json& value = Get(name);
  if (!value.is_string()) {
    Fail(name, absl::StrCat(ShowJson(value), " is not a string"));
    return fallback;
  }
  return value.get<std::string>();
}

}  // namespace kedge
