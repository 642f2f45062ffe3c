// kedgectl: what all verbs share. One verb, one file: status.cc, put.cc, get.cc, inspect.cc,
// verify.cc, rm.cc.
//
// Data goes to stdout in the form that --output names, diagnostics to stderr. Exit codes never
// change meaning. Every error ends with the next command to try.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "client/kv_client.h"
#include "proto/control.grpc.pb.h"

namespace kedge::ctl {

inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitUnhealthy = 3;
inline constexpr int kExitUnreachable = 4;

using Json = nlohmann::ordered_json;

struct Settings {
  std::string data = "tcp://127.0.0.1:7420";
  std::string control = "127.0.0.1:7421";
  std::string salt;
  std::string salt_file;
  std::string output = "table";
  uint32_t timeout_ms = 10'000;
};

// A failure that ends the command: how, why, and what to try next.
struct Failure {
  int exit_code = kExitFailed;
  std::string text;
  std::string next;
};
// Writes "error: TEXT" and "try: NEXT" to stderr; returns the exit code.
int Report(const Failure& failure);

// "64 hex digits" or "name:TEXT" (hashed under the salt). False with `failure` filled in.
bool ParseKey(const Settings& settings, const std::string& text, sdk::Key* key, Failure* failure);
// The salt of --salt or --salt-file; empty when neither is given.
bool ReadSalt(const Settings& settings, std::string* salt, Failure* failure);

// Connects to the data address.
bool OpenData(const Settings& settings, std::optional<sdk::Client>* client, Failure* failure);
Failure FromData(const Settings& settings, const sdk::Status& status);

// One call of the control service, with the settings' timeout.
using ControlStub = control::v1::Control::Stub;
bool CallControl(const Settings& settings,
                 const std::function<grpc::Status(ControlStub&, grpc::ClientContext&)>& call,
                 Failure* failure);

// An object or a list of objects as table, JSON or YAML on stdout.
void Print(const Settings& settings, const Json& data);
std::string ByteText(uint64_t bytes);  // "1.5 MiB"
std::string HexText(std::string_view bytes);

// Each adds its subcommand; `run` is set to what it does when it was chosen.
using Run = std::function<int()>;
void AddStatus(CLI::App& app, const Settings& settings, Run* run);
void AddPut(CLI::App& app, const Settings& settings, Run* run);
void AddGet(CLI::App& app, const Settings& settings, Run* run);
void AddInspect(CLI::App& app, const Settings& settings, Run* run);
void AddVerify(CLI::App& app, const Settings& settings, Run* run);
void AddRm(CLI::App& app, const Settings& settings, Run* run);

}  // namespace kedge::ctl
