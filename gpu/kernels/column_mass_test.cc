#include "gpu/kernels/column_mass.h"

#include <cmath>
#include <cstring>
#include <vector>

#include "gpu/kernels/attention_mass.h"
#include "gpu/kernels/cast.h"
#include "gpu/kernels/cuda_test_device.h"
#include "gpu/kernels/random_floats.h"
#include "gtest/gtest.h"

namespace kedge::kernels {
namespace {

struct Shape {
  int64_t heads;
  int64_t kv_heads;
  int64_t head_size;
};

class Inputs {
 public:
  Inputs(const Shape& shape, int64_t tokens, DType dtype) : shape_(shape), dtype_(dtype) {
    q_ = RandomFloats(tokens * shape.heads * shape.head_size, 1);
    for (float& value : q_) value *= 4.0f;
    const std::vector<float> k = RandomFloats(tokens * shape.kv_heads * shape.head_size, 2);
    k_.resize(k.size() * FloatBytes(dtype));
    CastFromFloat(dtype, k.data(), static_cast<int64_t>(k.size()), k_.data());
    log_sum_exp_.resize(tokens * shape.heads);
    out_.resize(q_.size());
  }

  // Attention has been computed, hence log_sum_exp is there.
  AttentionArgs Attend(CpuDevice& device, int64_t first, int64_t rows) {
    AttentionArgs args = Args(first, rows);
    scratch_.resize(AttentionScratchFloats(args));
    args.scratch = scratch_.data();
    Attention(device, args);
    return args;
  }
  AttentionArgs Args(int64_t first, int64_t rows) {
    return {.q = q_.data() + first * shape_.heads * shape_.head_size,
            .q_stride = shape_.heads * shape_.head_size,
            .k = k_.data(),
            .v = k_.data(),
            .kv_dtype = dtype_,
            .out = out_.data(),
            .rows = rows,
            .first_position = first,
            .heads = shape_.heads,
            .kv_heads = shape_.kv_heads,
            .head_size = shape_.head_size,
            .scale = 0.25f,
            .log_sum_exp = log_sum_exp_.data()};
  }
  const std::vector<float>& q() const { return q_; }
  const std::vector<uint8_t>& k() const { return k_; }
  const std::vector<float>& log_sum_exp() const { return log_sum_exp_; }

 private:
  const Shape shape_;
  const DType dtype_;
  std::vector<float> q_;
  std::vector<uint8_t> k_;
  std::vector<float> log_sum_exp_;
  std::vector<float> out_;
  std::vector<float> scratch_;
};

TEST(ColumnMass, IsAttentionMassOfTheLastRows) {
  CpuDevice device(2);
  for (const Shape& shape : {Shape{4, 2, 16}, Shape{3, 3, 8}, Shape{8, 1, 64}}) {
    for (const DType dtype : {DType::kF32, DType::kBf16}) {
      Inputs inputs(shape, 200, dtype);
      for (const int64_t window : {1, 32, 63, 200}) {
        const AttentionArgs args = inputs.Attend(device, 0, 200);
        const int64_t stride = 203;
        std::vector<float> mass(shape.heads * stride);
        ColumnMass(device, args, 200 - window, stride, mass.data());
        AttentionArgs last = inputs.Args(200 - window, window);
        std::vector<double> expected(shape.heads * 200);
        AttentionMass(device, last, expected);
        for (int64_t head = 0; head < shape.heads; ++head) {
          for (int64_t key = 0; key < 200; ++key) {
            ASSERT_NEAR(mass[head * stride + key], expected[head * 200 + key],
                        1e-5 * static_cast<double>(window))
                << "head " << head << " key " << key << " window " << window;
          }
          EXPECT_EQ(mass[head * stride + 200], 0.0f);
        }
      }
    }
  }
}

TEST(ColumnMass, BitsDoNotDependOnHowRowsWereCut) {
  const Shape shape{6, 2, 24};
  CpuDevice one(1);
  CpuDevice two(2);
  Inputs inputs(shape, 150, DType::kF16);
  std::vector<float> whole(shape.heads * 150);
  ColumnMass(two, inputs.Attend(two, 0, 150), 61, 150, whole.data());
  for (const int64_t piece : {1, 7, 32, 64}) {
    std::vector<float> cut(shape.heads * 150);
    for (int64_t first = 0; first < 150; first += piece) {
      const int64_t rows = std::min(piece, 150 - first);
      ColumnMass(one, inputs.Attend(one, first, rows), std::max<int64_t>(0, 61 - first), 150,
                 cut.data());
    }
    EXPECT_EQ(std::memcmp(cut.data(), whole.data(), cut.size() * sizeof(float)), 0)
        << "pieces of " << piece;
  }
}

TEST(ColumnMass, AttentionHasTheSameBitsWithAndWithoutLogSumExp) {
  CpuDevice device(2);
  const Shape shape{6, 2, 24};
  Inputs inputs(shape, 100, DType::kF32);
  AttentionArgs args = inputs.Attend(device, 0, 100);
  std::vector<float> with(args.out, args.out + 100 * 6 * 24);
  args.log_sum_exp = nullptr;
  Attention(device, args);
  EXPECT_EQ(std::memcmp(with.data(), args.out, with.size() * sizeof(float)), 0);
}

#if KEDGE_CUDA

using ColumnMassCudaTest = CudaTwin;

TEST_F(ColumnMassCudaTest, AgreesWithTheCpu) {
  CpuDevice device(2);
  const Shape shape{6, 2, 24};
  Inputs inputs(shape, 150, DType::kBf16);
  const AttentionArgs cpu = inputs.Attend(device, 0, 150);
  std::vector<float> expected(shape.heads * 150);
  ColumnMass(device, cpu, 100, 150, expected.data());
  AttentionArgs args = cpu;
  args.q = ToGpu(inputs.q());
  args.k = ToGpu(inputs.k());
  args.log_sum_exp = ToGpu(inputs.log_sum_exp());
  float* mass = ToGpu(std::vector<float>(expected.size()));
  ColumnMassCuda(args, 100, 150, mass, stream());
  const std::vector<float> sums = FromGpu(mass, static_cast<int64_t>(expected.size()));
  for (size_t i = 0; i < sums.size(); ++i) ASSERT_NEAR(sums[i], expected[i], 50 * 1e-4);
}

#endif  // KEDGE_CUDA

}  // namespace
}  // namespace kedge::kernels
