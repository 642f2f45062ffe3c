#include "tools/kedgectl/kedgectl.h"

#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>

#include <grpcpp/grpcpp.h>

#include "proto/block_key.h"

namespace kedge::ctl {
namespace {

bool ColorsOn() {
  const char* no_color = std::getenv("NO_COLOR");
  return isatty(STDERR_FILENO) != 0 && (no_color == nullptr || *no_color == '\0');
}

}  // namespace

int Report(const Failure& failure) {
  const bool colors = ColorsOn();
  std::cerr << (colors ? "\033[31merror:\033[0m " : "error: ") << failure.text << "\n";
  if (!failure.next.empty()) std::cerr << "try: " << failure.next << "\n";
  return failure.exit_code;
}

bool ReadSalt(const Settings& settings, std::string* salt, Failure* failure) {
  *salt = settings.salt;
  if (settings.salt_file.empty()) return true;
  std::ifstream file(settings.salt_file);
  if (!file || !std::getline(file, *salt) || salt->empty()) {
    *failure = {kExitUsage, "--salt-file: cannot read a salt from '" + settings.salt_file + "'",
                "ls -l " + settings.salt_file};
    return false;
  }
  return true;
}

bool ParseKey(const Settings& settings, const std::string& text, sdk::Key* key, Failure* failure) {
  constexpr std::string_view kName = "name:";
  if (text.rfind(kName, 0) != 0) {
    auto parsed = sdk::KeyFromHex(text);
    if (!parsed) {
      *failure = {kExitUsage,
                  "KEY: '" + text + "' is neither 64 hex digits nor name:TEXT: " + parsed.text(),
                  "kedgectl inspect name:" + text + " --salt SALT"};
      return false;
    }
    *key = *parsed;
    return true;
  }
  std::string salt;
  if (!ReadSalt(settings, &salt, failure)) return false;
  if (salt.empty()) {
    *failure = {kExitUsage, "KEY: '" + text + "' is a name, and names need a salt",
                "add --salt SALT, --salt-file FILE or KEDGE_SALT"};
    return false;
  }
  const auto parsed = TenantSalt::FromText(salt);
  if (!parsed.ok()) {
    *failure = {kExitUsage, "--salt: " + std::string(parsed.status().message()), "kedgectl --help"};
    return false;
  }
  const std::string name = text.substr(kName.size());
  const BlockKey block =
      OpaqueKey(*parsed, {reinterpret_cast<const uint8_t*>(name.data()), name.size()});
  std::memcpy(key->bytes, block.bytes.data(), sizeof key->bytes);
  return true;
}

Failure FromData(const Settings& settings, const sdk::Status& status) {
  switch (status.code()) {
    case sdk::Code::kUnavailable:
      return {kExitUnreachable, status.text(),
              "kedgectl status --control " + settings.control + " (is kedged running?)"};
    case sdk::Code::kInvalid:
      return {kExitUsage, status.text(), "kedgectl --help"};
    default:
      return {kExitFailed, std::string(sdk::CodeName(status.code())) + ": " + status.text(),
              "kedgectl status --control " + settings.control};
  }
}

bool OpenData(const Settings& settings, std::optional<sdk::Client>* client, Failure* failure) {
  std::string salt;
  if (!ReadSalt(settings, &salt, failure)) return false;
  // Keys are computed already; the client's own salt names nothing here.
  auto opened = sdk::Client::Open({.address = settings.data,
                                   .salt = salt.empty() ? "kedgectl" : salt,
                                   .client_name = "kedgectl",
                                   .deadline_ms = settings.timeout_ms,
                                   .connect_ms = settings.timeout_ms});
  if (!opened) {
    *failure = FromData(settings, opened.status());
    return false;
  }
  *client = std::move(*opened);
  return true;
}

bool CallControl(const Settings& settings,
                 const std::function<grpc::Status(ControlStub&, grpc::ClientContext&)>& call,
                 Failure* failure) {
  const auto stub = control::v1::Control::NewStub(
      grpc::CreateChannel(settings.control, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() +
                       std::chrono::milliseconds(settings.timeout_ms));
  const grpc::Status status = call(*stub, context);
  if (status.ok()) return true;
  const bool unreachable = status.error_code() == grpc::StatusCode::UNAVAILABLE ||
                           status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED;
  if (unreachable) {
    *failure = {
        kExitUnreachable,
        "no node answers at control address " + settings.control + ": " + status.error_message(),
        "start one with `kedged`, or name its address: --control HOST:PORT"};
  } else if (status.error_code() == grpc::StatusCode::INVALID_ARGUMENT) {
    *failure = {kExitUsage, status.error_message(), "kedgectl --help"};
  } else {
    *failure = {kExitFailed, status.error_message(),
                "kedgectl status --control " + settings.control};
  }
  return false;
}

std::string ByteText(uint64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  int unit = 0;
  for (; value >= 1024 && unit < 4; ++unit) value /= 1024;
  char text[32];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.1f %s", value, kUnits[unit]);
  return text;
}

std::string HexText(std::string_view bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  for (const char c : bytes) {
    hex += kDigits[static_cast<uint8_t>(c) >> 4];
    hex += kDigits[static_cast<uint8_t>(c) & 15];
  }
  return hex;
}

}  // namespace kedge::ctl
