#include "tools/demonstration/scratch_directory.h"

#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kedge {
namespace {

using ::testing::HasSubstr;

std::string Parent() {
  const char* directory = std::getenv("TEST_TMPDIR");
  return directory != nullptr ? directory : "/tmp";
}

TEST(ScratchDirectoryTest, IsPrivateAndGoesWithItsFiles) {
  std::string path;
  {
    auto scratch = ScratchDirectory::Create(Parent(), 1 << 20);
    ASSERT_TRUE(scratch.ok()) << scratch.status().message();
    path = (*scratch)->path();
    struct stat about;
    ASSERT_EQ(stat(path.c_str(), &about), 0);
    EXPECT_EQ(about.st_mode & 0777, 0700u);
    std::filesystem::create_directories(path + "/a/b");
    std::ofstream(path + "/a/b/c") << "text";
  }
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(ScratchDirectoryTest, NamesWhatIsWrong) {
  auto absent = ScratchDirectory::Create("/nonexistent", 1);
  EXPECT_THAT(std::string(absent.status().message()),
              AllOf(HasSubstr("--scratch"), HasSubstr("/nonexistent")));
  auto full = ScratchDirectory::Create(Parent(), 1ull << 60);
  EXPECT_EQ(full.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(full.status().message()), HasSubstr("MiB are needed"));
}

}  // namespace
}  // namespace kedge
