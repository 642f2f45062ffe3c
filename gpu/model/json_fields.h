// Reads typed fields of one JSON object, with errors that name the file, the field and the value.
//
// A reader remembers the first error; getters after it return their default. So a parser reads all
// fields in a row and looks at `status()` once.
#pragma once

// nlohmann's <ranges> support cannot be compiled by clang 14 with libstdc++ 12.
#ifndef JSON_HAS_RANGES
#define JSON_HAS_RANGES 0
#endif

#include <cstdint>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace kedge {

// Parses `text`: one JSON object, at most `max_depth` levels deep, no key twice in an object.
absl::StatusOr<nlohmann::json> ParseJsonObject(std::string_view text, std::string_view file,
                                               int max_depth);

// A value for an error message: short, on one line.
std::string ShowJson(const nlohmann::json& value);

class JsonFields {
 public:
  // `object` must outlive the reader. `prefix` stands before field names in errors:
  // "rope_scaling.".
  JsonFields(const nlohmann::json& object, std::string_view file, std::string_view prefix = "")
      : object_(object), file_(file), prefix_(prefix) {}

  bool Has(const char* name) const;  // present and not null
  const nlohmann::json& Get(const char* name) const { return object_.at(name); }

  int64_t RequiredInt(const char* name, int64_t low, int64_t high);
  int64_t OptionalInt(const char* name, int64_t low, int64_t high, int64_t fallback);
  double RequiredNumber(const char* name, double low, double high);
  double OptionalNumber(const char* name, double low, double high, double fallback);
  bool OptionalBool(const char* name, bool fallback);
  std::string OptionalString(const char* name, const std::string& fallback);

  // Records an error about `name`: "config.json: hidden_size: 7 is not ...".
  void Fail(const char* name, const std::string& why);
  // Takes over the error of a nested reader.
  void Forward(const absl::Status& status) {
    if (status_.ok()) status_ = status;
  }
  const absl::Status& status() const { return status_; }

 private:
  const nlohmann::json& object_;
  std::string file_;
  std::string prefix_;
  absl::Status status_;
};

}  // namespace kedge
