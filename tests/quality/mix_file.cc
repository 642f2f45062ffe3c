#include "tests/quality/mix_file.h"

#include <openssl/sha.h>

#include <fstream>
#include <map>
#include <sstream>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace kedge::quality {
namespace {

constexpr int64_t kTestSeed = 1000000;  // the test split's first

absl::StatusOr<std::string> ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat(path, ": no such file"));
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

bool IsTaskName(const std::string& name) {
  return !name.empty() && name.find_first_not_of("abcdefghijklmnopqrstuvwxyz") == std::string::npos;
}

}  // namespace

absl::StatusOr<Mix> ParseMix(const std::string& text, const std::string& file) {
  const auto bad = [&](size_t line, const std::string& why) {
    return absl::InvalidArgumentError(absl::StrCat(file, ":", line + 1, ": ", why));
  };
  const std::vector<std::string> lines = absl::StrSplit(text, '\n', absl::SkipEmpty());
  if (lines.empty() || lines[0] != "kedge-mix 1") return bad(0, "is no 'kedge-mix 1'");
  Mix mix;
  for (size_t i = 1; i < lines.size(); ++i) {
    const std::vector<std::string> words = absl::StrSplit(lines[i], ' ');
    if (words.size() != 2) return bad(i, absl::StrCat("'", lines[i], "' is no 'TASK SEED'"));
    if (words[0] == "sha256") {
      if (i + 1 != lines.size()) return bad(i, "something stands behind the digest");
      mix.digest = words[1];
      return mix;
    }
    if (!IsTaskName(words[0])) return bad(i, absl::StrCat("'", words[0], "' is no task"));
    int64_t seed = 0;
    if (!absl::SimpleAtoi(words[1], &seed) || seed < kTestSeed ||
        seed >= kTestSeed + kMixContexts) {
      return bad(i, absl::StrCat("seed ", words[1], " is not within ", kTestSeed, " and ",
                                 kTestSeed + kMixContexts - 1));
    }
    mix.entries.push_back({words[0], seed - kTestSeed});
  }
  return bad(lines.size(), "the digest is missing");
}

absl::StatusOr<Mix> ReadMix(const std::string& path) {
  absl::StatusOr<std::string> text = ReadAll(path);
  if (!text.ok()) return text.status();
  return ParseMix(*text, path);
}

absl::Status CheckMix(const Mix& mix, const std::string& file, const std::string& folder) {
  std::map<std::string, std::vector<std::string>> lines;
  std::string named;
  for (const MixEntry& entry : mix.entries) {
    std::vector<std::string>& task = lines[entry.task];
    if (task.empty()) {
      absl::StatusOr<std::string> text = ReadAll(absl::StrCat(folder, "/", entry.task, ".jsonl"));
      if (!text.ok()) return text.status();
      task = absl::StrSplit(*text, '\n', absl::SkipEmpty());
    }
    const auto line = static_cast<size_t>(entry.index) + 1;  // behind the header
    if (line >= task.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat(file, ": ", folder, " has no context ", entry.index, " of ", entry.task));
    }
    named += task[line];
  }
  uint8_t digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const uint8_t*>(named.data()), named.size(), digest);
  const std::string hex = absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(digest), sizeof digest));
  if (hex == mix.digest) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(file, ": its contexts have the digest ", hex, ", it says ", mix.digest));
}

}  // namespace kedge::quality
