// What every client must do, whatever carries it: the tests of client_suite.cc run against an
// embedded node (client_embedded_test.cc) and against a real kedged over tcp and shared memory
// (client_kedged_test.cc).
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "client/kv_client.h"

namespace kedge {

// A place to connect to; lives as long as the test.
class TestNode {
 public:
  virtual ~TestNode() = default;
  virtual std::string address() const = 0;
};

struct WireUnderTest {
  std::string name;
  std::function<std::unique_ptr<TestNode>()> start;
};

class ClientSuite : public ::testing::TestWithParam<WireUnderTest> {
 protected:
  static constexpr uint32_t kLayers = 6;
  static constexpr uint32_t kTokens = 64;

  void SetUp() override {
    node_ = GetParam().start();
    ASSERT_NE(node_, nullptr);
    auto client = sdk::Client::Open({.address = node_->address(), .salt = "a tenant's secret"});
    ASSERT_TRUE(client) << client.text();
    client_ = std::move(*client);
    // 64 tokens x 4 heads x 32 x 2 bytes = 16 KiB a part, 192 KiB a block.
    auto model = client_->OpenModel(ModelOf());
    ASSERT_TRUE(model) << model.text();
    model_ = std::move(*model);
  }

  static sdk::ModelOptions ModelOf() {
    return {.weights_id = "test/model@1",
            .tokenizer_id = "test/tokenizer",
            .dtype = sdk::DType::kBf16,
            .layer_count = kLayers,
            .kv_heads = 4,
            .head_size = 32,
            .block_tokens = kTokens,
            .rope_theta = 1e4};
  }

  // `blocks` blocks of tokens that no other seed shares a block with.
  std::vector<int32_t> Tokens(uint32_t blocks, int32_t seed) const {
    std::vector<int32_t> tokens(blocks * kTokens + 5);  // and a tail
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = seed * 100'003 + static_cast<int32_t>(i);
    return tokens;
  }
  sdk::Sequence SequenceOf(uint32_t blocks, int32_t seed) const {
    return std::move(model_->FromTokens(Tokens(blocks, seed)).value());
  }
  // Reproducible bytes.
  // bf16 values that can be quantized.
  static std::vector<uint8_t> Values(uint64_t bytes, uint64_t seed);
  // The model again, with lossy variants allowed although nobody measured it.
  sdk::Model LossyModel() const;
  static std::vector<uint8_t> Bytes(uint64_t bytes, uint64_t seed);
  // One segment for each block, one block after the other.
  std::vector<sdk::BlockBuffer> Blocks(std::vector<uint8_t>& memory, uint64_t each) const;
  void StoreAll(const sdk::Sequence& sequence, std::vector<uint8_t>& memory) const;

  std::unique_ptr<TestNode> node_;
  std::optional<sdk::Client> client_;
  std::optional<sdk::Model> model_;
};

}  // namespace kedge
