#include "gpu/kernels/value_deviation.h"

#include <cmath>
#include <vector>

#include "gpu/kernels/cast.h"
#include "gpu/kernels/cuda_test_device.h"
#include "gpu/kernels/random_floats.h"
#include "gtest/gtest.h"

namespace kedge::kernels {
namespace {

constexpr int64_t kTokens = 9, kWidth = 37, kStride = 50;

// Some of the tokens, in any order, fresh values beside others'.
struct Inputs {
  explicit Inputs(DType of) : dtype(of), cached(kTokens * kWidth * FloatBytes(of)) {
    const std::vector<float> values = RandomFloats(kTokens * kWidth, 2);
    CastFromFloat(dtype, values.data(), kTokens * kWidth, cached.data());
  }
  ValueDeviationArgs Args(std::vector<float>& deviation) const {
    deviation.assign(positions.size(), -1.0f);
    return {.dtype = dtype,
            .fresh = fresh.data(),
            .fresh_stride = kStride,
            .cached = cached.data(),
            .positions = positions.data(),
            .rows = static_cast<int64_t>(positions.size()),
            .width = kWidth,
            .deviation = deviation.data()};
  }

  DType dtype;
  std::vector<int32_t> positions = {1, 2, 5, 8, 0};
  std::vector<float> fresh = RandomFloats(5 * kStride, 1);
  std::vector<uint8_t> cached;
};

TEST(ValueDeviation, IsTheSumOfDifferences) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBf16}) {
    const Inputs inputs(dtype);
    std::vector<float> deviation;
    ValueDeviation(inputs.Args(deviation));
    const double rounding = dtype == DType::kF32 ? 1e-6 : 0x1p-9;
    std::vector<float> cached(kTokens * kWidth);
    CastToFloat(dtype, inputs.cached.data(), kTokens * kWidth, cached.data());
    for (size_t row = 0; row < inputs.positions.size(); ++row) {
      double expected = 0;
      for (int64_t i = 0; i < kWidth; ++i) {
        const int64_t at = static_cast<int64_t>(row) * kStride + i;
        expected += std::abs(double{inputs.fresh[at]} - cached[inputs.positions[row] * kWidth + i]);
      }
      EXPECT_NEAR(deviation[row], expected, kWidth * rounding) << row;
    }
  }
}

TEST(ValueDeviation, WhatTheCacheHoldsAlreadyIsZero) {
  for (const DType dtype : {DType::kF16, DType::kBf16}) {
    Inputs inputs(dtype);
    for (size_t row = 0; row < inputs.positions.size(); ++row) {
      CastFromFloat(dtype, inputs.fresh.data() + row * kStride, kWidth,
                    inputs.cached.data() + inputs.positions[row] * kWidth * 2);
    }
    std::vector<float> deviation;
    ValueDeviation(inputs.Args(deviation));
    for (const float value : deviation) EXPECT_EQ(value, 0.0f);
  }
}

#if KEDGE_CUDA

using ValueDeviationCudaTest = CudaTwin;

TEST_F(ValueDeviationCudaTest, AgreesWithTheCpu) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBf16}) {
    const Inputs inputs(dtype);
    std::vector<float> expected;
    ValueDeviationArgs args = inputs.Args(expected);
    ValueDeviation(args);
    args.fresh = ToGpu(inputs.fresh);
    args.cached = ToGpu(inputs.cached);
    args.positions = ToGpu(inputs.positions);
    args.deviation = Room<float>(expected.size());
    ValueDeviationCuda(args, stream());
    const std::vector<float> actual = FromGpu(args.deviation, expected.size());
    for (size_t i = 0; i < actual.size(); ++i)
      ASSERT_NEAR(actual[i], expected[i], 1e-5 * expected[i]);
  }
}

#endif  // KEDGE_CUDA

}  // namespace
}  // namespace kedge::kernels
