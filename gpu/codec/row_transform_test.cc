#include "gpu/codec/row_transform.h"

#include <gtest/gtest.h>

#include <array>
#include <random>
#include <vector>

#include "gpu/kernels/cuda_test_device.h"

namespace kedge::codec {
namespace {

TEST(RowTransform, IsAMatrixProduct) {
  // [1, 10] times a matrix of 2 rows and 40 columns whose [i][j] is j + 100 i.
  const std::vector<float> in = {1, 10};
  std::vector<float> matrix(PanelFloats(2, 40));
  for (int64_t i = 0; i < 2; ++i) {
    for (int64_t j = 0; j < 40; ++j) matrix[PanelIndex(2, i, j)] = static_cast<float>(j + 100 * i);
  }
  std::vector<float> out(40);
  TransformRows({.in = in.data(), .rows = 1, .inner = 2, .matrix = matrix.data(), .width = 40},
                out.data());
  for (int64_t j = 0; j < 40; ++j) EXPECT_EQ(out[j], static_cast<float>(11 * j + 1000));
}

// A task, and what it reads.
struct Random {
  Random(int64_t rows, int64_t inner, int64_t width, bool turned, uint32_t seed)
      : in(rows * inner), matrix(PanelFloats(inner, width)), start(width) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (auto* values : {&in, &matrix, &start}) {
      for (float& v : *values) v = normal(random);
    }
    task = {.in = in.data(),
            .row_stride = turned ? 1 : inner,
            .inner_stride = turned ? rows : 1,
            .rows = rows,
            .inner = inner,
            .matrix = matrix.data(),
            .width = width,
            .start = turned ? start.data() : nullptr};
  }

  std::vector<float> in;
  std::vector<float> matrix;
  std::vector<float> start;
  RowTransform task;
};

TEST(RowTransform, VectorsGiveTheSameBits) {
  for (const auto& [rows, inner, width] :
       {std::array<int64_t, 3>{1, 1, 1}, {9, 17, 33}, {64, 128, 128}, {60, 5, 47}}) {
    for (const bool turned : {false, true}) {
      const Random random(rows, inner, width, turned, 3);
      std::vector<float> one(rows * width);
      std::vector<float> two(rows * width);
      TransformRows(random.task, one.data());
      TransformRowsScalar(random.task, two.data());
      EXPECT_EQ(one, two) << rows << " " << inner << " " << width;
    }
  }
}

#if KEDGE_CUDA

using RowTransformCudaTest = kernels::CudaTwin;

TEST_F(RowTransformCudaTest, HasTheBitsOfTheCpu) {
  for (const auto& [rows, inner, width] : {std::array<int64_t, 3>{1, 1, 1},
                                           {9, 17, 33},
                                           {64, 128, 128},
                                           {60, 5, 47},
                                           {130, 416, 1024},
                                           {3, 0, 40}}) {
    for (const bool turned : {false, true}) {
      const Random random(rows, inner, width, turned, 5);
      std::vector<float> expected(rows * width);
      TransformRowsScalar(random.task, expected.data());
      RowTransform task = random.task;
      if (inner > 0) task.in = ToGpu(random.in);
      if (inner > 0) task.matrix = ToGpu(random.matrix);
      if (turned) task.start = ToGpu(random.start);
      float* out = Room<float>(expected.size());
      TransformRowsCuda(task, out, stream());
      EXPECT_EQ(FromGpu(out, expected.size()), expected) << rows << " " << inner << " " << width;
    }
  }
}

#endif  // KEDGE_CUDA

}  // namespace
}  // namespace kedge::codec
