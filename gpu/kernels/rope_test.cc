#include "gpu/kernels/rope.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "gpu/kernels/cuda_test_device.h"
#include "gpu/kernels/random_floats.h"

namespace kedge::kernels {
namespace {

TEST(Rope, RotatesPairsAndLeavesTheRestOfTheRow) {
  CpuDevice device(2);
  constexpr int64_t kHeads = 3, kHeadSize = 8, kStride = kHeads * kHeadSize + 4, kRows = 6;
  const std::vector<float> frequencies = RopeFrequencies(kHeadSize, 10000.0f, {});
  const std::vector<float> before = RandomFloats(kRows * kStride, 1);
  std::vector<float> x = before;
  const RopeTable table = MakeRopeTable(frequencies, 100, kRows);
  Rope(device, table, kRows, kHeads, kHeadSize, kStride, x.data());
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t head = 0; head < kHeads; ++head) {
      for (int64_t i = 0; i < kHeadSize / 2; ++i) {
        const double angle = (100.0 + r) * std::pow(10000.0, -2.0 * i / kHeadSize);
        const int64_t low = r * kStride + head * kHeadSize + i;
        const int64_t high = low + kHeadSize / 2;
        ASSERT_NEAR(x[low], before[low] * std::cos(angle) - before[high] * std::sin(angle), 2e-5);
        ASSERT_NEAR(x[high], before[high] * std::cos(angle) + before[low] * std::sin(angle), 2e-5);
      }
    }
    for (int64_t i = kHeads * kHeadSize; i < kStride; ++i) {
      ASSERT_EQ(x[r * kStride + i], before[r * kStride + i]);
    }
  }
}

TEST(Rope, ATableDoesNotDependOnWhereItStarts) {
  const std::vector<float> frequencies = RopeFrequencies(16, 500000.0f, {});
  const RopeTable all = MakeRopeTable(frequencies, 0, 50);
  const RopeTable tail = MakeRopeTable(frequencies, 40, 10);
  EXPECT_TRUE(std::equal(tail.cos.begin(), tail.cos.end(), all.cos.begin() + 40 * 8));
  EXPECT_TRUE(std::equal(tail.sin.begin(), tail.sin.end(), all.sin.begin() + 40 * 8));
}

TEST(Rope, ScalingChangesFrequencies) {
  const std::vector<float> plain = RopeFrequencies(64, 500000.0f, {});
  const std::vector<float> linear =
      RopeFrequencies(64, 500000.0f, {.kind = RopeScalingKind::kLinear, .factor = 4.0f});
  const std::vector<float> llama3 = RopeFrequencies(64, 500000.0f,
                                                    {.kind = RopeScalingKind::kLlama3,
                                                     .factor = 8.0f,
                                                     .low_freq_factor = 1.0f,
                                                     .high_freq_factor = 4.0f,
                                                     .original_max_positions = 8192});
  for (size_t i = 0; i < plain.size(); ++i) EXPECT_EQ(linear[i], plain[i] / 4.0f);
  EXPECT_EQ(llama3.front(), plain.front());       // a short wave stays
  EXPECT_EQ(llama3.back(), plain.back() / 8.0f);  // a long one is stretched
  int blended = 0;
  for (size_t i = 0; i < plain.size(); ++i) {
    EXPECT_LE(llama3[i], plain[i]);
    EXPECT_GE(llama3[i], plain[i] / 8.0f);
    if (llama3[i] != plain[i] && llama3[i] != plain[i] / 8.0f) ++blended;
  }
  EXPECT_GT(blended, 0);
}

#if KEDGE_CUDA

using RopeCudaTest = CudaTwin;

TEST_F(RopeCudaTest, AgreesWithTheCpu) {
  CpuDevice cpu(2);
  constexpr int64_t kHeads = 3, kHeadSize = 64, kStride = kHeads * kHeadSize + 8, kRows = 20;
  const RopeTable table = MakeRopeTable(RopeFrequencies(kHeadSize, 10000.0f, {}), 100, kRows);
  std::vector<float> expected = RandomFloats(kRows * kStride, 1);
  float* x = ToGpu(expected);
  RopeCuda(ToGpu(table.cos), ToGpu(table.sin), kRows, kHeads, kHeadSize, kStride, x, stream());
  Rope(cpu, table, kRows, kHeads, kHeadSize, kStride, expected.data());
  const std::vector<float> actual = FromGpu(x, expected.size());
  for (size_t i = 0; i < actual.size(); ++i) ASSERT_NEAR(actual[i], expected[i], 1e-6);
}

#endif  // KEDGE_CUDA

}  // namespace
}  // namespace kedge::kernels
