#include "gpu/offset/mixture.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "gpu/kernels/cast.h"
#include "gpu/kernels/cuda_test_device.h"
#include "gpu/kernels/rope.h"
#include "gpu/offset/blend_row.h"
#include "gpu/offset/testing_rows.h"
#include "gtest/gtest.h"

namespace kedge::offset {
namespace {

constexpr int64_t kLayers = 3, kTokens = 6, kPrefix = 2, kWidth = 8;

class MixtureTest : public ::testing::TestWithParam<Weighting> {
 protected:
  MixtureTest() : filling_(SketchOf(RandomRows(kLayers, kTokens, kWidth, 99))) {
    for (uint32_t i = 0; i < 7; ++i) anchors_.push_back(RandomAnchor(kTokens + i % 3, kPrefix, i));
  }
  MixOptions Options() const { return {.weighting = GetParam(), .sharpness = 3.0, .scale = 2.5}; }
  void Add(size_t anchor, Mix& mix) const {
    const Anchor& a = anchors_[anchor];
    mix.Add(Options(), filling_, a.sketch, a.filling, a.prefix);
  }
  Mix Empty() const { return Mix(kLayers, kTokens, kPrefix, kWidth); }

  Sketch filling_;
  std::vector<Anchor> anchors_;
};

void ExpectNear(const std::vector<float>& a, const std::vector<float>& b, float tolerance) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], tolerance) << i;
}

void ExpectNear(const Mix& a, const Mix& b) {
  ExpectNear(a.FillingOffset().keys, b.FillingOffset().keys, 1e-5f);
  ExpectNear(a.FillingOffset().values, b.FillingOffset().values, 1e-5f);
  ExpectNear(a.PrefixOffset().keys, b.PrefixOffset().keys, 1e-5f);
  ExpectNear(a.PrefixOffset().values, b.PrefixOffset().values, 1e-5f);
  EXPECT_NEAR(a.entropy(), b.entropy(), 1e-5);
  EXPECT_EQ(a.nearest(), b.nearest());
  EXPECT_EQ(a.anchors(), b.anchors());
}

TEST_P(MixtureTest, PartsMergeToTheWholeInAnyOrder) {
  Mix whole = Empty();
  for (size_t i = 0; i < anchors_.size(); ++i) Add(i, whole);
  Mix left = Empty(), middle = Empty(), right = Empty();
  for (size_t i : {0, 3}) Add(i, left);
  for (size_t i : {6, 1, 2}) Add(i, middle);
  for (size_t i : {5, 4}) Add(i, right);
  Mix merged = right;
  merged.Merge(left);
  merged.Merge(Empty());
  merged.Merge(middle);
  ExpectNear(whole, merged);
  Mix from_nothing = Empty();
  from_nothing.Merge(whole);
  ExpectNear(whole, from_nothing);
}

// Against the formula, in fp64.
TEST_P(MixtureTest, IsTheSoftmaxOfDistances) {
  Mix mix = Empty();
  for (size_t i = 0; i < anchors_.size(); ++i) Add(i, mix);
  const auto weights = [&](auto distance) {
    std::vector<double> w;
    double least = 1e300, sum = 0;
    for (const Anchor& a : anchors_) least = std::min(least, distance(a) / 2.5);
    for (const Anchor& a : anchors_) {
      const double d = distance(a) / 2.5 - least;
      w.push_back(GetParam() == Weighting::kMean      ? 1.0
                  : GetParam() == Weighting::kNearest ? (d == 0 ? 1.0 : 0.0)
                                                      : std::exp(-3.0 * d));
      sum += w.back();
    }
    for (double& value : w) value /= sum;
    return w;
  };
  const auto whole = [&](const Anchor& a) { return Distance(filling_, a.sketch, kTokens); };
  const KvRows offset = mix.FillingOffset();
  for (int64_t token = 0; token < kTokens; ++token) {
    const std::vector<double> w =
        GetParam() == Weighting::kToken
            ? weights([&](const Anchor& a) { return TokenDistance(filling_, a.sketch, token); })
            : weights(whole);
    double key = 0, value = 0;
    for (size_t i = 0; i < anchors_.size(); ++i) {
      key += w[i] * anchors_[i].filling.Key(2, token)[5];
      value += w[i] * anchors_[i].filling.Value(1, token)[3];
    }
    EXPECT_NEAR(offset.Key(2, token)[5], key, 1e-5);
    EXPECT_NEAR(offset.Value(1, token)[3], value, 1e-5);
    EXPECT_EQ(offset.Key(0, token)[5], 0);
  }
  const std::vector<double> w = weights(whole);
  double prefix = 0;
  for (size_t i = 0; i < anchors_.size(); ++i) prefix += w[i] * anchors_[i].prefix.Key(1, 1)[2];
  EXPECT_NEAR(mix.PrefixOffset().Key(1, 1)[2], prefix, 1e-5);
}

TEST_P(MixtureTest, OneAnchorIsItself) {
  Mix mix = Empty();
  Add(0, mix);
  EXPECT_EQ(mix.FillingOffset().keys, anchors_[0].filling.keys);
  EXPECT_EQ(mix.FillingOffset().values, anchors_[0].filling.values);
  EXPECT_EQ(mix.PrefixOffset().keys, anchors_[0].prefix.keys);
  EXPECT_EQ(mix.entropy(), 0);
}

TEST_P(MixtureTest, NothingIsZeros) {
  const Mix mix = Empty();
  EXPECT_EQ(mix.FillingOffset().keys, KvRows::Of(kLayers, kTokens, kWidth).keys);
  EXPECT_EQ(mix.entropy(), 0);
  EXPECT_TRUE(std::isinf(mix.nearest()));
}

// Whatever gives the weights, the gate sees the distances.
TEST_P(MixtureTest, EntropyIsThatOfTheSoftmax) {
  Mix mix = Empty();
  std::vector<double> e;
  double sum = 0;
  for (size_t i = 0; i < anchors_.size(); ++i) {
    Add(i, mix);
    e.push_back(std::exp(-3.0 / 2.5 * Distance(filling_, anchors_[i].sketch, kTokens)));
    sum += e.back();
  }
  double entropy = 0;
  for (double value : e) entropy -= value / sum * std::log(value / sum);
  EXPECT_NEAR(mix.entropy(), entropy, 1e-5);
}

INSTANTIATE_TEST_SUITE_P(Weightings, MixtureTest,
                         ::testing::Values(Weighting::kFilling, Weighting::kToken,
                                           Weighting::kNearest, Weighting::kMean));

TEST(SketchTest, KeepsDistancesRoughly) {
  const KvRows a = RandomRows(2, 40, 256, 1), b = RandomRows(2, 40, 256, 2);
  double exact = 0;
  for (int64_t token = 0; token < 40; ++token) {
    double squares = 0;
    for (int64_t i = 0; i < 256; ++i)
      squares += std::pow(double{a.Value(1, token)[i]} - b.Value(1, token)[i], 2);
    exact += std::sqrt(squares) / 40;
  }
  EXPECT_NEAR(Distance(SketchOf(a), SketchOf(b), 40) / exact, 1.0, 0.15);
  EXPECT_EQ(Distance(SketchOf(a), SketchOf(a), 40), 0);
}

TEST(KvRowsTest, AnOffsetTakesTheBaseThereAndLeavesLayer0) {
  const KvRows real = RandomRows(3, 5, 4, 1), base = RandomRows(3, 5, 4, 2);
  KvRows moved = base;
  AddOffset(OffsetOf(real, base), moved);
  for (int64_t token = 0; token < 5; ++token) {
    EXPECT_EQ(moved.Key(0, token)[1], base.Key(0, token)[1]);
    EXPECT_NEAR(moved.Key(1, token)[1], real.Key(1, token)[1], 1e-6);
    EXPECT_NEAR(moved.Value(2, token)[3], real.Value(2, token)[3], 1e-6);
  }
}

TEST(KvRowsTest, ErrorsAreSharesOfTheOffset) {
  const KvRows real = RandomOffset(3, 50, 4, 1);
  EXPECT_EQ(ErrorOf(real, real).share(), 0);
  EXPECT_NEAR(ErrorOf(KvRows::Of(3, 50, 4), real).share(), 1.0, 1e-9);
  KvRows half = real;
  for (float& value : half.keys) value /= 2;
  for (float& value : half.values) value /= 2;
  EXPECT_NEAR(ErrorOf(half, real).share(), 0.25, 1e-6);
  // One token that is not predicted at all hides in the mean, and not in the quantile.
  KvRows one = real;
  for (int64_t layer = 0; layer < 3; ++layer) {
    for (float& value : one.Key(layer, 17)) value = 0;
    for (float& value : one.Value(layer, 17)) value = 0;
  }
  EXPECT_LT(ErrorOf(one, real).share(), 0.05);
  EXPECT_GT(ErrorOf(one, real).TokenShare(1.0), 0.5);
  EXPECT_EQ(ErrorOf(one, real).TokenShare(0.9), 0);
}

// Vectors round as one number at a time does: two products, a sum, no fused multiply-add.
TEST(BlendRow, HasTheBitsOfPlainArithmetic) {
  for (const int64_t count : {1, 3, 4, 15, 16, 17, 64, 131}) {
    const KvRows from = RandomRows(1, 1, count, 3), before = RandomRows(1, 1, count, 4);
    std::vector<float> into = before.keys;
    BlendRow(0.3f, 0.7f, from.keys.data(), count, into.data());
    for (int64_t i = 0; i < count; ++i) {
      const volatile float kept = 0.3f * before.keys[i];
      const volatile float added = 0.7f * from.keys[i];
      EXPECT_EQ(into[i], kept + added) << i << " of " << count;
    }
  }
}

#if KEDGE_CUDA

std::vector<float> RowsOf(std::span<const float> first, int64_t tokens) {
  return {first.data(), first.data() + tokens * static_cast<int64_t>(first.size())};
}

class MixtureCudaTest : public kernels::CudaTwin {
 protected:
  // Anchors [first, last) on the GPU, without their prefix segments: keys of one layer.
  MixRowsArgs Args(size_t first, size_t last, int64_t layer, Weighting weighting, bool mean) {
    std::vector<const float*> offsets;
    std::vector<float> logits;
    for (size_t i = first; i < last; ++i) {
      const Anchor& a = anchors_[i];
      offsets.push_back(ToGpu(RowsOf(a.filling.Key(layer, 0), a.filling.tokens)));
      for (int64_t token = 0; token < kTokens; ++token) {
        const double distance = weighting == Weighting::kToken
                                    ? TokenDistance(filling_, a.sketch, token)
                                    : Distance(filling_, a.sketch, kTokens);
        logits.push_back(static_cast<float>(-options_.sharpness * distance / options_.scale));
      }
    }
    return {.offsets = ToGpu(offsets),
            .logits = ToGpu(logits),
            .anchors = static_cast<int64_t>(last - first),
            .tokens = kTokens,
            .width = kWidth,
            .mean = mean,
            .rows = Room<float>(kTokens * kWidth),
            .max_logit = Room<float>(kTokens),
            .e = Room<float>(kTokens)};
  }
  // The CPU's.
  std::vector<float> Expected(int64_t layer, Weighting weighting) const {
    MixOptions options = options_;
    options.weighting = weighting;
    Mix mix(kLayers, kTokens, kPrefix, kWidth);
    for (const Anchor& a : anchors_) mix.Add(options, filling_, a.sketch, a.filling, a.prefix);
    return RowsOf(mix.FillingOffset().Key(layer, 0), kTokens);
  }
  std::vector<Anchor> Anchors() const {
    std::vector<Anchor> anchors;
    for (uint32_t i = 0; i < 7; ++i) anchors.push_back(RandomAnchor(kTokens + i % 3, kPrefix, i));
    return anchors;
  }

  const MixOptions options_{.sharpness = 3.0, .scale = 2.5};
  const Sketch filling_ = SketchOf(RandomRows(kLayers, kTokens, kWidth, 99));
  const std::vector<Anchor> anchors_ = Anchors();
};

// Of offsets of a few units: normal numbers.
TEST_F(MixtureCudaTest, AgreesWithTheCpu) {
  for (const Weighting weighting : {Weighting::kFilling, Weighting::kToken}) {
    const MixRowsArgs args = Args(0, anchors_.size(), 2, weighting, true);
    MixRowsCuda(args, stream());
    ExpectNear(FromGpu(args.rows, kTokens * kWidth), Expected(2, weighting), 1e-5f);
  }
}

TEST_F(MixtureCudaTest, PartsMergeToTheWhole) {
  const MixRowsArgs left = Args(0, 3, 1, Weighting::kToken, false);
  const MixRowsArgs right = Args(3, anchors_.size(), 1, Weighting::kToken, false);
  MixRowsCuda(left, stream());
  MixRowsCuda(right, stream());
  const std::vector<float> max_left = FromGpu(left.max_logit, kTokens);
  const std::vector<float> max_right = FromGpu(right.max_logit, kTokens);
  const std::vector<float> e_left = FromGpu(left.e, kTokens), e_right = FromGpu(right.e, kTokens);
  std::vector<float> kept, added;
  for (int64_t token = 0; token < kTokens; ++token) {
    const float most = std::max(max_left[token], max_right[token]);
    const float here = std::exp(max_left[token] - most), there = std::exp(max_right[token] - most);
    const float e = e_left[token] * here + e_right[token] * there;
    kept.push_back(here / e);
    added.push_back(there / e);
  }
  BlendRowsCuda(ToGpu(kept), ToGpu(added), right.rows, kTokens, kWidth, left.rows, stream());
  ExpectNear(FromGpu(left.rows, kTokens * kWidth), Expected(1, Weighting::kToken), 1e-5f);
}

TEST_F(MixtureCudaTest, WithoutAnchorsItIsZeros) {
  const MixRowsArgs args = Args(0, 0, 1, Weighting::kFilling, true);
  MixRowsCuda(args, stream());
  EXPECT_EQ(FromGpu(args.rows, kTokens * kWidth), std::vector<float>(kTokens * kWidth));
  EXPECT_EQ(FromGpu(args.e, kTokens), std::vector<float>(kTokens));
}

TEST_F(MixtureCudaTest, BlendingHasTheBitsOfTheCpu) {
  constexpr int64_t kRows = 5, kCount = 131;
  const KvRows from = RandomRows(1, kRows, kCount, 3), before = RandomRows(1, kRows, kCount, 4);
  const std::vector<float> kept = {0.3f, 1.0f, 0.0f, 0.123f, 0.9f};
  const std::vector<float> added = {0.7f, 0.2f, 1.0f, 0.877f, 0.0f};
  std::vector<float> expected = before.keys;
  for (int64_t row = 0; row < kRows; ++row) {
    BlendRow(kept[row], added[row], from.keys.data() + row * kCount, kCount,
             expected.data() + row * kCount);
  }
  float* into = ToGpu(before.keys);
  BlendRowsCuda(ToGpu(kept), ToGpu(added), ToGpu(from.keys), kRows, kCount, into, stream());
  EXPECT_EQ(FromGpu(into, expected.size()), expected);
}

using SketchCudaTest = kernels::CudaTwin;

TEST_F(SketchCudaTest, HasTheBitsOfTheCpu) {
  for (const int64_t width : {8, 70, 256}) {
    const KvRows rows = RandomRows(2, 37, width, 1);
    const Sketch expected = SketchOf(rows);
    float* sketch = Room<float>(expected.values.size());
    SketchCuda(ToGpu(RowsOf(rows.Value(1, 0), rows.tokens)), ToGpu(SketchMatrix(width)),
               rows.tokens, width, sketch, stream());
    EXPECT_EQ(FromGpu(sketch, expected.values.size()), expected.values) << width;
  }
}

class KvRowsCudaTest : public kernels::CudaTwin {
 protected:
  static constexpr int64_t kRun = 11, kHeads = 3, kHeadSize = 16, kRow = kHeads * kHeadSize;
};

// Layer 1 of rows that are rounded to `dtype` first, as a base is.
TEST_F(KvRowsCudaTest, PlacingHasTheBitsOfTheCpu) {
  CpuDevice cpu(1);
  const kernels::RopeTable table =
      kernels::MakeRopeTable(kernels::RopeFrequencies(kHeadSize, 10000.0f, {}), 100, kRun);
  const KvRows offset = RandomOffset(2, kRun, kRow, 2);
  const auto count = kRun * kRow;
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBf16}) {
    const int64_t row_bytes = kRow * kernels::FloatBytes(dtype);
    for (const bool corrected : {true, false}) {
      KvRows rows = RandomRows(2, kRun, kRow, 1);
      std::vector<uint8_t> base(kRun * row_bytes), keys(base.size()), values(base.size());
      kernels::CastFromFloat(dtype, rows.Key(1, 0).data(), count, base.data());
      kernels::CastToFloat(dtype, base.data(), count, rows.Key(1, 0).data());
      std::copy_n(rows.Key(1, 0).data(), count, rows.Value(1, 0).data());
      if (corrected) AddOffset(offset, rows);
      kernels::Rope(cpu, table, kRun, kHeads, kHeadSize, kRow, rows.Key(1, 0).data());
      kernels::CastFromFloat(dtype, rows.Key(1, 0).data(), count, keys.data());
      kernels::CastFromFloat(dtype, rows.Value(1, 0).data(), count, values.data());

      for (const bool turned : {true, false}) {
        const std::span<const float> added = turned ? offset.Key(1, 0) : offset.Value(1, 0);
        uint8_t* target = ToGpu(std::vector<uint8_t>(base.size()));
        std::vector<uint8_t*> pages;  // last token first
        for (int64_t token = 0; token < kRun; ++token)
          pages.push_back(target + (kRun - 1 - token) * row_bytes);
        PlaceRowsCuda({.dtype = dtype,
                       .base = ToGpu(base),
                       .offset = corrected ? ToGpu(RowsOf(added, kRun)) : nullptr,
                       .cos = turned ? ToGpu(table.cos) : nullptr,
                       .sin = turned ? ToGpu(table.sin) : nullptr,
                       .rows = ToGpu(pages),
                       .tokens = kRun,
                       .heads = kHeads,
                       .head_size = kHeadSize},
                      stream());
        const std::vector<uint8_t> found = FromGpu(target, base.size());
        for (int64_t token = 0; token < kRun; ++token) {
          const uint8_t* expected = (turned ? keys : values).data() + token * row_bytes;
          const uint8_t* actual = found.data() + (kRun - 1 - token) * row_bytes;
          ASSERT_EQ(std::memcmp(actual, expected, row_bytes), 0) << "token " << token;
        }
      }
    }
  }
}

#endif  // KEDGE_CUDA

}  // namespace
}  // namespace kedge::offset
