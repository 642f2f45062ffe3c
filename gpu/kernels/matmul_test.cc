#include "gpu/kernels/matmul.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <vector>

#include <gtest/gtest.h>

#include "gpu/kernels/cuda_test_device.h"
#include "gpu/kernels/random_floats.h"

namespace kedge::kernels {
namespace {

struct Weights {
  Weights(CpuDevice& device, int64_t outputs, int64_t inputs)
      : plain(RandomFloats(outputs * inputs, 1)), packed(PackedFloats(outputs, inputs), NAN) {
    ZeroPadding(outputs, inputs, packed.data());
    PackWeights(device, plain.data(), 0, outputs, inputs, packed.data());
  }
  std::vector<float> plain;
  std::vector<float> packed;
};

std::vector<float> Product(CpuDevice& device, const Weights& weights, const float* x, int64_t rows,
                           int64_t inputs, int64_t outputs) {
  std::vector<float> y(rows * outputs, NAN);
  std::vector<float> scratch(MatMulScratchFloats(rows, inputs));
  MatMul(device, {.x = x,
                  .packed = weights.packed.data(),
                  .y = y.data(),
                  .scratch = scratch.data(),
                  .rows = rows,
                  .inputs = inputs,
                  .outputs = outputs});
  return y;
}

TEST(MatMul, AgreesWithDoublePrecision) {
  CpuDevice device(2);
  for (const auto& [rows, inputs, outputs] : {std::array<int64_t, 3>{1, 1, 1},
                                              {3, 7, 31},
                                              {13, 192, 33},
                                              {64, 193, 96},
                                              {100, 500, 70}}) {
    const Weights weights(device, outputs, inputs);
    const std::vector<float> x = RandomFloats(rows * inputs, 2);
    const std::vector<float> y = Product(device, weights, x.data(), rows, inputs, outputs);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t n = 0; n < outputs; ++n) {
        double sum = 0.0;
        double size = 0.0;
        for (int64_t k = 0; k < inputs; ++k) {
          const double term = double{x[r * inputs + k]} * weights.plain[n * inputs + k];
          sum += term;
          size += std::fabs(term);
        }
        ASSERT_NEAR(y[r * outputs + n], sum, 1e-6 * size + 1e-7) << r << " " << n;
      }
    }
  }
}

// The promise that exact reuse of KV stands on.
TEST(MatMul, ARowHasTheSameBitsWithAnyOtherRows) {
  constexpr int64_t kRows = 130;
  constexpr int64_t kInputs = 419;  // more than two k-blocks, and no multiple of anything
  constexpr int64_t kOutputs = 75;
  CpuDevice device(2);
  CpuDevice three(3);
  const Weights weights(device, kOutputs, kInputs);
  const std::vector<float> x = RandomFloats(kRows * kInputs, 3);
  const std::vector<float> all = Product(device, weights, x.data(), kRows, kInputs, kOutputs);
  for (int64_t rows = 1; rows <= kRows; ++rows) {
    for (int64_t first : {int64_t{0}, (kRows - rows) / 2, kRows - rows}) {
      const std::vector<float> some = Product(rows % 2 == 0 ? device : three, weights,
                                              x.data() + first * kInputs, rows, kInputs, kOutputs);
      ASSERT_EQ(
          std::memcmp(some.data(), all.data() + first * kOutputs, some.size() * sizeof(float)), 0)
          << rows << " rows from " << first;
    }
  }
}

TEST(MatMul, AddsBiasAndResidualInPlace) {
  CpuDevice device(2);
  constexpr int64_t kRows = 20, kInputs = 50, kOutputs = 40;
  const Weights weights(device, kOutputs, kInputs);
  const std::vector<float> x = RandomFloats(kRows * kInputs, 4);
  const std::vector<float> bias = RandomFloats(kOutputs, 5);
  const std::vector<float> residual = RandomFloats(kRows * kOutputs, 6);
  const std::vector<float> plain = Product(device, weights, x.data(), kRows, kInputs, kOutputs);
  std::vector<float> y = residual;
  std::vector<float> scratch(MatMulScratchFloats(kRows, kInputs));
  MatMul(device, {.x = x.data(),
                  .packed = weights.packed.data(),
                  .bias = bias.data(),
                  .residual = y.data(),
                  .y = y.data(),
                  .scratch = scratch.data(),
                  .rows = kRows,
                  .inputs = kInputs,
                  .outputs = kOutputs});
  for (int64_t i = 0; i < kRows * kOutputs; ++i) {
    ASSERT_EQ(y[i], plain[i] + bias[i % kOutputs] + residual[i]);
  }
}

TEST(MatMul, MatricesPackedTogetherAreOneProduct) {
  CpuDevice device(2);
  constexpr int64_t kInputs = 33, kFirst = 20, kSecond = 50;
  const std::vector<float> weights = RandomFloats((kFirst + kSecond) * kInputs, 1);
  Weights whole(device, kFirst + kSecond, kInputs);
  Weights pieces = whole;
  std::fill(pieces.packed.begin(), pieces.packed.end(), NAN);
  ZeroPadding(kFirst + kSecond, kInputs, pieces.packed.data());
  PackWeights(device, whole.plain.data(), 0, kFirst, kInputs, pieces.packed.data());
  PackWeights(device, whole.plain.data() + kFirst * kInputs, kFirst, kSecond, kInputs,
              pieces.packed.data());
  EXPECT_EQ(pieces.packed, whole.packed);
}

TEST(MatMul, NoRowsAreNoWork) {
  CpuDevice device(2);
  MatMul(device, {.rows = 0, .inputs = 8, .outputs = 8});
}

#if KEDGE_CUDA

using MatMulCudaTest = CudaTwin;

TEST_F(MatMulCudaTest, AgreesWithTheCpu) {
  CpuDevice cpu(2);
  constexpr int64_t kRows = 70, kInputs = 193, kOutputs = 75;
  const Weights weights(cpu, kOutputs, kInputs);
  const std::vector<float> x = RandomFloats(kRows * kInputs, 7);
  const std::vector<float> expected = Product(cpu, weights, x.data(), kRows, kInputs, kOutputs);
  float* y = Room<float>(kRows * kOutputs);
  MatMulCuda(ToGpu(x), ToGpu(weights.plain), nullptr, nullptr, y, kRows, kInputs, kOutputs,
             stream());
  const std::vector<float> actual = FromGpu(y, kRows * kOutputs);
  for (size_t i = 0; i < actual.size(); ++i) ASSERT_NEAR(actual[i], expected[i], 1e-4);
}

#endif  // KEDGE_CUDA

}  // namespace
}  // namespace kedge::kernels
