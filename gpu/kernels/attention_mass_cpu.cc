#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "absl/base/internal/raw_logging.h"
#include "gpu/kernels/attention_mass.h"
#include "gpu/kernels/cast.h"

namespace kedge::kernels {
namespace {

// The keys of one head, [keys, head_size].
std::vector<float> KeysOfHead(const AttentionArgs& args, int64_t kv_head, int64_t keys) {
  const int64_t size = args.head_size;
  std::vector<float> values(keys * size);
  for (int64_t key = 0; key < keys; ++key) {
    const int64_t at = (key * args.kv_heads + kv_head) * size;
    CastToFloat(args.kv_dtype, static_cast<const char*>(args.k) + at * FloatBytes(args.kv_dtype),
                size, values.data() + key * size);
  }
  return values;
}

}  // namespace

void AttentionMass(CpuDevice& device, const AttentionArgs& args, std::span<double> mass) {
  const int64_t keys = args.first_position + args.rows;
  ABSL_RAW_CHECK(args.positions == nullptr, "AttentionMass: rows that stand apart");
  ABSL_RAW_CHECK(static_cast<int64_t>(mass.size()) == args.heads * keys,
                 "AttentionMass: mass is not [heads, keys]");
  device.ParallelFor(args.heads, [&](int64_t head) {
    const std::vector<float> k = KeysOfHead(args, head / (args.heads / args.kv_heads), keys);
    std::vector<double> weights(keys);
    for (int64_t row = 0; row < args.rows; ++row) {
      const float* q = args.q + row * args.q_stride + head * args.head_size;
      const int64_t seen = args.first_position + row + 1;
      double largest = -std::numeric_limits<double>::infinity();
      for (int64_t key = 0; key < seen; ++key) {
        if (args.visible != nullptr && args.visible[row * keys + key] == 0) {
          weights[key] = -std::numeric_limits<double>::infinity();
          continue;
        }
        double dot = 0;
        for (int64_t i = 0; i < args.head_size; ++i)
          dot += double{q[i]} * k[key * args.head_size + i];
        weights[key] = dot * args.scale;
        largest = std::max(largest, weights[key]);
      }
      double total = 0;
      for (int64_t key = 0; key < seen; ++key)
        total += weights[key] = std::exp(weights[key] - largest);
      for (int64_t key = 0; key < seen; ++key) mass[head * keys + key] += weights[key] / total;
    }
  });
}

}  // namespace kedge::kernels
