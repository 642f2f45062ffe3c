#include "store/node/config.h"

#include <yaml-cpp/yaml.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <variant>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "store/node/byte_size.h"
#include "store/tier/recode_policy.h"
#include "store/tier/tier_host.h"
#include "store/world/limits.h"

namespace kedge {
namespace {

constexpr size_t kFileBytesMax = 64 << 10;

struct Size {
  uint64_t Config::*field;
};
struct Number {
  uint64_t Config::*field;
  uint64_t min;
  uint64_t max;
};
struct Text {
  std::string Config::*field;
};
struct Choice {
  std::string Config::*field;
  std::vector<std::string> values;
};
struct Texts {
  std::vector<std::string> Config::*field;
  bool may_be_empty = false;
};
struct Flag {
  bool Config::*field;
};

struct Field {
  std::string name;  // in the file; flags have '-' for '_'
  std::variant<Size, Number, Text, Choice, Texts, Flag> kind;
  std::string help;
};

const std::vector<Field>& Fields() {
  static const auto* const fields = new std::vector<Field>{
      {"node_id", Text{&Config::node_id}, "Name of this node, in status and membership"},
      {"listen", Texts{&Config::listen},
       "Data address: tcp://HOST:PORT or shm://HOST:PORT; may be repeated; port 0 lets the kernel "
       "choose. "
       "Neither authenticates nor encrypts: for trusted networks only"},
      {"control", Text{&Config::control}, "Address of the gRPC control and health services"},
      {"metrics", Text{&Config::metrics}, "Address of /metrics for Prometheus; empty: none"},
      {"host_capacity", Size{&Config::host_capacity}, "Memory of the host tier"},
      {"pool_memory", Size{&Config::pool_memory},
       "Memory for pools of anchors that are mixed here, beside the host tier"},
      {"ssd_path", Text{&Config::ssd_path}, "Directory of the SSD tier; empty: none"},
      {"ssd_capacity", Size{&Config::ssd_capacity}, "Bytes of the SSD tier"},
      {"ssd_segment", Size{&Config::ssd_segment}, "Bytes of one segment file"},
      {"durability", Choice{&Config::durability, {"host", "ssd"}},
       "What an acknowledged put means when the client does not say: in host memory, or synced to "
       "the SSD"},
      {"lease_max_ms", Number{&Config::lease_max_ms, 1, 3'600'000}, "Longest lease"},
      {"put_idle_ms", Number{&Config::put_idle_ms, 10 * kPutSweepMs, 3'600'000},
       "A put without traffic for so long is dropped"},
      {"sessions_max", Number{&Config::sessions_max, 1, 65'536}, "Open sessions"},
      {"near_donors", Number{&Config::near_donors, 0, (1u << 26) - 1},
       "Spans of text that the near index remembers, 577 bytes each; 0: none"},
      {"drain_ms", Number{&Config::drain_ms, 0, 3'600'000},
       "After SIGTERM: time to finish puts and to write what is unsaved"},
      {"threads", Number{&Config::threads, 1, 256}, "Threads for the SSD"},
      {"recode", Texts{&Config::recode, true},
       "What the SSD holds in place of what was put: 'ssd: kivi4g32', 'ssd after 7d: kivi2g32', "
       "'tenant 42: ssd: raw'; may be repeated. Default: what was put"},
      {"profiles", Texts{&Config::profiles, true},
       "Model profile (tools/profile_model): which lossy variants its model may have; may be "
       "repeated"},
      {"allow_unprofiled", Flag{&Config::allow_unprofiled},
       "true: lossy variants of models without a profile are taken, unmeasured"},
      {"log_level", Choice{&Config::log_level, {"trace", "debug", "info", "warn", "error", "off"}},
       "Of the log on standard error"},
  };
  return *fields;
}

std::string FlagName(const Field& field) {
  std::string flag = "--" + field.name;
  std::replace(flag.begin(), flag.end(), '_', '-');
  return flag;
}

const Field* FindField(const std::string& name) {
  for (const Field& field : Fields()) {
    if (field.name == name) return &field;
  }
  return nullptr;
}

// Sets one field from texts; the error says what was expected.
struct Setter {
  Config* config;
  const std::vector<std::string>& values;

  absl::Status One() const {
    if (values.size() == 1) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat(values.size(), " values where one was expected"));
  }
  absl::Status Printable() const {
    for (const std::string& value : values) {
      if (std::all_of(value.begin(), value.end(), [](char c) { return c >= ' ' && c <= '~'; })) {
        continue;
      }
      return absl::InvalidArgumentError(
          absl::StrCat("'", absl::CEscape(value), "' has a character that is not printable ASCII"));
    }
    return absl::OkStatus();
  }
  absl::Status operator()(const Size& kind) const {
    if (absl::Status status = One(); !status.ok()) return status;
    const absl::StatusOr<uint64_t> size = ParseByteSize(values[0]);
    if (!size.ok()) return size.status();
    config->*kind.field = *size;
    return absl::OkStatus();
  }
  absl::Status operator()(const Number& kind) const {
    if (absl::Status status = One(); !status.ok()) return status;
    uint64_t value = 0;
    if (!absl::SimpleAtoi(values[0], &value) || value < kind.min || value > kind.max) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", values[0], "' is not a number in [", kind.min, ", ", kind.max, "]"));
    }
    config->*kind.field = value;
    return absl::OkStatus();
  }
  absl::Status operator()(const Text& kind) const {
    if (absl::Status status = One(); !status.ok()) return status;
    if (absl::Status status = Printable(); !status.ok()) return status;
    config->*kind.field = values[0];
    return absl::OkStatus();
  }
  absl::Status operator()(const Choice& kind) const {
    if (absl::Status status = One(); !status.ok()) return status;
    if (std::find(kind.values.begin(), kind.values.end(), values[0]) == kind.values.end()) {
      std::string known;
      for (const std::string& value : kind.values) absl::StrAppend(&known, " ", value);
      return absl::InvalidArgumentError(absl::StrCat("'", values[0], "' is none of:", known));
    }
    config->*kind.field = values[0];
    return absl::OkStatus();
  }
  absl::Status operator()(const Texts& kind) const {
    std::vector<std::string> texts = values;
    if (kind.may_be_empty) std::erase(texts, "");
    if (texts.empty() && !kind.may_be_empty) {
      return absl::InvalidArgumentError("at least one value is needed");
    }
    if (absl::Status status = Printable(); !status.ok()) return status;
    config->*kind.field = std::move(texts);
    return absl::OkStatus();
  }
  absl::Status operator()(const Flag& kind) const {
    if (absl::Status status = One(); !status.ok()) return status;
    if (values[0] != "true" && values[0] != "false") {
      return absl::InvalidArgumentError(
          absl::StrCat("'", values[0], "' is neither true nor false"));
    }
    config->*kind.field = values[0] == "true";
    return absl::OkStatus();
  }
};

absl::Status Set(const Field& field, const std::vector<std::string>& values,
                 const std::string& where, Config* config) {
  const absl::Status status = std::visit(Setter{config, values}, field.kind);
  if (status.ok()) return status;
  return absl::InvalidArgumentError(absl::StrCat(where, ": ", status.message()));
}

struct Printer {
  const Config& config;
  YAML::Emitter& out;

  void operator()(const Size& kind) const { out << FormatByteSize(config.*kind.field); }
  void operator()(const Number& kind) const { out << config.*kind.field; }
  void operator()(const Text& kind) const { out << YAML::DoubleQuoted << config.*kind.field; }
  void operator()(const Choice& kind) const { out << config.*kind.field; }
  void operator()(const Texts& kind) const {
    out << YAML::BeginSeq;
    for (const std::string& text : config.*kind.field) out << YAML::DoubleQuoted << text;
    out << YAML::EndSeq;
  }
  void operator()(const Flag& kind) const { out << (config.*kind.field ? "true" : "false"); }
};

// HOST:PORT with a port from 0 to 65535.
absl::Status CheckHostPort(const std::string& field, std::string_view text) {
  const size_t colon = text.rfind(':');
  uint32_t port = 0;
  const std::string_view digits =
      colon == std::string_view::npos ? std::string_view() : text.substr(colon + 1);
  if (colon == 0 || digits.empty() || digits.size() > 5 ||
      digits.find_first_not_of("0123456789") != std::string_view::npos ||
      !absl::SimpleAtoi(absl::string_view(digits.data(), digits.size()), &port) || port > 65'535) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": '", std::string(text), "' is not HOST:PORT"));
  }
  return absl::OkStatus();
}

// Pairs of texts, and texts, as lines "name: value". False when there is anything else.
bool ReadPairs(const YAML::Node& node, std::vector<std::string>* lines) {
  std::vector<std::string> read;
  const auto pairs = [&](const YAML::Node& map) {
    for (const auto& pair : map) {
      if (!pair.first.IsScalar() || !pair.second.IsScalar()) return false;
      read.push_back(absl::StrCat(pair.first.Scalar(), ": ", pair.second.Scalar()));
    }
    return true;
  };
  if (node.IsMap()) {
    if (!pairs(node)) return false;
  } else if (node.IsSequence()) {
    for (const YAML::Node& entry : node) {
      if (entry.IsScalar()) {
        read.push_back(entry.Scalar());
      } else if (!entry.IsMap() || !pairs(entry)) {
        return false;
      }
    }
  } else {
    return false;
  }
  *lines = std::move(read);
  return true;
}

absl::Status ApplyNode(const YAML::Node& root, Config* config) {
  if (root.IsNull()) return absl::OkStatus();
  if (!root.IsMap()) return absl::InvalidArgumentError("config: the file is not a map of fields");
  for (const auto& entry : root) {
    if (!entry.first.IsScalar()) {
      return absl::InvalidArgumentError(absl::StrCat("config line ", entry.first.Mark().line + 1,
                                                     ": a field's name is not a text"));
    }
    const std::string& name = entry.first.Scalar();
    const std::string where = absl::StrCat("config line ", entry.first.Mark().line + 1, ": ", name);
    const Field* field = FindField(name);
    if (field == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat(where, ": unknown field"));
    }
    std::vector<std::string> values;
    if (name == "recode" && ReadPairs(entry.second, &values)) {
      // `recode: {ssd: kivi4g32}`, or a list with such entries
    } else if (entry.second.IsScalar()) {
      values.push_back(entry.second.Scalar());
    } else if (entry.second.IsSequence()) {
      for (const YAML::Node& value : entry.second) {
        if (!value.IsScalar()) {
          return absl::InvalidArgumentError(absl::StrCat(where, ": a list of texts is expected"));
        }
        values.push_back(value.Scalar());
      }
    } else if (entry.second.IsNull()) {
      values.emplace_back();
    } else {
      return absl::InvalidArgumentError(absl::StrCat(where, ": a value or a list is expected"));
    }
    if (absl::Status status = Set(*field, values, where, config); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ApplyYaml(std::string_view text, Config* config) {
  if (text.size() > kFileBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("config: ", text.size(), " bytes, more than ", kFileBytesMax));
  }
  Config changed = *config;
  try {
    const absl::Status status = ApplyNode(YAML::Load(std::string(text)), &changed);
    if (!status.ok()) return status;
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(
        absl::StrCat("config line ", error.mark.line + 1, ": ", error.msg));
  }
  *config = changed;
  return absl::OkStatus();
}

absl::Status CheckConfig(const Config& config) {
  for (const std::string& address : config.listen) {
    const size_t scheme = address.find("://");
    const std::string name = address.substr(0, scheme);
    if (scheme == std::string::npos || (name != "tcp" && name != "shm")) {
      return absl::InvalidArgumentError(
          absl::StrCat("listen: '", address, "' is neither tcp://HOST:PORT nor shm://HOST:PORT"));
    }
    const absl::Status status =
        CheckHostPort("listen", std::string_view(address).substr(scheme + 3));
    if (!status.ok()) return status;
  }
  if (absl::Status status = CheckHostPort("control", config.control); !status.ok()) return status;
  if (!config.metrics.empty()) {
    if (absl::Status status = CheckHostPort("metrics", config.metrics); !status.ok()) return status;
  }
  if (config.node_id.empty() || config.node_id.size() > kTextBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("node_id: '", config.node_id, "' has not 1 to ", kTextBytesMax, " bytes"));
  }
  if (config.host_capacity < kHostExtentBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("host_capacity: ", FormatByteSize(config.host_capacity),
                     " is less than the largest block needs, ", FormatByteSize(kHostExtentBytes)));
  }
  const absl::StatusOr<RecodePolicy> recode = RecodePolicy::Parse(config.recode);
  if (!recode.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("recode: ", recode.status().message()));
  }
  if (!recode->empty() && config.ssd_path.empty()) {
    return absl::InvalidArgumentError("recode: needs ssd_path");
  }
  if (config.durability == "ssd" && config.ssd_path.empty()) {
    return absl::InvalidArgumentError("durability: ssd needs ssd_path");
  }
  if (!config.ssd_path.empty() && config.ssd_capacity / 2 < config.ssd_segment) {
    return absl::InvalidArgumentError(absl::StrCat(
        "ssd_capacity: ", FormatByteSize(config.ssd_capacity), " is less than two segments of ",
        FormatByteSize(config.ssd_segment), " (ssd_segment)"));
  }
  return absl::OkStatus();
}

std::string ToYaml(const Config& config) {
  YAML::Emitter out;
  out << YAML::BeginMap;
  for (const Field& field : Fields()) {
    out << YAML::Key << field.name << YAML::Value;
    std::visit(Printer{config, out}, field.kind);
  }
  out << YAML::EndMap;
  return std::string(out.c_str()) + "\n";
}

absl::StatusOr<CommandLine> ParseCommandLine(
    int argc, const char* const* argv,
    absl::StatusOr<std::string> (*read_file)(const std::string& path)) {
  CLI::App app("kedged: a node of a Kedge KV-cache store", "kedged");
  CommandLine line;
  std::string file;
  bool version = false;
  app.add_option("--config", file, "YAML file; flags win over it");
  app.add_flag("--print-config", line.print_config, "Print the effective configuration and exit");
  app.add_flag("--version", version, "Print the version and exit");
  std::map<std::string, std::vector<std::string>> given;
  for (const Field& field : Fields()) {
    app.add_option(FlagName(field), given[field.name], field.help)->expected(1)->take_all();
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    line.stop = true;
    line.text = app.help();
    return line;
  } catch (const CLI::ParseError& error) {
    return absl::InvalidArgumentError(error.what());
  }
  if (version) {
    line.stop = true;
    return line;
  }
  if (!file.empty()) {
    absl::StatusOr<std::string> text = read_file(file);
    if (!text.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--config: ", file, ": ", text.status().message()));
    }
    const absl::Status status = ApplyYaml(*text, &line.config);
    if (!status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(file, ": ", status.message()));
    }
  }
  for (const Field& field : Fields()) {
    if (app.count(FlagName(field)) == 0) continue;
    const absl::Status status = Set(field, given[field.name], FlagName(field), &line.config);
    if (!status.ok()) return status;
  }
  if (absl::Status status = CheckConfig(line.config); !status.ok()) return status;
  return line;
}

}  // namespace kedge
