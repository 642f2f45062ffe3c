// Pruned sequences that earlier versions wrote are read, and decode to the rows that they always
// did.
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/compat/compat_block.h"
#include "tests/compat/compat_pruned.h"

namespace kedge::compat {
namespace {

constexpr char kPruned[] = "tests/compat/pruned";
// What this program writes. The folders before it are what it must read.
constexpr char kNewest[] = "1";

std::vector<uint8_t> ReadFile(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in.good()) << path;
  return {std::istreambuf_iterator<char>(in), {}};
}

struct Folder {
  std::filesystem::path path;
  std::vector<std::pair<std::string, std::string>> chains;  // and digests of their rows

  ModelProfile profile() const {
    absl::StatusOr<ModelProfile> parsed = ModelProfile::Parse(ReadFile(path / "profile.bin"));
    EXPECT_TRUE(parsed.ok()) << parsed.status();
    return *std::move(parsed);
  }
};

std::vector<Folder> Folders() {
  std::vector<Folder> folders;
  for (const auto& entry : std::filesystem::directory_iterator(kPruned)) {
    Folder& folder = folders.emplace_back(Folder{entry.path(), {}});
    std::ifstream manifest(entry.path() / "manifest");
    std::string chain;
    std::string digest;
    while (manifest >> chain >> digest) folder.chains.emplace_back(chain, digest);
    EXPECT_GE(folder.chains.size(), 3u) << entry.path();
  }
  EXPECT_FALSE(folders.empty());
  return folders;
}

TEST(CompatPruned, SequencesOfEveryVersionDecodeToTheirRows) {
  for (const Folder& folder : Folders()) {
    const ModelProfile profile = folder.profile();
    for (const auto& [chain, digest] : folder.chains) {
      SCOPED_TRACE(folder.path / chain);
      const auto rows = RowsOf(ReadFile(folder.path / (chain + ".bin")), profile);
      ASSERT_TRUE(rows.ok()) << rows.status();
      EXPECT_EQ(DigestOfPages(*rows), digest);
    }
  }
}

// When this fails, the format or what is chosen has changed: a version or a name has to, too, and
// what was written until now stays where it is (README.md).
TEST(CompatPruned, ThisVersionWritesTheNewestSequences) {
  const std::filesystem::path newest = std::filesystem::path(kPruned) / kNewest;
  EXPECT_EQ(codec::EncodeSidecar(MakeScores()), ReadFile(newest / "scores.bin"));
  const auto scores = codec::DecodeSidecar(ReadFile(newest / "scores.bin"));
  ASSERT_TRUE(scores.ok()) << scores.status();
  for (const Folder& folder : Folders()) {
    if (folder.path != newest) continue;
    const ModelProfile profile = folder.profile();
    EXPECT_EQ(profile.id(), MakePrunedProfile().id());
    for (const auto& [chain, digest] : folder.chains) {
      SCOPED_TRACE(chain);
      const auto object = MakePruned(chain, profile, *scores);
      ASSERT_TRUE(object.ok()) << object.status();
      EXPECT_TRUE(*object == ReadFile(newest / (chain + ".bin")));
    }
  }
}

TEST(CompatPruned, ADamagedSequenceIsRefused) {
  const Folder folder = Folders()[0];
  const ModelProfile profile = folder.profile();
  const std::vector<uint8_t> object = ReadFile(folder.path / (folder.chains[0].first + ".bin"));
  for (size_t at = 0; at < object.size(); at += 101) {
    std::vector<uint8_t> damaged = object;
    damaged[at] ^= static_cast<uint8_t>(1 << (at % 8));
    EXPECT_FALSE(RowsOf(damaged, profile).ok()) << at;
  }
}

}  // namespace
}  // namespace kedge::compat
