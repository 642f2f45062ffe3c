#include "gpu/codec/hadamard.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "gpu/codec/cuda_test_part.h"
#include "gpu/codec/part_rows.h"
#include "gpu/kernels/random_floats.h"

namespace kedge::codec {
namespace {

TEST(Hadamard, IsTheMatrixOfParities) {
  for (int64_t head_size : {1, 8, 96, 128}) {
    const int64_t block = HadamardBlock(head_size);
    const std::vector<float> before = kernels::RandomFloats(2 * head_size, 1);
    std::vector<float> after = before;
    Hadamard(2, head_size, after.data());
    for (int64_t i = 0; i < 2 * head_size; ++i) {
      double sum = 0.0;
      for (int64_t j = 0; j < block; ++j) {
        const bool odd = __builtin_popcountll((i % block) & j) % 2 != 0;
        sum += (odd ? -1.0 : 1.0) * before[i - i % block + j];
      }
      EXPECT_NEAR(after[i], sum / std::sqrt(static_cast<double>(block)), 1e-5);
    }
    Hadamard(2, head_size, after.data());
    for (int64_t i = 0; i < 2 * head_size; ++i) EXPECT_NEAR(after[i], before[i], 1e-6);
  }
  EXPECT_EQ(HadamardBlock(96), 32);
  EXPECT_EQ(HadamardBlock(128), 128);
}

#if KEDGE_CUDA

using HadamardCudaTest = CodecCudaTest;

TEST_F(HadamardCudaTest, HadamardHasTheBitsOfTheCpu) {
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBf16}) {
    Fill(dtype);
    const float* cos = ToGpu(rope_.cos);
    const float* sin = ToGpu(rope_.sin);
    std::vector<float> expected(kTokens * kWidth);
    for (int64_t t = 0; t < kTokens; ++t) {
      ReadRow({dtype, raw_.data(), &rope_, 0, true}, t, kHeads, kHeadSize,
              expected.data() + t * kWidth);
    }
    float* values = Room<float>(expected.size());
    HadamardReadCuda(dtype, ToGpu(raw_), cos, sin, kTokens, kHeads, kHeadSize, values, stream());
    ASSERT_EQ(FromGpu(values, expected.size()), expected);

    std::vector<uint8_t> back(raw_.size());
    const std::vector<uint8_t*> rows = Rows(back.data());
    for (int64_t t = 4; t < kTokens; ++t) {
      WriteRow({dtype, rows.data(), &rope_, 4, true}, t, kHeads, kHeadSize,
               expected.data() + t * kWidth);
    }
    uint8_t* pages = ToGpu(std::vector<uint8_t>(raw_.size()));
    HadamardWriteCuda(values, dtype, ToGpu(Rows(pages)), cos, sin, kTokens, kHeads, kHeadSize, 4,
                      stream());
    ASSERT_EQ(FromGpu(pages, raw_.size()), back);
  }
}

#endif  // KEDGE_CUDA

}  // namespace
}  // namespace kedge::codec
