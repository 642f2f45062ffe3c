#include "tests/quality/mix_file.h"

#include <cstdlib>
#include <fstream>
#include <string>

#include "gtest/gtest.h"

namespace kedge::quality {
namespace {

std::string Said(const std::string& text) {
  return std::string(ParseMix(text, "mix").status().message());
}

TEST(MixFileTest, NamesWhatIsWrong) {
  EXPECT_EQ(Said(""), "mix:1: is no 'kedge-mix 1'");
  EXPECT_EQ(Said("kedge-mix 2\n"), "mix:1: is no 'kedge-mix 1'");
  EXPECT_EQ(Said("kedge-mix 1\nrole\n"), "mix:2: 'role' is no 'TASK SEED'");
  EXPECT_EQ(Said("kedge-mix 1\n../x 1000000\n"), "mix:2: '../x' is no task");
  EXPECT_EQ(Said("kedge-mix 1\nrole 48\n"), "mix:2: seed 48 is not within 1000000 and 1000047");
  EXPECT_EQ(Said("kedge-mix 1\nrole 1000048\n"),
            "mix:2: seed 1000048 is not within 1000000 and 1000047");
  EXPECT_EQ(Said("kedge-mix 1\nrole 1000000\n"), "mix:3: the digest is missing");
  EXPECT_EQ(Said("kedge-mix 1\nsha256 00\nrole 1000000\n"),
            "mix:2: something stands behind the digest");
  EXPECT_EQ(ReadMix("/nowhere").status().code(), absl::StatusCode::kNotFound);
}

TEST(MixFileTest, OtherContextsAreRefused) {
  const std::string folder = std::getenv("TEST_TMPDIR");
  std::ofstream(folder + "/role.jsonl") << "header\nzero\none\n";
  // printf onezero | sha256sum
  Mix mix{.entries = {{"role", 1}, {"role", 0}},
          .digest = "7ca8141033677a6b2887e0f6723981b8d571e5482132327bc67b7af36288166a"};
  EXPECT_TRUE(CheckMix(mix, "mix", folder).ok());
  std::swap(mix.entries[0], mix.entries[1]);
  EXPECT_FALSE(CheckMix(mix, "mix", folder).ok()) << "another order";
  mix.entries = {{"role", 2}};
  EXPECT_EQ(CheckMix(mix, "mix", folder).message(), "mix: " + folder + " has no context 2 of role");
}

// The one that ships, against the generator that ships.
TEST(MixFileTest, TheShippedMixIsAsItWas) {
  const Mix mix = ReadMix("tests/quality/mix/auto.txt").value();
  EXPECT_EQ(mix.entries.size(), 8u * 16u);
  EXPECT_EQ(mix.digest, "0567b782a22b18cfa320266ebfa676258722ce96c32186e851c4e0ab264ae87e");
  const absl::Status same = CheckMix(mix, "mix", "tests/quality/mix_tasks");
  EXPECT_TRUE(same.ok()) << same;
}

}  // namespace
}  // namespace kedge::quality
