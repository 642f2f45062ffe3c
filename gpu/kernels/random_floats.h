// Seeded random inputs for the kernels' tests.
#pragma once

#include <cstdint>
#include <vector>

#include "gpu/kernels/sampling.h"

namespace kedge::kernels {

// Uniform in [-1, 1).
inline std::vector<float> RandomFloats(int64_t count, uint64_t seed) {
  SamplingGenerator generator(seed);
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(2.0 * generator.NextUniform() - 1.0);
  return values;
}

}  // namespace kedge::kernels
