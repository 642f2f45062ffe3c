// What config.json of a Hugging Face checkpoint says about a decoder of the Llama family.
//
// Read: architectures (LlamaForCausalLM, Qwen2ForCausalLM), hidden_size, intermediate_size,
// num_hidden_layers, num_attention_heads, num_key_value_heads, head_dim, rms_norm_eps, rope_theta,
// rope_scaling (default, linear, llama3; also the newer rope_parameters), max_position_embeddings,
// vocab_size, tie_word_embeddings, attention_bias, bos_token_id, eos_token_id, torch_dtype (or
// dtype). What would change the arithmetic and is not supported is refused by name: hidden_act
// other than silu, mlp_bias, sliding windows, quantization_config. Other fields are ignored.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "gpu/kernels/rope.h"
#include "proto/kv_shape.h"

namespace kedge {

enum class Architecture { kLlama, kQwen2 };

const char* ArchitectureName(Architecture architecture);  // "LlamaForCausalLM"

struct ModelConfig {
  Architecture architecture = Architecture::kLlama;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t layers = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_size = 0;  // even
  int64_t vocabulary = 0;
  int64_t max_positions = 2048;
  float rms_norm_epsilon = 1e-6f;
  float rope_theta = 10000.0f;
  kernels::RopeScaling rope_scaling;
  bool tied_embeddings = false;  // the output matrix is the embedding table
  bool qkv_bias = false;         // always for Qwen2, attention_bias for Llama
  bool output_bias = false;      // attention_bias for Llama
  std::optional<int32_t> bos_token;
  std::vector<int32_t> eos_tokens;
  DType dtype = DType::kF32;  // torch_dtype: the type engines compute and cache in

  friend bool operator==(const ModelConfig& a, const ModelConfig& b) = default;
};

// `file` names the source in errors. InvalidArgument names file, field and value.
absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view json, std::string_view file);

// Reads DIRECTORY/config.json. NotFound when there is none.
absl::StatusOr<ModelConfig> ReadModelConfig(const std::string& directory);

// config.json for `config`, as `ParseModelConfig` reads it.
std::string ModelConfigToJson(const ModelConfig& config);

}  // namespace kedge
