// kedgectl get KEY [FILE|-]: brings a value back, verified.

#include <fstream>
#include <iostream>
#include <memory>

#include "tools/kedgectl/kedgectl.h"

namespace kedge::ctl {
namespace {

struct Arguments {
  std::string key;
  std::string file = "-";
};

int Get(const Settings& settings, const Arguments& arguments) {
  Failure failure;
  sdk::Key key;
  std::optional<sdk::Client> client;
  if (!ParseKey(settings, arguments.key, &key, &failure) ||
      !OpenData(settings, &client, &failure)) {
    return Report(failure);
  }
  const auto finish = [&](sdk::Result<sdk::Request>& request) {
    return request ? sdk::Client::Finish(*request) : request.status();
  };
  auto exists = client->Exists(std::span(&key, 1));
  if (auto status = finish(exists); !status) return Report(FromData(settings, status));
  std::string bytes(exists->items()[0].bytes, '\0');
  const sdk::GetItem item{key, bytes.data(), bytes.size()};
  auto get = client->Get(std::span(&item, 1));
  if (auto status = finish(get); !status) return Report(FromData(settings, status));

  if (arguments.file == "-") {
    std::cout.write(bytes.data(), static_cast<std::streamsize>(bytes.size())).flush();
    if (!std::cout) {
      return Report({kExitFailed, "standard output took not all of the value",
                     "kedgectl get " + arguments.key + " FILE"});
    }
    return kExitOk;
  }
  std::ofstream file(arguments.file, std::ios::binary);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size())).flush();
  if (!file) {
    return Report({kExitFailed, "FILE: cannot write '" + arguments.file + "'",
                   "df -h; kedgectl get " + arguments.key + " -"});
  }
  Print(settings, {{"key", sdk::ToHex(key)}, {"bytes", bytes.size()}, {"file", arguments.file}});
  return kExitOk;
}

}  // namespace

void AddGet(CLI::App& app, const Settings& settings, Run* run) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* verb = app.add_subcommand("get", "Bring a value back");
  verb->add_option("KEY", arguments->key, "64 hex digits, or name:TEXT")->required();
  verb->add_option("FILE", arguments->file, "where to; - is standard output")
      ->capture_default_str();
  verb->footer("Example:\n  kedgectl get name:greeting --salt secret");
  verb->callback([&settings, run, arguments] {
    *run = [&settings, arguments] { return Get(settings, *arguments); };
  });
}

}  // namespace kedge::ctl
