#include "gpu/kernels/swiglu.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "gpu/kernels/random_floats.h"

namespace kedge::kernels {
namespace {

TEST(SwiGlu, AgreesWithTheDefinition) {
  CpuDevice device(2);
  for (int64_t width : {1, 5, 16, 33, 256}) {
    std::vector<float> gate_up = RandomFloats(4 * 2 * width, 1);
    for (float& value : gate_up) value *= 12.0f;
    gate_up[0] = -200.0f;  // e^200 is no fp32
    gate_up[2 * width] = 200.0f;
    std::vector<float> y(4 * width);
    SwiGlu(device, gate_up.data(), 4, width, y.data());
    for (int64_t r = 0; r < 4; ++r) {
      for (int64_t i = 0; i < width; ++i) {
        const double gate = gate_up[r * 2 * width + i];
        const double up = gate_up[r * 2 * width + width + i];
        const double expected = gate / (1.0 + std::exp(-gate)) * up;
        ASSERT_NEAR(y[r * width + i], expected, 1e-6 + 2e-6 * std::fabs(expected)) << gate;
      }
    }
  }
}

}  // namespace
}  // namespace kedge::kernels
