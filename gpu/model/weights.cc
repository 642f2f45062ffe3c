#include "gpu/model/weights.h"

#include "absl/strings/str_cat.h"
#include "gpu/kernels/matmul.h"
#include "gpu/model/safetensors.h"

namespace kedge {
namespace {

// Reads tensors one after the other; after the first error it only returns.
class Loader {
 public:
  Loader(const Checkpoint& checkpoint, CpuDevice& device)
      : checkpoint_(checkpoint), device_(device) {}

  const absl::Status& status() const { return status_; }
  int64_t parameters() const { return parameters_; }

  DeviceBuffer Plain(const std::string& name, const std::vector<int64_t>& shape) {
    Check(checkpoint_.CheckShape(name, shape));
    int64_t elements = 1;
    for (int64_t dimension : shape) elements *= dimension;
    DeviceBuffer buffer = Allocate(elements);
    if (status_.ok()) Check(checkpoint_.Read(name, shape, buffer.as<float>()));
    return buffer;
  }

  struct Piece {
    std::string name;  // without ".weight"
    int64_t outputs;
  };

  // Packs matrices with the same input below each other.
  Linear Packed(const std::vector<Piece>& pieces, int64_t inputs, bool bias) {
    Linear linear;
    linear.inputs = inputs;
    for (const Piece& piece : pieces) {
      Check(checkpoint_.CheckShape(piece.name + ".weight", {piece.outputs, inputs}));
      linear.outputs += piece.outputs;
    }
    linear.packed = Allocate(kernels::PackedFloats(linear.outputs, inputs));
    if (bias) linear.bias = Allocate(linear.outputs);
    if (!status_.ok()) return linear;
    kernels::ZeroPadding(linear.outputs, inputs, linear.packed.as<float>());
    int64_t first_output = 0;
    for (const Piece& piece : pieces) {
      std::vector<float> rows(piece.outputs * inputs);
      Check(checkpoint_.Read(piece.name + ".weight", {piece.outputs, inputs}, rows.data()));
      kernels::PackWeights(device_, rows.data(), first_output, piece.outputs, inputs,
                           linear.packed.as<float>());
      if (bias) {
        Check(checkpoint_.Read(piece.name + ".bias", {piece.outputs},
                               linear.bias.as<float>() + first_output));
      }
      first_output += piece.outputs;
    }
    parameters_ += linear.outputs * inputs;
    return linear;
  }

 private:
  void Check(const absl::Status& status) {
    if (status_.ok()) status_ = status;
  }

  DeviceBuffer Allocate(int64_t floats) {
    if (!status_.ok()) return DeviceBuffer();
    absl::StatusOr<DeviceBuffer> buffer = DeviceBuffer::Create(device_, floats * sizeof(float));
    if (buffer.ok()) return *std::move(buffer);
    status_ = buffer.status();
    return DeviceBuffer();
  }

  const Checkpoint& checkpoint_;
  CpuDevice& device_;
  absl::Status status_;
  int64_t parameters_ = 0;
};

LayerWeights LoadLayer(Loader& load, const ModelConfig& config, int64_t layer) {
  const std::string prefix = absl::StrCat("model.layers.", layer, ".");
  const std::string attention = prefix + "self_attn.";
  const std::string mlp = prefix + "mlp.";
  const int64_t hidden = config.hidden_size;
  const int64_t q = config.heads * config.head_size;
  const int64_t kv = config.kv_heads * config.head_size;
  LayerWeights weights;
  weights.attention_norm = load.Plain(prefix + "input_layernorm.weight", {hidden});
  weights.qkv = load.Packed(
      {{attention + "q_proj", q}, {attention + "k_proj", kv}, {attention + "v_proj", kv}}, hidden,
      config.qkv_bias);
  weights.output = load.Packed({{attention + "o_proj", hidden}}, q, config.output_bias);
  weights.mlp_norm = load.Plain(prefix + "post_attention_layernorm.weight", {hidden});
  weights.gate_up = load.Packed(
      {{mlp + "gate_proj", config.intermediate_size}, {mlp + "up_proj", config.intermediate_size}},
      hidden, false);
  weights.down = load.Packed({{mlp + "down_proj", hidden}}, config.intermediate_size, false);
  return weights;
}

}  // namespace

absl::StatusOr<ModelWeights> LoadWeights(const std::string& directory, const ModelConfig& config,
                                         CpuDevice& device) {
  absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(directory);
  if (!checkpoint.ok()) return checkpoint.status();
  Loader load(*checkpoint, device);
  ModelWeights weights;
  weights.embedding =
      load.Plain("model.embed_tokens.weight", {config.vocabulary, config.hidden_size});
  for (int64_t layer = 0; layer < config.layers && load.status().ok(); ++layer) {
    weights.layers.push_back(LoadLayer(load, config, layer));
  }
  weights.final_norm = load.Plain("model.norm.weight", {config.hidden_size});
  const std::string logits = config.tied_embeddings ? "model.embed_tokens" : "lm_head";
  weights.logits = load.Packed({{logits, config.vocabulary}}, config.hidden_size, false);
  weights.parameters = load.parameters();
  if (!load.status().ok()) return load.status();
  return weights;
}

}  // namespace kedge
