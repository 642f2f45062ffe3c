// How a kedged is told what to be: flags over a YAML file over defaults, checked once, printed by
// --print-config.
//
// A field has one name: `host_capacity` in the file is `--host-capacity` on the command line. Every
// error names the field, where it was set and its value. Nothing here opens a socket or makes a
// directory.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "store/world/limits.h"

namespace kedge {

struct Config {
  std::string node_id = "kedged";
  std::vector<std::string> listen = {"tcp://127.0.0.1:7420"};
  std::string control = "127.0.0.1:7421";
  std::string metrics = "127.0.0.1:7422";  // empty: no metrics
  uint64_t host_capacity = 1ull << 30;
  uint64_t pool_memory = kPoolMemoryBytesDefault;  // of anchors in memory, beside the host tier
  std::string ssd_path;                            // empty: no SSD tier
  uint64_t ssd_capacity = 16ull << 30;
  uint64_t ssd_segment = 256ull << 20;
  std::string durability = "host";  // of puts that leave it to the node: "host" or "ssd"
  uint64_t lease_max_ms = 60'000;
  uint64_t put_idle_ms = 10'000;
  uint64_t sessions_max = 4096;
  uint64_t near_donors = kNearDonorsDefault;  // of the near index; 0: none is kept
  uint64_t drain_ms = 20'000;
  uint64_t threads = 4;               // of the executor: SSD reads and writes, recoding
  std::vector<std::string> recode;    // lines of store/tier/recode_policy.h; empty: never
  std::vector<std::string> profiles;  // paths of model profiles
  bool allow_unprofiled = false;      // lossy blocks of models without a profile are taken
  std::string log_level = "info";

  friend bool operator==(const Config&, const Config&) = default;
};

// What a file says, over what `config` says. INVALID_ARGUMENT naming line, field and value: not
// YAML, not a map, an unknown field, a value of a wrong kind.
absl::Status ApplyYaml(std::string_view text, Config* config);
// Do the fields make sense, alone and together?
absl::Status CheckConfig(const Config& config);
// The effective configuration as a file that ApplyYaml reads back to the same.
std::string ToYaml(const Config& config);

struct CommandLine {
  Config config;
  bool print_config = false;
  bool stop = false;  // --help or --version: print `text` and exit with 0
  std::string text;
};
// Flags, and the file that --config names (read by `read_file`).
absl::StatusOr<CommandLine> ParseCommandLine(
    int argc, const char* const* argv,
    absl::StatusOr<std::string> (*read_file)(const std::string& path));

}  // namespace kedge
