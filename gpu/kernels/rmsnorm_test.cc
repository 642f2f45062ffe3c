#include "gpu/kernels/rmsnorm.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "gpu/kernels/cuda_test_device.h"
#include "gpu/kernels/random_floats.h"

namespace kedge::kernels {
namespace {

TEST(RmsNorm, AgreesWithTheDefinitionForAnyWidth) {
  CpuDevice device(2);
  constexpr float kEpsilon = 1e-5f;
  for (int64_t width : {1, 7, 16, 24, 63, 1024}) {
    const std::vector<float> x = RandomFloats(3 * width, 1);
    const std::vector<float> weight = RandomFloats(width, 2);
    std::vector<float> y(3 * width);
    RmsNorm(device, x.data(), weight.data(), kEpsilon, 3, width, y.data());
    for (int64_t r = 0; r < 3; ++r) {
      double squares = 0.0;
      for (int64_t i = 0; i < width; ++i) squares += double{x[r * width + i]} * x[r * width + i];
      const double scale = 1.0 / std::sqrt(squares / static_cast<double>(width) + kEpsilon);
      for (int64_t i = 0; i < width; ++i) {
        const double expected = x[r * width + i] * scale * weight[i];
        ASSERT_NEAR(y[r * width + i], expected, 1e-6 + 1e-6 * std::fabs(expected));
      }
    }
  }
}

TEST(RmsNorm, InPlaceAndRowByRowGiveTheSameBits) {
  CpuDevice device(2);
  constexpr int64_t kWidth = 100;
  const std::vector<float> x = RandomFloats(9 * kWidth, 3);
  const std::vector<float> weight = RandomFloats(kWidth, 4);
  std::vector<float> all(x.size());
  RmsNorm(device, x.data(), weight.data(), 1e-6f, 9, kWidth, all.data());
  std::vector<float> in_place = x;
  for (int64_t r = 0; r < 9; ++r) {
    float* row = in_place.data() + r * kWidth;
    RmsNorm(device, row, weight.data(), 1e-6f, 1, kWidth, row);
  }
  EXPECT_EQ(in_place, all);
}

#if KEDGE_CUDA

using RmsNormCudaTest = CudaTwin;

TEST_F(RmsNormCudaTest, AgreesWithTheCpu) {
  CpuDevice cpu(2);
  constexpr int64_t kRows = 5, kWidth = 1000;
  const std::vector<float> x = RandomFloats(kRows * kWidth, 5);
  const std::vector<float> weight = RandomFloats(kWidth, 6);
  std::vector<float> expected(x.size());
  RmsNorm(cpu, x.data(), weight.data(), 1e-6f, kRows, kWidth, expected.data());
  float* y = Room<float>(x.size());
  RmsNormCuda(ToGpu(x), ToGpu(weight), 1e-6f, kRows, kWidth, y, stream());
  const std::vector<float> actual = FromGpu(y, x.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    ASSERT_NEAR(actual[i], expected[i], 1e-7 + 1e-5 * std::fabs(expected[i]));
  }
}

#endif  // KEDGE_CUDA

}  // namespace
}  // namespace kedge::kernels
