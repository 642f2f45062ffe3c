#include <cmath>
#include <vector>

#include "gpu/kernels/cast.h"
#include "gpu/kernels/value_deviation.h"

namespace kedge::kernels {

void ValueDeviation(const ValueDeviationArgs& args) {
  const int64_t row_bytes = args.width * FloatBytes(args.dtype);
  std::vector<uint8_t> stored(row_bytes);
  std::vector<float> fresh(args.width);
  std::vector<float> cached(args.width);
  for (int64_t row = 0; row < args.rows; ++row) {
    CastFromFloat(args.dtype, args.fresh + row * args.fresh_stride, args.width, stored.data());
    CastToFloat(args.dtype, stored.data(), args.width, fresh.data());
    CastToFloat(args.dtype,
                static_cast<const uint8_t*>(args.cached) + args.positions[row] * row_bytes,
                args.width, cached.data());
    float sum = 0.0f;
    for (int64_t i = 0; i < args.width; ++i) sum += std::abs(fresh[i] - cached[i]);
    args.deviation[row] = sum;
  }
}

}  // namespace kedge::kernels
