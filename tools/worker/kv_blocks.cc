#include "tools/worker/kv_blocks.h"

#include <span>

#include "absl/base/internal/raw_logging.h"
#include "gpu/kernels/rope_scaling_text.h"

namespace kedge {

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
          .rope_scaling = kernels::RopeScalingText(model.config().rope_scaling)};
}

std::vector<sdk::BlockBuffer> BlockSpans(KvCache& cache, int64_t block_tokens, uint32_t begin,
                                         uint32_t count) {
  ABSL_RAW_CHECK(!cache.pruned(), "a pruned cache has no blocks");
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
