// Blocks that earlier versions wrote are read, and decode to the pages that they always did.
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/compat/compat_block.h"

namespace kedge::compat {
namespace {

constexpr char kBlocks[] = "tests/compat/blocks";
// What this program writes. The folders before it are what it must read.
constexpr char kNewest[] = "1";

std::vector<uint8_t> ReadFile(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in.good()) << path;
  return {std::istreambuf_iterator<char>(in), {}};
}

struct Entry {
  std::filesystem::path folder;
  std::string name;  // CHAIN.first.bin or CHAIN.later.bin
  std::string digest;
  std::string profile;  // a file beside it; empty for none

  std::optional<ModelProfile> ReadProfile() const {
    if (profile.empty()) return std::nullopt;
    absl::StatusOr<ModelProfile> parsed = ModelProfile::Parse(ReadFile(folder / profile));
    EXPECT_TRUE(parsed.ok()) << parsed.status();
    return *std::move(parsed);
  }
};

std::vector<Entry> Entries() {
  std::vector<Entry> entries;
  for (const auto& folder : std::filesystem::directory_iterator(kBlocks)) {
    std::ifstream manifest(folder.path() / "manifest");
    EXPECT_TRUE(manifest.good()) << folder.path();
    std::set<std::string> named = {"manifest"};
    for (std::string line; std::getline(manifest, line);) {
      Entry entry{folder.path(), "", "", ""};
      std::istringstream(line) >> entry.name >> entry.digest >> entry.profile;
      named.insert(entry.name);
      named.insert(entry.profile);
      entries.push_back(entry);
    }
    for (const auto& file : std::filesystem::directory_iterator(folder.path()))
      EXPECT_TRUE(named.count(file.path().filename().string()) != 0) << file.path();
  }
  EXPECT_GE(entries.size(), 22u);
  return entries;
}

TEST(Compat, BlocksOfEveryVersionDecodeToTheirPages) {
  for (const Entry& entry : Entries()) {
    SCOPED_TRACE(entry.folder / entry.name);
    const std::optional<ModelProfile> profile = entry.ReadProfile();
    const absl::StatusOr<std::vector<uint8_t>> pages =
        PagesOf(ReadFile(entry.folder / entry.name), profile ? &*profile : nullptr);
    ASSERT_TRUE(pages.ok()) << pages.status();
    EXPECT_EQ(DigestOfPages(*pages), entry.digest);
  }
}

// When this fails, the format has changed: a version number has to, too, and the blocks written
// until now stay where they are (README.md).
TEST(Compat, ThisVersionWritesTheNewestBlocks) {
  for (const Entry& entry : Entries()) {
    if (entry.folder.filename() != kNewest) continue;
    SCOPED_TRACE(entry.name);
    const size_t dot = entry.name.find(".first.bin") != std::string::npos
                           ? entry.name.find(".first.bin")
                           : entry.name.find(".later.bin");
    ASSERT_NE(dot, std::string::npos);
    const std::optional<ModelProfile> profile = entry.ReadProfile();
    const absl::StatusOr<std::vector<uint8_t>> block =
        MakeBlock(entry.name.substr(0, dot), entry.name.substr(dot) == ".first.bin",
                  profile ? &*profile : nullptr);
    ASSERT_TRUE(block.ok()) << block.status();
    EXPECT_TRUE(*block == ReadFile(entry.folder / entry.name));
  }
}

TEST(Compat, ADamagedBlockIsRefused) {
  const std::vector<uint8_t> block = ReadFile(std::string(kBlocks) + "/1/kivi2g32s8.first.bin");
  for (size_t at = 0; at < block.size(); at += 37) {
    std::vector<uint8_t> damaged = block;
    damaged[at] ^= static_cast<uint8_t>(1 << (at % 8));
    EXPECT_FALSE(PagesOf(damaged, nullptr).ok()) << at;
  }
}

}  // namespace
}  // namespace kedge::compat
