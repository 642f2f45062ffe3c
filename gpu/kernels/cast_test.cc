#include "gpu/kernels/cast.h"

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "gpu/kernels/cuda_test_device.h"

namespace kedge::kernels {
namespace {

std::vector<uint16_t> AllBits() {
  std::vector<uint16_t> bits(65536);
  for (size_t i = 0; i < bits.size(); ++i) bits[i] = static_cast<uint16_t>(i);
  return bits;
}

std::vector<float> ToFloat(DType dtype, const std::vector<uint16_t>& bits) {
  std::vector<float> values(bits.size());
  CastToFloat(dtype, bits.data(), static_cast<int64_t>(bits.size()), values.data());
  return values;
}

uint16_t FromFloat(DType dtype, float value) {
  uint16_t bits = 0;
  CastFromFloat(dtype, &value, 1, &bits);
  return bits;
}

// The value of an f16 from its definition.
double F16Value(uint16_t bits) {
  const int exponent = (bits >> 10) & 31;
  const int mantissa = bits & 1023;
  const double magnitude =
      exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
  return bits & 0x8000 ? -magnitude : magnitude;
}

TEST(Cast, EveryF16HasItsValueAndComesBack) {
  const std::vector<uint16_t> bits = AllBits();
  const std::vector<float> values = ToFloat(DType::kF16, bits);
  for (size_t i = 0; i < bits.size(); ++i) {
    if ((bits[i] & 0x7c00) == 0x7c00) {
      EXPECT_EQ(std::isnan(values[i]), (bits[i] & 0x3ff) != 0) << bits[i];
      EXPECT_EQ(std::isinf(values[i]), (bits[i] & 0x3ff) == 0) << bits[i];
    } else {
      ASSERT_EQ(values[i], F16Value(bits[i])) << bits[i];
      ASSERT_EQ(FromFloat(DType::kF16, values[i]), bits[i]);
    }
    ASSERT_EQ(std::signbit(values[i]), bits[i] >= 0x8000);
  }
}

TEST(Cast, EveryBf16HasItsValueAndComesBack) {
  const std::vector<uint16_t> bits = AllBits();
  const std::vector<float> values = ToFloat(DType::kBf16, bits);
  for (size_t i = 0; i < bits.size(); ++i) {
    ASSERT_EQ(std::bit_cast<uint32_t>(values[i]), uint32_t{bits[i]} << 16);
    if (std::isnan(values[i])) continue;
    ASSERT_EQ(FromFloat(DType::kBf16, values[i]), bits[i]);
  }
}

TEST(Cast, RoundsToNearestTiesToEven) {
  EXPECT_EQ(FromFloat(DType::kBf16, 1.0f), 0x3f80);
  EXPECT_EQ(FromFloat(DType::kBf16, 1.0f + 0x1p-8f), 0x3f80);             // a tie, down to even
  EXPECT_EQ(FromFloat(DType::kBf16, 1.0f + 3 * 0x1p-8f), 0x3f82);         // a tie, up to even
  EXPECT_EQ(FromFloat(DType::kBf16, 1.0f + 0x1p-8f + 0x1p-20f), 0x3f81);  // above a tie
  EXPECT_EQ(FromFloat(DType::kF16, 1.0f + 0x1p-11f), 0x3c00);
  EXPECT_EQ(FromFloat(DType::kF16, 1.0f + 3 * 0x1p-11f), 0x3c02);
  EXPECT_EQ(FromFloat(DType::kF16, 1.0f + 0x1p-11f + 0x1p-20f), 0x3c01);
  EXPECT_EQ(FromFloat(DType::kF16, 0x1p-25f), 0x0000);  // half the smallest, to even
  EXPECT_EQ(FromFloat(DType::kF16, 0x1p-25f + 0x1p-40f), 0x0001);
  EXPECT_EQ(FromFloat(DType::kF16, -3 * 0x1p-25f), 0x8002);
}

TEST(Cast, HandlesTheEnds) {
  const float inf = std::numeric_limits<float>::infinity();
  EXPECT_EQ(FromFloat(DType::kF16, 65519.0f), 0x7bff);
  EXPECT_EQ(FromFloat(DType::kF16, 65520.0f), 0x7c00);
  EXPECT_EQ(FromFloat(DType::kF16, -inf), 0xfc00);
  EXPECT_EQ(FromFloat(DType::kF16, 0x1.ff8p-15f), 0x03ff);  // the largest subnormal
  EXPECT_EQ(FromFloat(DType::kBf16, std::numeric_limits<float>::max()), 0x7f80);
  EXPECT_EQ(FromFloat(DType::kBf16, inf), 0x7f80);
  for (DType dtype : {DType::kF16, DType::kBf16}) {
    // A NaN whose payload lies in the bits that are dropped stays a NaN.
    const uint16_t bits = FromFloat(dtype, std::bit_cast<float>(0x7f800001u));
    EXPECT_TRUE(std::isnan(ToFloat(dtype, {bits})[0]));
  }
}

TEST(Cast, CopiesF32AndAcceptsNothing) {
  const std::vector<float> in = {1.0f, -0.0f, 3.0e38f};
  std::vector<float> out(3);
  CastToFloat(DType::kF32, in.data(), 3, out.data());
  EXPECT_EQ(in, out);
  CastToFloat(DType::kF32, nullptr, 0, nullptr);
  CastFromFloat(DType::kBf16, nullptr, 0, nullptr);
}

// As a tensor in a safetensors file may lie. UBSan judges the loads and stores.
TEST(Cast, TakesAnyAlignment) {
  constexpr int64_t kCount = 3000;
  for (DType dtype : {DType::kF16, DType::kBf16, DType::kF32}) {
    std::vector<float> in(kCount);
    for (int64_t i = 0; i < kCount; ++i) in[i] = static_cast<float>(i % 251) - 125;
    std::vector<uint8_t> memory(kCount * 4 + 1);
    std::vector<float> out(kCount);
    CastFromFloat(dtype, in.data(), kCount, memory.data() + 1);
    CastToFloat(dtype, memory.data() + 1, kCount, out.data());
    EXPECT_EQ(in, out) << DTypeName(dtype);
  }
}

#if KEDGE_CUDA

using CastCudaTest = CudaTwin;

TEST_F(CastCudaTest, AgreesWithTheCpuBitForBit) {
  const std::vector<uint16_t> bits = AllBits();
  for (DType dtype : {DType::kF16, DType::kBf16}) {
    const std::vector<float> expected = ToFloat(dtype, bits);
    float* values = Room<float>(bits.size());
    uint16_t* back = Room<uint16_t>(bits.size());
    CastToFloatCuda(dtype, ToGpu(bits), static_cast<int64_t>(bits.size()), values, stream());
    CastFromFloatCuda(dtype, values, static_cast<int64_t>(bits.size()), back, stream());
    const std::vector<float> actual = FromGpu(values, bits.size());
    const std::vector<uint16_t> bits_back = FromGpu(back, bits.size());
    for (size_t i = 0; i < bits.size(); ++i) {
      if (std::isnan(expected[i])) {
        ASSERT_TRUE(std::isnan(actual[i]));
        continue;
      }
      ASSERT_EQ(std::bit_cast<uint32_t>(actual[i]), std::bit_cast<uint32_t>(expected[i]));
      ASSERT_EQ(bits_back[i], bits[i]);
    }
  }
}

#endif  // KEDGE_CUDA

}  // namespace
}  // namespace kedge::kernels
