#include "gpu/model/twin.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "gpu/kernels/matmul.h"

namespace kedge {

std::vector<int64_t> TwinPairs(int64_t head_size) {
  const int64_t pairs = head_size / 2;
  if (pairs < 2) return {0};
  return {pairs / 2, pairs - 1};
}

absl::Status MakeTwin(const ModelConfig& config, float scale, ModelWeights& weights) {
  int exponent = 0;
  if (!(scale >= 1.0f / 1024 && scale <= 1024.0f) || std::frexp(scale, &exponent) != 0.5f) {
    return absl::InvalidArgumentError(
        absl::StrCat("twin_scale: ", scale, " is not a power of two in [1/1024, 1024]"));
  }
  if (scale == 1.0f) return absl::OkStatus();
  const int64_t half = config.head_size / 2;
  const std::vector<int64_t> pairs = TwinPairs(config.head_size);
  for (LayerWeights& layer : weights.layers) {
    Linear& qkv = layer.qkv;
    const auto scale_heads = [&](int64_t first_head, int64_t heads, float factor) {
      for (int64_t head = first_head; head < first_head + heads; ++head) {
        for (int64_t pair : pairs) {
          for (int64_t channel : {pair, pair + half}) {
            const int64_t output = head * config.head_size + channel;
            kernels::ScaleOutput(output, qkv.inputs, factor, qkv.packed.as<float>());
            if (qkv.bias.data() != nullptr) qkv.bias.as<float>()[output] *= factor;
          }
        }
      }
    };
    scale_heads(0, config.heads, 1.0f / scale);
    scale_heads(config.heads, config.kv_heads, scale);
  }
  return absl::OkStatus();
}

}  // namespace kedge
