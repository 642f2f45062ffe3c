// Writes this version's pruned sequences into a folder, with scores and profile beside them, and
// the manifest of what they decode to.
//
//     bazel run //tests/compat:write_pruned -- $PWD/tests/compat/pruned/1
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <vector>

#include "tests/compat/compat_block.h"
#include "tests/compat/compat_pruned.h"

namespace kedge::compat {
namespace {

constexpr const char* kChains[] = {"prefixkv0.5-keydiff+kivi4g32", "uniform0.25-knorm+raw",
                                   "prefixkv0.5+kvcrush0.1+kivi2g32"};

void WriteFile(const std::string& path, std::span<const uint8_t> bytes) {
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
}

absl::Status Write(const std::string& folder) {
  std::filesystem::create_directories(folder);
  const ModelProfile profile = MakePrunedProfile();
  const codec::ScoreSidecar scores = MakeScores();
  WriteFile(folder + "/profile.bin", profile.bytes());
  WriteFile(folder + "/scores.bin", codec::EncodeSidecar(scores));
  std::ofstream manifest(folder + "/manifest");
  for (const std::string chain : kChains) {
    const auto object = MakePruned(chain, profile, scores);
    if (!object.ok()) return object.status();
    const auto rows = RowsOf(*object, profile);
    if (!rows.ok()) return rows.status();
    WriteFile(folder + "/" + chain + ".bin", *object);
    manifest << chain << " " << DigestOfPages(*rows) << "\n";
  }
  return manifest.flush() ? absl::OkStatus() : absl::UnavailableError(folder + "/manifest");
}

}  // namespace
}  // namespace kedge::compat

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: write_pruned DIR\n");
    return 2;
  }
  const absl::Status status = kedge::compat::Write(argv[1]);
  if (status.ok()) return 0;
  std::fprintf(stderr, "write_pruned: %s\n", std::string(status.message()).c_str());
  return 1;
}
