// Writes this version's blocks into a folder, and the manifest of what they decode to.
//
//     bazel run //tests/compat:write_blocks -- $PWD/tests/compat/blocks/1
//     bazel run //tests/compat:write_blocks -- DIR CHAIN...          these chains only
//     bazel run //tests/compat:write_blocks -- DIR --profile FILE CHAIN...
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/compat/compat_block.h"

namespace kedge::compat {
namespace {

const std::vector<std::string> kChains = {
    "raw",      "fp8",        "kivi8g32",   "kivi4g32",     "kivi4g64",      "kivi2g32",
    "kivi2g64", "kivi2g32s8", "kivi4g32s8", "had+kivi2g32", "had+kivi4g32s8"};

absl::Status Write(const std::string& folder, const std::vector<std::string>& chains,
                   const std::string& profile_file) {
  std::optional<ModelProfile> profile;
  if (!profile_file.empty()) {
    std::ifstream in(folder + "/" + profile_file, std::ios::binary);
    std::vector<uint8_t> bytes{std::istreambuf_iterator<char>(in), {}};
    absl::StatusOr<ModelProfile> parsed = ModelProfile::Parse(std::move(bytes));
    if (!parsed.ok()) return parsed.status();
    profile = *std::move(parsed);
  }
  std::filesystem::create_directories(folder);
  std::ofstream manifest(folder + "/manifest", std::ios::app);
  for (const std::string& chain : chains) {
    for (const bool start : {true, false}) {
      const ModelProfile* used = profile ? &*profile : nullptr;
      const absl::StatusOr<std::vector<uint8_t>> block = MakeBlock(chain, start, used);
      if (!block.ok()) return block.status();
      const absl::StatusOr<std::vector<uint8_t>> pages = PagesOf(*block, used);
      if (!pages.ok()) return pages.status();
      const std::string name = absl::StrCat(chain, start ? ".first.bin" : ".later.bin");
      std::ofstream out(folder + "/" + name, std::ios::binary);
      out.write(reinterpret_cast<const char*>(block->data()),
                static_cast<std::streamsize>(block->size()));
      manifest << name << " " << DigestOfPages(*pages);
      if (used != nullptr) manifest << " " << profile_file;
      manifest << "\n";
      if (!out.flush()) return absl::UnavailableError(absl::StrCat(folder, "/", name));
    }
  }
  if (!manifest.flush()) return absl::UnavailableError(absl::StrCat(folder, "/manifest"));
  return absl::OkStatus();
}

}  // namespace
}  // namespace kedge::compat

int main(int argc, char** argv) {
  std::vector<std::string> arguments(argv + 1, argv + argc);
  std::string profile;
  const auto flag = std::find(arguments.begin(), arguments.end(), "--profile");
  if (flag != arguments.end() && flag + 1 != arguments.end()) {
    profile = *(flag + 1);
    arguments.erase(flag, flag + 2);
  }
  if (arguments.empty() || arguments[0].starts_with("-")) {
    std::fprintf(stderr, "usage: write_blocks DIR [--profile FILE-IN-DIR] [CHAIN...]\n");
    return 2;
  }
  const std::string folder = arguments[0];
  arguments.erase(arguments.begin());
  const absl::Status status =
      kedge::compat::Write(folder, arguments.empty() ? kedge::compat::kChains : arguments, profile);
  if (status.ok()) return 0;
  std::fprintf(stderr, "write_blocks: %s\n", std::string(status.message()).c_str());
  return 1;
}
