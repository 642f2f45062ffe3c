#include "gpu/model/model_config.h"

#include "absl/strings/str_cat.h"
#include "gpu/model/file_map.h"
#include "gpu/model/json_fields.h"

namespace kedge {
namespace {

using nlohmann::json;

// Far above any model of today, and low enough that products of two of them fit in 64 bits.
constexpr int64_t kSizeMax = int64_t{1} << 24;
constexpr int64_t kLayersMax = 4096;
constexpr int64_t kHeadsMax = 4096;
constexpr int64_t kHeadSizeMax = 1024;
constexpr int64_t kPositionsMax = int64_t{1} << 30;
constexpr int kDepthMax = 32;

void ReadArchitecture(JsonFields& fields, ModelConfig& config) {
  if (!fields.Has("architectures")) return fields.Fail("architectures", "missing field");
  const json& value = fields.Get("architectures");
  if (value.is_array() && value.size() == 1 && value[0].is_string()) {
    for (Architecture known : {Architecture::kLlama, Architecture::kQwen2}) {
      if (value[0].get<std::string>() == ArchitectureName(known)) {
        config.architecture = known;
        return;
      }
    }
  }
  fields.Fail("architectures", absl::StrCat(ShowJson(value), " is not supported; known are ",
                                            "[\"LlamaForCausalLM\"] and [\"Qwen2ForCausalLM\"]"));
}

void ReadSizes(JsonFields& fields, ModelConfig& config) {
  config.hidden_size = fields.RequiredInt("hidden_size", 1, kSizeMax);
  config.intermediate_size = fields.RequiredInt("intermediate_size", 1, kSizeMax);
  config.layers = fields.RequiredInt("num_hidden_layers", 1, kLayersMax);
  config.heads = fields.RequiredInt("num_attention_heads", 1, kHeadsMax);
  config.kv_heads = fields.OptionalInt("num_key_value_heads", 1, kHeadsMax, config.heads);
  config.vocabulary = fields.RequiredInt("vocab_size", 1, kSizeMax);
  config.max_positions =
      fields.OptionalInt("max_position_embeddings", 1, kPositionsMax, config.max_positions);
  if (!fields.status().ok()) return;
  if (config.heads % config.kv_heads != 0) {
    fields.Fail("num_key_value_heads", absl::StrCat(config.kv_heads, " does not divide ",
                                                    "num_attention_heads ", config.heads));
    return;
  }
  if (!fields.Has("head_dim") && config.hidden_size % config.heads != 0) {
    fields.Fail("head_dim", absl::StrCat("missing field, and hidden_size ", config.hidden_size,
                                         " is no multiple of num_attention_heads ", config.heads));
    return;
  }
  config.head_size =
      fields.OptionalInt("head_dim", 2, kHeadSizeMax, config.hidden_size / config.heads);
  if (config.head_size % 2 != 0 || config.head_size > kHeadSizeMax) {
    fields.Fail("head_dim",
                absl::StrCat(config.head_size, " is not an even number up to ", kHeadSizeMax));
  }
}

void ReadRopeScaling(const json& object, const std::string& file, const std::string& name,
                     JsonFields& outer, ModelConfig& config) {
  if (!object.is_object()) {
    return outer.Fail(name.c_str(), absl::StrCat(ShowJson(object), " is not an object"));
  }
  JsonFields fields(object, file, name + ".");
  std::string kind = fields.OptionalString("rope_type", "");
  if (kind.empty()) kind = fields.OptionalString("type", "default");
  kernels::RopeScaling& scaling = config.rope_scaling;
  config.rope_theta =
      static_cast<float>(fields.OptionalNumber("rope_theta", 1.0, 1e12, config.rope_theta));
  if (kind == "linear" || kind == "llama3") {
    scaling.factor = static_cast<float>(fields.RequiredNumber("factor", 1.0, 1e6));
    scaling.kind = kernels::RopeScalingKind::kLinear;
  }
  if (kind == "llama3") {
    scaling.kind = kernels::RopeScalingKind::kLlama3;
    scaling.low_freq_factor =
        static_cast<float>(fields.RequiredNumber("low_freq_factor", 1e-3, 1e6));
    scaling.high_freq_factor =
        static_cast<float>(fields.RequiredNumber("high_freq_factor", 1e-3, 1e6));
    scaling.original_max_positions =
        fields.RequiredInt("original_max_position_embeddings", 1, kPositionsMax);
    if (fields.status().ok() && !(scaling.high_freq_factor > scaling.low_freq_factor)) {
      fields.Fail("high_freq_factor",
                  absl::StrCat(scaling.high_freq_factor, " is not above low_freq_factor ",
                               scaling.low_freq_factor));
    }
  } else if (kind != "default" && kind != "linear") {
    fields.Fail("rope_type", absl::StrCat(ShowJson(kind), " is not supported; known are ",
                                          "default, linear and llama3"));
  }
  if (!fields.status().ok()) outer.Forward(fields.status());
}

void ReadRope(JsonFields& fields, const std::string& file, ModelConfig& config) {
  config.rope_theta =
      static_cast<float>(fields.OptionalNumber("rope_theta", 1.0, 1e12, config.rope_theta));
  for (const char* name : {"rope_scaling", "rope_parameters"}) {
    if (fields.Has(name)) ReadRopeScaling(fields.Get(name), file, name, fields, config);
  }
}

void ReadTokens(JsonFields& fields, ModelConfig& config) {
  const int64_t last = config.vocabulary - 1;
  if (fields.Has("bos_token_id")) {
    config.bos_token = static_cast<int32_t>(fields.RequiredInt("bos_token_id", 0, last));
  }
  if (!fields.Has("eos_token_id")) return;
  const json& value = fields.Get("eos_token_id");
  const json list = value.is_array() ? value : json::array({value});
  for (const json& token : list) {
    if (!token.is_number_unsigned() || token.get<uint64_t>() > static_cast<uint64_t>(last)) {
      return fields.Fail("eos_token_id",
                         absl::StrCat(ShowJson(token), " is not a token in [0, ", last, "]"));
    }
    config.eos_tokens.push_back(token.get<int32_t>());
  }
}

void ReadDType(JsonFields& fields, ModelConfig& config) {
  const char* name = fields.Has("torch_dtype") ? "torch_dtype" : "dtype";
  const std::string dtype = fields.OptionalString(name, "float32");
  if (dtype == "float32") {
    config.dtype = DType::kF32;
  } else if (dtype == "float16") {
    config.dtype = DType::kF16;
  } else if (dtype == "bfloat16") {
    config.dtype = DType::kBf16;
  } else {
    fields.Fail(name, absl::StrCat(ShowJson(dtype), " is not float32, float16 or bfloat16"));
  }
}

// Fields that would change the arithmetic in ways the runner does not know.
void RefuseUnsupported(JsonFields& fields) {
  const std::string act = fields.OptionalString("hidden_act", "silu");
  if (act != "silu") fields.Fail("hidden_act", absl::StrCat(ShowJson(act), " is not silu"));
  if (fields.OptionalBool("mlp_bias", false)) fields.Fail("mlp_bias", "true is not supported");
  if (fields.OptionalBool("use_sliding_window", false)) {
    fields.Fail("use_sliding_window", "true is not supported");
  }
  if (fields.Has("quantization_config")) {
    fields.Fail("quantization_config", "quantized checkpoints are not supported");
  }
}

}  // namespace

const char* ArchitectureName(Architecture architecture) {
  return architecture == Architecture::kLlama ? "LlamaForCausalLM" : "Qwen2ForCausalLM";
}

absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view text, std::string_view file) {
  absl::StatusOr<json> root = ParseJsonObject(text, file, kDepthMax);
  if (!root.ok()) return root.status();
  JsonFields fields(*root, file);
  ModelConfig config;
  ReadArchitecture(fields, config);
  ReadSizes(fields, config);
  config.rms_norm_epsilon = static_cast<float>(
      fields.OptionalNumber("rms_norm_eps", 1e-12, 1.0, config.rms_norm_epsilon));
  ReadRope(fields, std::string(file), config);
  config.tied_embeddings = fields.OptionalBool("tie_word_embeddings", false);
  const bool attention_bias = fields.OptionalBool("attention_bias", false);
  const bool qwen2 = config.architecture == Architecture::kQwen2;
  config.qkv_bias = qwen2 || attention_bias;
  config.output_bias = !qwen2 && attention_bias;
  ReadTokens(fields, config);
  ReadDType(fields, config);
  RefuseUnsupported(fields);
  if (!fields.status().ok()) return fields.status();
  return config;
}

absl::StatusOr<ModelConfig> ReadModelConfig(const std::string& directory) {
  const std::string path = directory + "/config.json";
  absl::StatusOr<FileMap> file = FileMap::Open(path);
  if (!file.ok()) return file.status();
  const std::span<const uint8_t> bytes = file->bytes();
  return ParseModelConfig({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path);
}

std::string ModelConfigToJson(const ModelConfig& config) {
  const char* dtype = config.dtype == DType::kF32   ? "float32"
                      : config.dtype == DType::kF16 ? "float16"
                                                    : "bfloat16";
  json root = {{"architectures", {ArchitectureName(config.architecture)}},
               {"model_type", config.architecture == Architecture::kLlama ? "llama" : "qwen2"},
               {"hidden_act", "silu"},
               {"hidden_size", config.hidden_size},
               {"intermediate_size", config.intermediate_size},
               {"num_hidden_layers", config.layers},
               {"num_attention_heads", config.heads},
               {"num_key_value_heads", config.kv_heads},
               {"head_dim", config.head_size},
               {"vocab_size", config.vocabulary},
               {"max_position_embeddings", config.max_positions},
               {"rms_norm_eps", config.rms_norm_epsilon},
               {"rope_theta", config.rope_theta},
               {"tie_word_embeddings", config.tied_embeddings},
               {"torch_dtype", dtype}};
  if (config.output_bias) root["attention_bias"] = true;
  if (config.bos_token.has_value()) root["bos_token_id"] = *config.bos_token;
  if (!config.eos_tokens.empty()) root["eos_token_id"] = config.eos_tokens;
  const kernels::RopeScaling& scaling = config.rope_scaling;
  if (scaling.kind == kernels::RopeScalingKind::kLinear) {
    root["rope_scaling"] = {{"rope_type", "linear"}, {"factor", scaling.factor}};
  } else if (scaling.kind == kernels::RopeScalingKind::kLlama3) {
    root["rope_scaling"] = {{"rope_type", "llama3"},
                            {"factor", scaling.factor},
                            {"low_freq_factor", scaling.low_freq_factor},
                            {"high_freq_factor", scaling.high_freq_factor},
                            {"original_max_position_embeddings", scaling.original_max_positions}};
  }
  return root.dump(2) + "\n";
}

}  // namespace kedge
