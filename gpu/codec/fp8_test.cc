#include "gpu/codec/fp8.h"

#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "gpu/codec/cuda_test_part.h"
#include "gpu/kernels/cast.h"
#include "gpu/kernels/random_floats.h"

namespace kedge::codec {
namespace {

using kernels::RandomFloats;

TEST(Fp8, EveryCodeIsItsOwnNearest) {
  for (int code = 0; code < 256; ++code) {
    const float value = E4m3ToFloat(static_cast<uint8_t>(code));
    if ((code & 0x7f) == 0x7f) {
      EXPECT_TRUE(std::isnan(value));
    } else {
      EXPECT_EQ(FloatToE4m3(value), code);
    }
  }
  EXPECT_EQ(E4m3ToFloat(0x7e), 448.0f);
  EXPECT_EQ(E4m3ToFloat(0x38), 1.0f);
  EXPECT_EQ(E4m3ToFloat(0x01), 0x1p-9f);
  EXPECT_EQ(E4m3ToFloat(0x08), 0x1p-6f);
}

TEST(Fp8, RoundsToNearestEven) {
  for (int code = 0; code < 0x7e; ++code) {
    const float low = E4m3ToFloat(static_cast<uint8_t>(code));
    const float high = E4m3ToFloat(static_cast<uint8_t>(code + 1));
    const float middle = (low + high) / 2;
    EXPECT_EQ(FloatToE4m3(middle), code % 2 == 0 ? code : code + 1);
    EXPECT_EQ(FloatToE4m3(std::nextafter(middle, 0.0f)), code);
    EXPECT_EQ(FloatToE4m3(-std::nextafter(middle, 500.0f)), 0x80 | (code + 1));
  }
}

TEST(Fp8, VectorsGiveTheBitsOfTheSpecification) {
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBf16}) {
    for (int64_t head_size : {20, 32, 128}) {
      for (int64_t skip : {0, 4}) {
        for (bool turned : {false, true}) {
          const Fp8Layout layout{33, 3, head_size};
          std::vector<float> values = RandomFloats(layout.bytes(), head_size + skip);
          // Down to E4M3's subnormals and below.
          for (size_t i = 0; i < values.size(); ++i) values[i] *= std::ldexp(1.0f, -(i % 20));
          std::vector<uint8_t> raw(values.size() * kernels::FloatBytes(dtype));
          kernels::CastFromFloat(dtype, values.data(), layout.bytes(), raw.data());
          const kernels::RopeTable rope =
              kernels::MakeRopeTable(kernels::RopeFrequencies(head_size, 10000.0f, {}), 77, 33);
          const kernels::RopeTable* table = turned ? &rope : nullptr;
          std::vector<uint8_t> expected(layout.bytes(), 1), actual(layout.bytes(), 2);
          float expected_scale = 0.0f, scale = 0.0f;
          const SourceRows source{dtype, raw.data(), table, skip};
          ASSERT_TRUE(Fp8EncodeScalar(layout, source, &expected_scale, expected.data()));
          ASSERT_TRUE(Fp8Encode(layout, source, &scale, actual.data()));
          ASSERT_EQ(scale, expected_scale);
          ASSERT_EQ(actual, expected);
          ASSERT_TRUE(Fp8Check(layout, "p", scale, actual.data()).ok());

          std::vector<uint8_t> scalar_out(raw.size(), 7), vector_out(raw.size(), 7);
          std::vector<uint8_t*> scalar_rows, vector_rows;
          for (int64_t t = 0; t < 33; ++t) {
            scalar_rows.push_back(scalar_out.data() + t * (raw.size() / 33));
            vector_rows.push_back(vector_out.data() + t * (raw.size() / 33));
          }
          Fp8DecodeScalar(layout, scale, actual.data(), {dtype, scalar_rows.data(), table, skip});
          Fp8Decode(layout, scale, actual.data(), {dtype, vector_rows.data(), table, skip});
          ASSERT_EQ(vector_out, scalar_out);
        }
      }
    }
  }
}

TEST(Fp8, RefusesWhatItCannotHold) {
  const Fp8Layout layout{32, 1, 32};
  std::vector<uint8_t> out(layout.bytes());
  float scale = 0.0f;
  for (float bad : {std::numeric_limits<float>::quiet_NaN(),
                    -std::numeric_limits<float>::infinity(), 65536.0f}) {
    std::vector<float> values(layout.bytes(), 1.0f);
    values[900] = bad;
    const SourceRows source{DType::kF32, reinterpret_cast<const uint8_t*>(values.data())};
    EXPECT_FALSE(Fp8Encode(layout, source, &scale, out.data()));
    EXPECT_FALSE(Fp8EncodeScalar(layout, source, &scale, out.data()));
  }
}

TEST(Fp8, ChecksScaleAndCodes) {
  const Fp8Layout layout{3, 1, 3};  // 9 bytes: a tail
  std::vector<uint8_t> codes(9, 0x7e);
  EXPECT_TRUE(Fp8Check(layout, "p", 1.0f, codes.data()).ok());
  for (float scale : {-1.0f, -0.0f, 147.0f, std::numeric_limits<float>::quiet_NaN()})
    EXPECT_FALSE(Fp8Check(layout, "p", scale, codes.data()).ok()) << scale;
  for (int at : {0, 5, 8}) {
    for (uint8_t nan : {0x7f, 0xff}) {
      codes.assign(9, 0xfe);
      codes[at] = nan;
      const std::string text(Fp8Check(layout, "p", 1.0f, codes.data()).message());
      EXPECT_NE(text.find("code of value " + std::to_string(at)), text.npos) << text;
    }
  }
}

TEST(Fp8, ZerosStayZeros) {
  const Fp8Layout layout{32, 1, 32};
  const std::vector<float> zeros(layout.bytes());
  std::vector<uint8_t> out(layout.bytes(), 9);
  float scale = 1.0f;
  ASSERT_TRUE(Fp8Encode(layout, {DType::kF32, reinterpret_cast<const uint8_t*>(zeros.data())},
                        &scale, out.data()));
  EXPECT_EQ(scale, 0.0f);
  EXPECT_EQ(out, std::vector<uint8_t>(layout.bytes(), 0));
}

#if KEDGE_CUDA

using Fp8CudaTest = CodecCudaTest;

TEST_F(Fp8CudaTest, Fp8HasTheBitsOfTheCpu) {
  const Fp8Layout layout{kTokens, kHeads, kHeadSize};
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBf16}) {
    Fill(dtype);
    std::vector<uint8_t> expected(layout.bytes());
    float scale = 0.0f;
    ASSERT_TRUE(Fp8Encode(layout, {dtype, raw_.data(), &rope_, 4}, &scale, expected.data()));
    uint8_t* out = Room<uint8_t>(expected.size());
    float* gpu_scale = ToGpu(std::vector<float>{0.0f});
    int* bad = ToGpu(std::vector<int>{0});
    const float* cos = ToGpu(rope_.cos);
    const float* sin = ToGpu(rope_.sin);
    Fp8EncodeCuda(layout, dtype, ToGpu(raw_), cos, sin, 4, gpu_scale, out, bad, stream());
    ASSERT_EQ(FromGpu(out, expected.size()), expected);
    ASSERT_EQ(FromGpu(gpu_scale, 1)[0], scale);

    std::vector<uint8_t> back(raw_.size());
    const std::vector<uint8_t*> rows = Rows(back.data());
    Fp8Decode(layout, scale, expected.data(), {dtype, rows.data(), &rope_, 4});
    uint8_t* pages = ToGpu(std::vector<uint8_t>(raw_.size()));
    Fp8DecodeCuda(layout, gpu_scale, out, dtype, ToGpu(Rows(pages)), cos, sin, 4, stream());
    ASSERT_EQ(FromGpu(pages, raw_.size()), back);
  }
}

#endif  // KEDGE_CUDA

}  // namespace
}  // namespace kedge::codec
