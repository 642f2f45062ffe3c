#include "gpu/kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include <gtest/gtest.h>

#include "gpu/kernels/cast.h"
#include "gpu/kernels/cuda_test_device.h"
#include "gpu/kernels/random_floats.h"

namespace kedge::kernels {
namespace {

struct Shape {
  int64_t heads;
  int64_t kv_heads;
  int64_t head_size;
};

// Queries of all positions and the whole cache; rows of any range can be asked for.
class Sequence {
 public:
  Sequence(const Shape& shape, int64_t tokens, DType dtype, float query_size = 1.0f)
      : shape_(shape), dtype_(dtype), stride_(shape.heads * shape.head_size + 5) {
    const int64_t kv = tokens * shape.kv_heads * shape.head_size;
    q_ = RandomFloats(tokens * stride_, 1);
    for (float& value : q_) value *= query_size;
    k_ = Stored(RandomFloats(kv, 2));
    v_ = Stored(RandomFloats(kv, 3));
  }

  std::vector<float> Attend(CpuDevice& device, int64_t first, int64_t rows) const {
    std::vector<float> out(rows * shape_.heads * shape_.head_size, NAN);
    AttentionArgs args = Args(first, rows);
    args.out = out.data();
    std::vector<float> scratch(AttentionScratchFloats(args), NAN);
    args.scratch = scratch.data();
    Attention(device, args);
    return out;
  }

  AttentionArgs Args(int64_t first, int64_t rows) const {
    AttentionArgs args;
    args.q = q_.data() + first * stride_;
    args.q_stride = stride_;
    args.k = k_.data();
    args.v = v_.data();
    args.kv_dtype = dtype_;
    args.rows = rows;
    args.first_position = first;
    args.heads = shape_.heads;
    args.kv_heads = shape_.kv_heads;
    args.head_size = shape_.head_size;
    args.scale = Scale();
    return args;
  }
  const std::vector<float>& q() const { return q_; }
  const std::vector<uint8_t>& k() const { return k_; }
  const std::vector<uint8_t>& v() const { return v_; }

  // The definition, in double precision.
  std::vector<double> Reference(int64_t position) const {
    const int64_t size = shape_.head_size;
    const std::vector<float> k = Floats(k_);
    const std::vector<float> v = Floats(v_);
    std::vector<double> out;
    for (int64_t head = 0; head < shape_.heads; ++head) {
      const int64_t kv_head = head / (shape_.heads / shape_.kv_heads);
      const float* q = q_.data() + position * stride_ + head * size;
      const auto at = [&](int64_t key) { return (key * shape_.kv_heads + kv_head) * size; };
      std::vector<double> weights(position + 1);
      double largest = -1e300;
      for (int64_t key = 0; key <= position; ++key) {
        double dot = 0.0;
        for (int64_t i = 0; i < size; ++i) dot += double{q[i]} * k[at(key) + i];
        weights[key] = dot * Scale();
        largest = std::max(largest, weights[key]);
      }
      double total = 0.0;
      for (double& weight : weights) total += weight = std::exp(weight - largest);
      for (int64_t i = 0; i < size; ++i) {
        double sum = 0.0;
        for (int64_t key = 0; key <= position; ++key) sum += weights[key] * v[at(key) + i];
        out.push_back(sum / total);
      }
    }
    return out;
  }

  // The same without the first tokens.
  Sequence From(int64_t tokens) const {
    Sequence rest = *this;
    const int64_t kv_bytes = tokens * shape_.kv_heads * shape_.head_size * FloatBytes(dtype_);
    rest.q_.erase(rest.q_.begin(), rest.q_.begin() + tokens * stride_);
    rest.k_.erase(rest.k_.begin(), rest.k_.begin() + kv_bytes);
    rest.v_.erase(rest.v_.begin(), rest.v_.begin() + kv_bytes);
    return rest;
  }

 private:
  float Scale() const { return 1.0f / std::sqrt(static_cast<float>(shape_.head_size)); }
  std::vector<uint8_t> Stored(const std::vector<float>& values) const {
    std::vector<uint8_t> bytes(values.size() * FloatBytes(dtype_));
    CastFromFloat(dtype_, values.data(), static_cast<int64_t>(values.size()), bytes.data());
    return bytes;
  }
  std::vector<float> Floats(const std::vector<uint8_t>& bytes) const {
    std::vector<float> values(bytes.size() / FloatBytes(dtype_));
    CastToFloat(dtype_, bytes.data(), static_cast<int64_t>(values.size()), values.data());
    return values;
  }

  Shape shape_;
  DType dtype_;
  int64_t stride_;
  std::vector<float> q_;
  std::vector<uint8_t> k_;
  std::vector<uint8_t> v_;
};

TEST(Attention, AgreesWithTheDefinition) {
  CpuDevice device(2);
  for (const Shape& shape : {Shape{4, 2, 16}, Shape{3, 3, 8}, Shape{8, 1, 64}, Shape{2, 1, 80}}) {
    for (DType dtype : {DType::kF32, DType::kF16, DType::kBf16}) {
      // Queries of size 30 make some weights vanish and some maxima move.
      for (float query_size : {1.0f, 30.0f}) {
        const Sequence sequence(shape, 200, dtype, query_size);
        const std::vector<float> out = sequence.Attend(device, 0, 200);
        const int64_t width = shape.heads * shape.head_size;
        for (int64_t position : {0, 1, 62, 63, 64, 65, 127, 128, 199}) {
          const std::vector<double> expected = sequence.Reference(position);
          for (int64_t i = 0; i < width; ++i) {
            ASSERT_NEAR(out[position * width + i], expected[i], 1e-5)
                << "position " << position << " value " << i << " head size " << shape.head_size;
          }
        }
      }
    }
  }
}

TEST(Attention, HiddenKeysAreAsIfTheyWereNotThere) {
  CpuDevice device(2);
  const Shape shape{6, 2, 24};
  const int64_t width = shape.heads * shape.head_size;
  const int64_t tokens = 200;
  const Sequence sequence(shape, tokens, DType::kBf16, 8.0f);
  const std::vector<float> causal = sequence.Attend(device, 0, tokens);
  const auto attend = [&](const std::vector<uint8_t>& visible) {
    std::vector<float> out(tokens * width, NAN);
    AttentionArgs args = sequence.Args(0, tokens);
    args.visible = visible.data();
    args.out = out.data();
    std::vector<float> scratch(AttentionScratchFloats(args), NAN);
    args.scratch = scratch.data();
    Attention(device, args);
    return out;
  };
  std::vector<uint8_t> visible(tokens * tokens, 1);
  EXPECT_EQ(std::memcmp(attend(visible).data(), causal.data(), causal.size() * sizeof(float)), 0)
      << "a mask that hides nothing";
  // Rows from 150 on see the keys from 130 on only: two whole tiles before are hidden.
  for (int64_t row = 150; row < tokens; ++row)
    std::fill_n(visible.begin() + row * tokens, 130, uint8_t{0});
  const std::vector<float> masked = attend(visible);
  EXPECT_EQ(std::memcmp(masked.data(), causal.data(), 150 * width * sizeof(float)), 0);
  const Sequence moved = sequence.From(130);
  for (int64_t row = 150; row < tokens; ++row) {
    const std::vector<double> expected = moved.Reference(row - 130);
    for (int64_t i = 0; i < width; ++i) ASSERT_NEAR(masked[row * width + i], expected[i], 1e-5);
  }
}

TEST(Attention, ARowHasTheSameBitsWithAnyOtherRows) {
  CpuDevice device(2);
  const Shape shape{6, 2, 24};
  const int64_t width = shape.heads * shape.head_size;
  const Sequence sequence(shape, 260, DType::kBf16, 8.0f);
  const std::vector<float> all = sequence.Attend(device, 0, 260);
  for (int64_t rows = 1; rows <= 130; ++rows) {
    for (int64_t first : {int64_t{0}, int64_t{37}, int64_t{64}, 260 - rows}) {
      const std::vector<float> some = sequence.Attend(device, first, rows);
      ASSERT_EQ(std::memcmp(some.data(), all.data() + first * width, some.size() * sizeof(float)),
                0)
          << rows << " rows from " << first;
    }
  }
}

TEST(Attention, RowsThatStandApartHaveTheBitsOfTheirPositions) {
  CpuDevice device(2);
  const Shape shape{6, 2, 24};
  const int64_t width = shape.heads * shape.head_size;
  const Sequence sequence(shape, 260, DType::kBf16, 8.0f);
  const std::vector<float> all = sequence.Attend(device, 0, 260);
  const AttentionArgs dense = sequence.Args(0, 260);
  for (const int64_t step : {1, 2, 3, 7, 63, 64, 65, 200}) {
    for (const int32_t first : {0, 5, 64, 190}) {
      std::vector<int32_t> positions;
      std::vector<float> q;
      for (int64_t p = first; p < 260; p += step) {
        positions.push_back(static_cast<int32_t>(p));
        q.insert(q.end(), dense.q + p * dense.q_stride, dense.q + (p + 1) * dense.q_stride);
      }
      AttentionArgs args = dense;
      args.q = q.data();
      args.rows = static_cast<int64_t>(positions.size());
      args.positions = positions.data();
      std::vector<float> out(args.rows * width, NAN);
      args.out = out.data();
      std::vector<float> scratch(AttentionScratchFloats(args), NAN);
      args.scratch = scratch.data();
      Attention(device, args);
      for (int64_t row = 0; row < args.rows; ++row) {
        ASSERT_EQ(std::memcmp(out.data() + row * width, all.data() + positions[row] * width,
                              width * sizeof(float)),
                  0)
            << "position " << positions[row] << " of every " << step << "th from " << first;
      }
    }
  }
}

#if KEDGE_CUDA

using AttentionCudaTest = CudaTwin;

TEST_F(AttentionCudaTest, AgreesWithTheDefinition) {
  const Shape shape{6, 2, 24};
  const int64_t width = shape.heads * shape.head_size;
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBf16}) {
    const Sequence sequence(shape, 200, dtype, 8.0f);
    AttentionArgs args = sequence.Args(100, 60);
    args.q = ToGpu(sequence.q()) + 100 * args.q_stride;
    args.k = ToGpu(sequence.k());
    args.v = ToGpu(sequence.v());
    args.out = Room<float>(60 * width);
    AttentionCuda(args, stream());
    const std::vector<float> out = FromGpu(args.out, 60 * width);
    for (int64_t row = 0; row < 60; ++row) {
      const std::vector<double> expected = sequence.Reference(100 + row);
      for (int64_t i = 0; i < width; ++i) ASSERT_NEAR(out[row * width + i], expected[i], 1e-5);
    }
  }
}

TEST_F(AttentionCudaTest, RowsThatStandApartSeeUpToTheirPositions) {
  const Shape shape{6, 2, 24};
  const int64_t width = shape.heads * shape.head_size;
  const Sequence sequence(shape, 200, DType::kBf16, 8.0f);
  const std::vector<int32_t> positions{0, 3, 64, 150, 199};
  AttentionArgs args = sequence.Args(0, 200);
  std::vector<float> q;
  for (const int32_t p : positions)
    q.insert(q.end(), args.q + p * args.q_stride, args.q + (p + 1) * args.q_stride);
  args.q = ToGpu(q);
  args.k = ToGpu(sequence.k());
  args.v = ToGpu(sequence.v());
  args.rows = static_cast<int64_t>(positions.size());
  args.positions = ToGpu(positions);
  args.out = Room<float>(args.rows * width);
  AttentionCuda(args, stream());
  const std::vector<float> out = FromGpu(args.out, args.rows * width);
  for (int64_t row = 0; row < args.rows; ++row) {
    const std::vector<double> expected = sequence.Reference(positions[row]);
    for (int64_t i = 0; i < width; ++i) ASSERT_NEAR(out[row * width + i], expected[i], 1e-5);
  }
}

TEST_F(AttentionCudaTest, HiddenKeysAreAsIfTheyWereNotThere) {
  const Shape shape{6, 2, 24};
  const int64_t width = shape.heads * shape.head_size;
  const Sequence sequence(shape, 200, DType::kBf16, 8.0f);
  std::vector<uint8_t> visible(200 * 200, 1);
  for (int64_t row = 150; row < 200; ++row)
    std::fill_n(visible.begin() + row * 200, 130, uint8_t{0});
  AttentionArgs args = sequence.Args(0, 200);
  args.q = ToGpu(sequence.q());
  args.k = ToGpu(sequence.k());
  args.v = ToGpu(sequence.v());
  args.visible = ToGpu(visible);
  args.out = Room<float>(200 * width);
  AttentionCuda(args, stream());
  const std::vector<float> out = FromGpu(args.out, 200 * width);
  const Sequence moved = sequence.From(130);
  for (int64_t row : {0, 149, 150, 199}) {
    const std::vector<double> expected =
        row < 150 ? sequence.Reference(row) : moved.Reference(row - 130);
    for (int64_t i = 0; i < width; ++i) ASSERT_NEAR(out[row * width + i], expected[i], 1e-5);
  }
}

#endif  // KEDGE_CUDA

}  // namespace
}  // namespace kedge::kernels
