#include "store/world/whole_file.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

namespace kedge {
namespace {

TEST(WholeFile, ReadsAllOrSaysWhyNot) {
  const char* directory = std::getenv("TEST_TMPDIR");
  const std::string path = std::string(directory != nullptr ? directory : "/tmp") + "/whole";
  std::ofstream(path, std::ios::binary) << std::string("a\0b", 3);
  const auto bytes = ReadWholeFile(path, 3);
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  EXPECT_EQ(*bytes, (std::vector<uint8_t>{'a', 0, 'b'}));
  EXPECT_EQ(ReadWholeFile(path, 2).status().code(), absl::StatusCode::kResourceExhausted);
  const auto missing = ReadWholeFile(path + "x", 3);
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_NE(missing.status().message().find(path + "x"), std::string::npos);
}

}  // namespace
}  // namespace kedge
