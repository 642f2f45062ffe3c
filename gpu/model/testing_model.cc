#include "gpu/model/testing_model.h"

#include <cstdlib>
#include <string>
#include <utility>

#include "gpu/model/byte_tokenizer.h"
#include "gpu/model/random_checkpoint.h"
#include "gtest/gtest.h"

namespace kedge {

ModelConfig TestingConfig(Architecture architecture) {
  return {.architecture = architecture,
          .hidden_size = 64,
          .intermediate_size = 176,
          .layers = 3,
          .heads = 4,
          .kv_heads = 2,
          .head_size = 16,
          .vocabulary = ByteTokenizer::kVocabulary,
          .max_positions = 1024,
          .tied_embeddings = architecture == Architecture::kQwen2,
          .qkv_bias = architecture == Architecture::kQwen2};
}

std::unique_ptr<Model> MakeTestingModel(Architecture architecture, CpuDevice& device,
                                        const ModelOptions& options) {
  const char* root = std::getenv("TEST_TMPDIR");
  const std::string directory = std::string(root == nullptr ? "/tmp" : root) + "/testing_model";
  absl::Status status = WriteRandomCheckpoint(directory, TestingConfig(architecture), 7);
  EXPECT_TRUE(status.ok()) << status;
  absl::StatusOr<std::unique_ptr<Model>> model = Model::Load(directory, device, options);
  EXPECT_TRUE(model.ok()) << model.status();
  return *std::move(model);
}

std::vector<int32_t> TestingPrompt(int64_t tokens) {
  std::vector<int32_t> prompt(tokens);
  uint32_t state = 12345;
  for (int32_t& token : prompt) {
    state = state * 1664525u + 1013904223u;
    token = static_cast<int32_t>(state >> 16) % ByteTokenizer::kVocabulary;
  }
  return prompt;
}

}  // namespace kedge
