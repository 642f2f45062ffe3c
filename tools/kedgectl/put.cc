// kedgectl put KEY FILE|-: stores a value.

#include <fstream>
#include <iostream>
#include <memory>

#include "tools/kedgectl/kedgectl.h"

namespace kedge::ctl {
namespace {

struct Arguments {
  std::string key;
  std::string file;
  std::string durability = "default";
};

bool ReadInput(const std::string& path, std::string* bytes, Failure* failure) {
  std::ifstream file;
  if (path != "-") file.open(path, std::ios::binary);
  std::istream& in = path == "-" ? std::cin : file;
  if (!in) {
    *failure = {kExitUsage, "FILE: cannot read '" + path + "'", "ls -l " + path};
    return false;
  }
  // One byte more than fits tells "too large" from "just fits".
  char buffer[1 << 16];
  while (bytes->size() <= KEDGE_BLOCK_BYTES_MAX && in) {
    in.read(buffer, sizeof buffer);
    bytes->append(buffer, static_cast<size_t>(in.gcount()));
  }
  if (in.bad() || bytes->empty() || bytes->size() > KEDGE_BLOCK_BYTES_MAX) {
    *failure = {kExitUsage,
                "FILE: '" + path + "' has " + (bytes->empty() ? "no bytes" : "too many bytes") +
                    "; a value has 1 to " + std::to_string(KEDGE_BLOCK_BYTES_MAX),
                "split -b 64M " + path};
    return false;
  }
  return true;
}

int Put(const Settings& settings, const Arguments& arguments) {
  Failure failure;
  sdk::Key key;
  std::string bytes;
  std::optional<sdk::Client> client;
  if (!ParseKey(settings, arguments.key, &key, &failure) ||
      !ReadInput(arguments.file, &bytes, &failure) || !OpenData(settings, &client, &failure)) {
    return Report(failure);
  }
  const auto durability = arguments.durability == "ssd"    ? sdk::Durability::kSsd
                          : arguments.durability == "host" ? sdk::Durability::kHost
                                                           : sdk::Durability::kDefault;
  const sdk::PutItem item{key, bytes.data(), bytes.size()};
  auto request = client->Put(std::span(&item, 1), durability);
  if (!request) return Report(FromData(settings, request.status()));
  if (auto status = sdk::Client::Finish(*request); !status) {
    return Report(FromData(settings, status));
  }
  Print(settings, {{"key", sdk::ToHex(key)},
                   {"bytes", bytes.size()},
                   {"result", sdk::CodeName(request->code())}});
  return kExitOk;
}

}  // namespace

void AddPut(CLI::App& app, const Settings& settings, Run* run) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* verb = app.add_subcommand("put", "Store a value under a key");
  verb->add_option("KEY", arguments->key, "64 hex digits, or name:TEXT")->required();
  verb->add_option("FILE", arguments->file, "the value; - is standard input")->required();
  verb->add_option("--durability", arguments->durability, "when it counts as stored")
      ->check(CLI::IsMember({"default", "host", "ssd"}))
      ->capture_default_str();
  verb->footer("Example:\n  echo hello | kedgectl put name:greeting - --salt secret");
  verb->callback([&settings, run, arguments] {
    *run = [&settings, arguments] { return Put(settings, *arguments); };
  });
}

}  // namespace kedge::ctl
