#include "tools/worker/kv_blocks.h"

#include <span>

#include "absl/strings/str_cat.h"

namespace kedge {
namespace {

std::string ScalingText(const kernels::RopeScaling& scaling) {
  switch (scaling.kind) {
    case kernels::RopeScalingKind::kNone:
      return "";
    case kernels::RopeScalingKind::kLinear:
      return absl::StrCat("linear factor=", scaling.factor);
    case kernels::RopeScalingKind::kLlama3:
      return absl::StrCat("llama3 factor=", scaling.factor, " low=", scaling.low_freq_factor,
                          " high=", scaling.high_freq_factor,
                          " original=", scaling.original_max_positions);
  }
  return "unknown";
}

}  // namespace

sdk::ModelOptions StoreModel(const Model& model, const std::string& weights_id,
                             const std::string& tokenizer_id) {
  const KvShape shape = model.kv_shape();
  return {.weights_id = weights_id,
          .tokenizer_id = tokenizer_id,
          .dtype = static_cast<sdk::DType>(shape.dtype),  // one numbering in both
          .layer_count = shape.layer_count,
          .kv_heads = shape.kv_heads,
          .head_size = shape.head_size,
          .block_tokens = shape.block_tokens,
          .rope_theta = model.config().rope_theta,
          .rope_scaling = ScalingText(model.config().rope_scaling)};
}

std::vector<sdk::BlockBuffer> BlockSpans(KvCache& cache, int64_t block_tokens, uint32_t begin,
                                         uint32_t count) {
  std::vector<sdk::BlockBuffer> buffers(count);
  for (uint32_t i = 0; i < count; ++i) {
    const int64_t first = (int64_t{begin} + i) * block_tokens;
    for (int64_t layer = 0; layer < cache.geometry().layers; ++layer) {
      for (Component component : {Component::kK, Component::kV}) {
        std::span<uint8_t> part = cache.PartSpan(layer, component, first, block_tokens);
        buffers[i].push_back({part.data(), part.size()});
      }
    }
  }
  return buffers;
}

}  // namespace kedge
