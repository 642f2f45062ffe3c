#include "gpu/kernels/swiglu.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "gpu/kernels/cuda_test_device.h"
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

#if KEDGE_CUDA

using SwiGluCudaTest = CudaTwin;

TEST_F(SwiGluCudaTest, AgreesWithTheCpu) {
  CpuDevice cpu(2);
  constexpr int64_t kRows = 3, kWidth = 300;
  std::vector<float> gate_up = RandomFloats(kRows * 2 * kWidth, 2);
  for (float& value : gate_up) value *= 12.0f;
  std::vector<float> expected(kRows * kWidth);
  SwiGlu(cpu, gate_up.data(), kRows, kWidth, expected.data());
  float* y = Room<float>(expected.size());
  SwiGluCuda(ToGpu(gate_up), kRows, kWidth, y, stream());
  const std::vector<float> actual = FromGpu(y, expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    ASSERT_NEAR(actual[i], expected[i], 1e-6 + 1e-5 * std::fabs(expected[i]));
  }
}

#endif  // KEDGE_CUDA

}  // namespace
}  // namespace kedge::kernels
