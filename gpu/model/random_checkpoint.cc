#include "gpu/model/random_checkpoint.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <fstream>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gpu/kernels/cast.h"
#include "gpu/kernels/sampling.h"
#include "gpu/model/json_fields.h"

namespace kedge {
namespace {

struct Tensor {
  std::string name;
  std::vector<int64_t> shape;
  float centre;
  float spread;  // values are uniform in centre +- spread

  int64_t elements() const {
    int64_t product = 1;
    for (int64_t dimension : shape) product *= dimension;
    return product;
  }
};

// A uniform distribution on +-s has variance s^2 / 3.
float SpreadOf(double variance) { return static_cast<float>(std::sqrt(3.0 * variance)); }

void AddMatrix(std::vector<Tensor>& tensors, const std::string& name, int64_t outputs,
               int64_t inputs, bool bias) {
  tensors.push_back({name + ".weight", {outputs, inputs}, 0.0f, SpreadOf(1.0 / inputs)});
  if (bias) tensors.push_back({name + ".bias", {outputs}, 0.0f, 0.1f});
}

void AddNorm(std::vector<Tensor>& tensors, const std::string& name, int64_t width) {
  tensors.push_back({name + ".weight", {width}, 1.0f, 0.1f});
}

std::vector<Tensor> TensorsOf(const ModelConfig& config) {
  const int64_t hidden = config.hidden_size;
  const int64_t q = config.heads * config.head_size;
  const int64_t kv = config.kv_heads * config.head_size;
  std::vector<Tensor> tensors;
  const double embedding_variance = config.tied_embeddings ? 1.0 / hidden : 1.0;
  tensors.push_back({"model.embed_tokens.weight",
                     {config.vocabulary, hidden},
                     0.0f,
                     SpreadOf(embedding_variance)});
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    const std::string prefix = absl::StrCat("model.layers.", layer, ".");
    AddNorm(tensors, prefix + "input_layernorm", hidden);
    AddMatrix(tensors, prefix + "self_attn.q_proj", q, hidden, config.qkv_bias);
    AddMatrix(tensors, prefix + "self_attn.k_proj", kv, hidden, config.qkv_bias);
    AddMatrix(tensors, prefix + "self_attn.v_proj", kv, hidden, config.qkv_bias);
    AddMatrix(tensors, prefix + "self_attn.o_proj", hidden, q, config.output_bias);
    AddNorm(tensors, prefix + "post_attention_layernorm", hidden);
    AddMatrix(tensors, prefix + "mlp.gate_proj", config.intermediate_size, hidden, false);
    AddMatrix(tensors, prefix + "mlp.up_proj", config.intermediate_size, hidden, false);
    AddMatrix(tensors, prefix + "mlp.down_proj", hidden, config.intermediate_size, false);
  }
  AddNorm(tensors, "model.norm", hidden);
  if (!config.tied_embeddings) AddMatrix(tensors, "lm_head", config.vocabulary, hidden, false);
  return tensors;
}

std::string HeaderOf(const std::vector<Tensor>& tensors, DType dtype) {
  const char* type = dtype == DType::kF32 ? "F32" : dtype == DType::kF16 ? "F16" : "BF16";
  nlohmann::json header = {{"__metadata__", {{"format", "pt"}}}};
  int64_t at = 0;
  for (const Tensor& tensor : tensors) {
    const int64_t end = at + tensor.elements() * kernels::FloatBytes(dtype);
    header[tensor.name] = {{"dtype", type}, {"shape", tensor.shape}, {"data_offsets", {at, end}}};
    at = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // keeps the data aligned
  return text;
}

void WriteData(std::ofstream& file, const Tensor& tensor, DType dtype,
               kernels::SamplingGenerator& generator) {
  constexpr int64_t kPiece = 1 << 16;
  std::vector<float> values;
  std::vector<char> bytes;
  for (int64_t done = 0; done < tensor.elements(); done += kPiece) {
    values.resize(std::min(kPiece, tensor.elements() - done));
    for (float& value : values) {
      const double uniform = 2.0 * generator.NextUniform() - 1.0;
      value = tensor.centre + tensor.spread * static_cast<float>(uniform);
    }
    bytes.resize(values.size() * kernels::FloatBytes(dtype));
    kernels::CastFromFloat(dtype, values.data(), static_cast<int64_t>(values.size()), bytes.data());
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }
}

absl::Status Finish(std::ofstream& file, const std::string& path) {
  file.close();
  if (!file.fail()) return absl::OkStatus();
  return absl::ErrnoToStatus(errno == 0 ? EIO : errno, absl::StrCat("write ", path));
}

}  // namespace

absl::Status WriteRandomCheckpoint(const std::string& directory, const ModelConfig& config,
                                   uint64_t seed) {
  if (::mkdir(directory.c_str(), 0777) != 0 && errno != EEXIST) {
    return absl::ErrnoToStatus(errno, absl::StrCat("mkdir ", directory));
  }
  const std::string config_path = directory + "/config.json";
  errno = 0;
  std::ofstream config_file(config_path, std::ios::binary | std::ios::trunc);
  config_file << ModelConfigToJson(config);
  if (absl::Status status = Finish(config_file, config_path); !status.ok()) return status;

  const std::string weights_path = directory + "/model.safetensors";
  std::ofstream file(weights_path, std::ios::binary | std::ios::trunc);
  const std::vector<Tensor> tensors = TensorsOf(config);
  const std::string header = HeaderOf(tensors, config.dtype);
  for (int i = 0; i < 8; ++i) file.put(static_cast<char>(uint64_t{header.size()} >> (8 * i)));
  file << header;
  kernels::SamplingGenerator generator(seed);
  for (const Tensor& tensor : tensors) WriteData(file, tensor, config.dtype, generator);
  return Finish(file, weights_path);
}

}  // namespace kedge
