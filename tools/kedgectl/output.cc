// Print: one value as table, JSON or YAML.

#include <algorithm>
#include <iostream>
#include <string>
#include <vector>

#include <yaml-cpp/yaml.h>

#include "tools/kedgectl/kedgectl.h"

namespace kedge::ctl {
namespace {

std::string Plain(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_null()) return "";
  if (!value.is_array()) return value.dump();
  std::string text;
  for (const Json& item : value) {
    if (!text.empty()) text += ", ";
    text += Plain(item);
  }
  return text;
}

bool IsRows(const Json& value) {
  return value.is_array() && !value.empty() && value.front().is_object();
}

void PrintRows(const Json& rows, const std::string& indent) {
  std::vector<std::string> names;
  for (const auto& [name, value] : rows.front().items()) names.push_back(name);
  std::vector<size_t> widths;
  for (const std::string& name : names) {
    size_t width = name.size();
    for (const Json& row : rows) width = std::max(width, Plain(row.value(name, Json())).size());
    widths.push_back(width);
  }
  const auto line = [&](const auto& cell) {
    std::cout << indent;
    for (size_t i = 0; i < names.size(); ++i) {
      const std::string text = cell(names[i]);
      std::cout << text;
      if (i + 1 < names.size()) std::cout << std::string(widths[i] - text.size() + 2, ' ');
    }
    std::cout << "\n";
  };
  line([](const std::string& name) { return name; });
  for (const Json& row : rows) {
    line([&](const std::string& name) { return Plain(row.value(name, Json())); });
  }
}

void PrintTable(const Json& data) {
  if (IsRows(data)) return PrintRows(data, "");
  if (!data.is_object()) {
    std::cout << Plain(data) << "\n";
    return;
  }
  size_t width = 0;
  for (const auto& [name, value] : data.items()) width = std::max(width, name.size());
  for (const auto& [name, value] : data.items()) {
    if (IsRows(value)) {
      std::cout << name << "\n";
      PrintRows(value, "  ");
    } else {
      std::cout << name << std::string(width - name.size() + 2, ' ') << Plain(value) << "\n";
    }
  }
}

void EmitYaml(YAML::Emitter& out, const Json& data) {
  if (data.is_object()) {
    out << YAML::BeginMap;
    for (const auto& [name, value] : data.items()) {
      out << YAML::Key << name << YAML::Value;
      EmitYaml(out, value);
    }
    out << YAML::EndMap;
  } else if (data.is_array()) {
    out << YAML::BeginSeq;
    for (const Json& item : data) EmitYaml(out, item);
    out << YAML::EndSeq;
  } else if (data.is_string()) {
    out << YAML::DoubleQuoted << data.get<std::string>();
  } else {
    out << (data.is_null() ? "~" : data.dump());
  }
}

}  // namespace

void Print(const Settings& settings, const Json& data) {
  if (settings.output == "json") {
    std::cout << data.dump(2, ' ', false, Json::error_handler_t::replace) << "\n";
  } else if (settings.output == "yaml") {
    YAML::Emitter out;
    EmitYaml(out, data);
    std::cout << out.c_str() << "\n";
  } else {
    PrintTable(data);
  }
  std::cout.flush();
}

}  // namespace kedge::ctl
