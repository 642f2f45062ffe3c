#include "gpu/model/random_checkpoint.h"

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "gpu/model/safetensors.h"

namespace kedge {
namespace {

ModelConfig Config(DType dtype) {
  ModelConfig config;
  config.architecture = Architecture::kQwen2;
  config.hidden_size = 32;
  config.intermediate_size = 48;
  config.layers = 2;
  config.heads = 4;
  config.kv_heads = 2;
  config.head_size = 8;
  config.vocabulary = 100;
  config.qkv_bias = true;
  config.dtype = dtype;
  return config;
}

std::string Directory(const std::string& name) {
  const char* root = std::getenv("TEST_TMPDIR");
  return std::string(root == nullptr ? "/tmp" : root) + "/" + name;
}

std::string Content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

TEST(RandomCheckpoint, ASeedGivesTheSameBytes) {
  ASSERT_TRUE(WriteRandomCheckpoint(Directory("a"), Config(DType::kBf16), 5).ok());
  ASSERT_TRUE(WriteRandomCheckpoint(Directory("b"), Config(DType::kBf16), 5).ok());
  ASSERT_TRUE(WriteRandomCheckpoint(Directory("c"), Config(DType::kBf16), 6).ok());
  const std::string a = Content(Directory("a") + "/model.safetensors");
  EXPECT_FALSE(a.empty());
  EXPECT_EQ(a, Content(Directory("b") + "/model.safetensors"));
  EXPECT_NE(a, Content(Directory("c") + "/model.safetensors"));
  const absl::StatusOr<ModelConfig> config = ReadModelConfig(Directory("a"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(*config, Config(DType::kBf16));
}

TEST(RandomCheckpoint, WeightsHaveTheSizeTheyShould) {
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBf16}) {
    ASSERT_TRUE(WriteRandomCheckpoint(Directory("d"), Config(dtype), 5).ok());
    const absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(Directory("d"));
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    std::vector<float> values(32 * 48);
    ASSERT_TRUE(
        checkpoint->Read("model.layers.1.mlp.down_proj.weight", {32, 48}, values.data()).ok());
    double squares = 0.0;
    for (float value : values) squares += double{value} * value;
    EXPECT_NEAR(squares / static_cast<double>(values.size()), 1.0 / 48, 0.1 / 48);
  }
}

TEST(RandomCheckpoint, NamesAPathItCannotWrite) {
  const absl::Status status =
      WriteRandomCheckpoint("/nonexistent/directory", Config(DType::kF32), 1);
  EXPECT_FALSE(status.ok());
  EXPECT_NE(status.message().find("/nonexistent/directory"), std::string::npos) << status;
}

}  // namespace
}  // namespace kedge
