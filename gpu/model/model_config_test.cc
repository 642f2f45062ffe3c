#include "gpu/model/model_config.h"

#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace kedge {
namespace {

using nlohmann::json;

json Complete() {
  return json::parse(R"({
    "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 176,
    "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 260,
    "rms_norm_eps": 1e-5, "torch_dtype": "bfloat16", "eos_token_id": [1, 2], "bos_token_id": 0,
    "max_position_embeddings": 512, "unknown_field": {"kept": "ignored"}})");
}

std::string ErrorOf(const json& config) {
  const absl::StatusOr<ModelConfig> parsed = ParseModelConfig(config.dump(), "c");
  EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument) << config;
  return std::string(parsed.status().message());
}

std::string ErrorWith(const char* field, const json& value) {
  json config = Complete();
  config[field] = value;
  return ErrorOf(config);
}

TEST(ModelConfig, ReadsACompleteOne) {
  const absl::StatusOr<ModelConfig> config = ParseModelConfig(Complete().dump(), "c");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->architecture, Architecture::kLlama);
  EXPECT_EQ(config->hidden_size, 64);
  EXPECT_EQ(config->intermediate_size, 176);
  EXPECT_EQ(config->layers, 3);
  EXPECT_EQ(config->heads, 4);
  EXPECT_EQ(config->kv_heads, 2);
  EXPECT_EQ(config->head_size, 16);
  EXPECT_EQ(config->vocabulary, 260);
  EXPECT_EQ(config->max_positions, 512);
  EXPECT_EQ(config->rms_norm_epsilon, 1e-5f);
  EXPECT_EQ(config->rope_theta, 10000.0f);
  EXPECT_EQ(config->rope_scaling.kind, kernels::RopeScalingKind::kNone);
  EXPECT_FALSE(config->tied_embeddings);
  EXPECT_FALSE(config->qkv_bias);
  EXPECT_EQ(config->bos_token, 0);
  EXPECT_EQ(config->eos_tokens, (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(config->dtype, DType::kBf16);
}

TEST(ModelConfig, Qwen2HasBiases) {
  json root = Complete();
  root["architectures"] = {"Qwen2ForCausalLM"};
  root["tie_word_embeddings"] = true;
  root["head_dim"] = 32;
  const absl::StatusOr<ModelConfig> config = ParseModelConfig(root.dump(), "c");
  ASSERT_TRUE(config.ok());
  EXPECT_TRUE(config->qkv_bias);
  EXPECT_FALSE(config->output_bias);
  EXPECT_TRUE(config->tied_embeddings);
  EXPECT_EQ(config->head_size, 32);
}

TEST(ModelConfig, WhatItWritesItReads) {
  json root = Complete();
  for (const json& scaling :
       {json(nullptr), json{{"rope_type", "default"}}, json{{"type", "linear"}, {"factor", 4.0}},
        json{{"rope_type", "llama3"},
             {"factor", 8.0},
             {"low_freq_factor", 1.0},
             {"high_freq_factor", 4.0},
             {"original_max_position_embeddings", 8192}}}) {
    root["rope_scaling"] = scaling;
    for (const char* architecture : {"LlamaForCausalLM", "Qwen2ForCausalLM"}) {
      root["architectures"] = {architecture};
      const absl::StatusOr<ModelConfig> config = ParseModelConfig(root.dump(), "c");
      ASSERT_TRUE(config.ok()) << config.status();
      const absl::StatusOr<ModelConfig> again = ParseModelConfig(ModelConfigToJson(*config), "w");
      ASSERT_TRUE(again.ok()) << again.status();
      EXPECT_EQ(*again, *config);
    }
  }
}

TEST(ModelConfig, ReadsTheNewerRopeParametersAndDtype) {
  json root = Complete();
  root.erase("torch_dtype");
  root["dtype"] = "float16";
  root["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 500000.0}};
  const absl::StatusOr<ModelConfig> config = ParseModelConfig(root.dump(), "c");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->rope_theta, 500000.0f);
  EXPECT_EQ(config->dtype, DType::kF16);
}

TEST(ModelConfig, NamesEachMissingField) {
  for (const char* field : {"architectures", "hidden_size", "intermediate_size",
                            "num_hidden_layers", "num_attention_heads", "vocab_size"}) {
    json config = Complete();
    config.erase(field);
    EXPECT_EQ(ErrorOf(config), std::string("c: ") + field + ": missing field");
    config[field] = nullptr;
    EXPECT_EQ(ErrorOf(config), std::string("c: ") + field + ": missing field");
  }
}

TEST(ModelConfig, NamesTheValueThatIsWrong) {
  EXPECT_EQ(ErrorWith("architectures", {"MambaForCausalLM"}),
            "c: architectures: [\"MambaForCausalLM\"] is not supported; known are "
            "[\"LlamaForCausalLM\"] and [\"Qwen2ForCausalLM\"]");
  EXPECT_EQ(ErrorWith("hidden_size", "64"),
            "c: hidden_size: \"64\" is not an integer in [1, 16777216]");
  EXPECT_EQ(ErrorWith("hidden_size", -1), "c: hidden_size: -1 is not an integer in [1, 16777216]");
  EXPECT_EQ(ErrorWith("num_hidden_layers", 1e30),
            "c: num_hidden_layers: 1e+30 is not an integer in [1, 4096]");
  EXPECT_EQ(ErrorWith("vocab_size", 18446744073709551615u),
            "c: vocab_size: 18446744073709551615 is not an integer in [1, 16777216]");
  EXPECT_EQ(ErrorWith("num_key_value_heads", 3),
            "c: num_key_value_heads: 3 does not divide num_attention_heads 4");
  EXPECT_EQ(ErrorWith("head_dim", 15), "c: head_dim: 15 is not an even number up to 1024");
  EXPECT_EQ(ErrorWith("hidden_size", 66),
            "c: head_dim: missing field, and hidden_size 66 is no multiple of "
            "num_attention_heads 4");
  EXPECT_EQ(ErrorWith("rms_norm_eps", 0), "c: rms_norm_eps: 0 is not a number in [1e-12, 1]");
  EXPECT_EQ(ErrorWith("torch_dtype", "int8"),
            "c: torch_dtype: \"int8\" is not float32, float16 or bfloat16");
  EXPECT_EQ(ErrorWith("eos_token_id", 260), "c: eos_token_id: 260 is not a token in [0, 259]");
  EXPECT_EQ(ErrorWith("tie_word_embeddings", 1), "c: tie_word_embeddings: 1 is not true or false");
}

TEST(ModelConfig, RefusesWhatWouldChangeTheArithmetic) {
  EXPECT_EQ(ErrorWith("hidden_act", "gelu"), "c: hidden_act: \"gelu\" is not silu");
  EXPECT_EQ(ErrorWith("mlp_bias", true), "c: mlp_bias: true is not supported");
  EXPECT_EQ(ErrorWith("use_sliding_window", true), "c: use_sliding_window: true is not supported");
  EXPECT_EQ(ErrorWith("quantization_config", json::object()),
            "c: quantization_config: quantized checkpoints are not supported");
  EXPECT_EQ(ErrorWith("rope_scaling", {{"rope_type", "yarn"}, {"factor", 4}}),
            "c: rope_scaling.rope_type: \"yarn\" is not supported; known are default, linear and "
            "llama3");
  EXPECT_EQ(ErrorWith("rope_scaling", {{"rope_type", "llama3"}, {"factor", 8}}),
            "c: rope_scaling.low_freq_factor: missing field");
  EXPECT_EQ(ErrorWith("rope_scaling", "llama3"), "c: rope_scaling: \"llama3\" is not an object");
}

TEST(ModelConfig, RefusesTextThatIsNoObject) {
  EXPECT_EQ(ParseModelConfig("{", "c").status().message(), "c: not valid JSON (1 bytes)");
  EXPECT_EQ(ParseModelConfig("[]", "c").status().message(), "c: JSON object expected, found []");
  EXPECT_EQ(ParseModelConfig(R"({"vocab_size":1,"vocab_size":2})", "c").status().message(),
            "c: JSON key \"vocab_size\" appears twice");
  EXPECT_EQ(ReadModelConfig("/nonexistent").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace kedge
