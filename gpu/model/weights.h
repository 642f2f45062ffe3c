// The weights of a Llama or Qwen2 decoder, in fp32 and packed for matmul.
//
// Tensors that share an input are packed into one matrix: q, k and v, and gate and up. Every shape
// is compared with the config before memory is taken for it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gpu/device/device_cpu.h"
#include "gpu/model/model_config.h"

namespace kedge {

struct Linear {
  DeviceBuffer packed;  // see matmul.h
  DeviceBuffer bias;    // [outputs] fp32; null when the layer has none
  int64_t inputs = 0;
  int64_t outputs = 0;
};

struct LayerWeights {
  DeviceBuffer attention_norm;  // [hidden]
  Linear qkv;                   // hidden -> q heads, k heads, v heads
  Linear output;                // heads * head_size -> hidden
  DeviceBuffer mlp_norm;        // [hidden]
  Linear gate_up;               // hidden -> gate, up
  Linear down;                  // intermediate -> hidden
};

struct ModelWeights {
  DeviceBuffer embedding;  // [vocabulary, hidden]
  std::vector<LayerWeights> layers;
  DeviceBuffer final_norm;  // [hidden]
  Linear logits;            // hidden -> vocabulary
  int64_t parameters = 0;   // of the matrices that a token passes through, tied ones counted once
};

// Reads DIRECTORY/model*.safetensors.
absl::StatusOr<ModelWeights> LoadWeights(const std::string& directory, const ModelConfig& config,
                                         CpuDevice& device);

}  // namespace kedge
