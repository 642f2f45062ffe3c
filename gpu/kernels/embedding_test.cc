#include "gpu/kernels/embedding.h"

#include <vector>

#include <gtest/gtest.h>

#include "gpu/kernels/cuda_test_device.h"
#include "gpu/kernels/random_floats.h"

namespace kedge::kernels {
namespace {

TEST(Embedding, CopiesTheRowOfEachToken) {
  CpuDevice device(2);
  constexpr int64_t kWidth = 9;
  const std::vector<float> table = RandomFloats(5 * kWidth, 1);
  const std::vector<int32_t> tokens = {4, 0, 4, 2};
  std::vector<float> out(tokens.size() * kWidth);
  Embedding(device, table.data(), tokens.data(), 4, kWidth, out.data());
  for (size_t r = 0; r < tokens.size(); ++r) {
    for (int64_t i = 0; i < kWidth; ++i) {
      ASSERT_EQ(out[r * kWidth + i], table[tokens[r] * kWidth + i]);
    }
  }
}

#if KEDGE_CUDA

using EmbeddingCudaTest = CudaTwin;

TEST_F(EmbeddingCudaTest, AgreesWithTheCpuBitForBit) {
  CpuDevice cpu(1);
  constexpr int64_t kWidth = 300;
  const std::vector<float> table = RandomFloats(5 * kWidth, 1);
  const std::vector<int32_t> tokens = {4, 0, 4, 2};
  std::vector<float> expected(tokens.size() * kWidth);
  Embedding(cpu, table.data(), tokens.data(), 4, kWidth, expected.data());
  float* out = Room<float>(expected.size());
  EmbeddingCuda(ToGpu(table), ToGpu(tokens), 4, kWidth, out, stream());
  EXPECT_EQ(FromGpu(out, expected.size()), expected);
}

#endif  // KEDGE_CUDA

}  // namespace
}  // namespace kedge::kernels
