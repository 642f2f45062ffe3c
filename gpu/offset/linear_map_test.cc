#include "gpu/offset/linear_map.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "gpu/kernels/cuda_test_device.h"
#include "gpu/offset/testing_rows.h"
#include "gtest/gtest.h"

namespace kedge::offset {
namespace {

constexpr int64_t kLayers = 3, kWidth = 6;

// Offsets that are a linear function of the base, of rank 2, and a constant.
KvRows LinearOffset(const KvRows& base) {
  KvRows offset = KvRows::Of(base.layers, base.tokens, base.width);
  for (int64_t layer = 1; layer < base.layers; ++layer) {
    for (int64_t token = 0; token < base.tokens; ++token) {
      const float a = base.Key(layer, token)[0] - 2 * base.Value(layer, token)[1];
      const float b = base.Key(layer, token)[2] + static_cast<float>(layer);
      for (int64_t i = 0; i < base.width; ++i) {
        offset.Key(layer, token)[i] = a * static_cast<float>(i + 1) + b;
        offset.Value(layer, token)[i] = b * static_cast<float>(i) - a;
      }
    }
  }
  return offset;
}

LinearFit Fitted(const LinearOptions& options, int runs, uint32_t seed = 0) {
  LinearFit fit(kLayers, kWidth, options);
  for (int i = 0; i < runs; ++i) {
    const KvRows base = RandomRows(kLayers, 12 + i, kWidth, seed + static_cast<uint32_t>(i));
    fit.Update(base, LinearOffset(base));
  }
  return fit;
}

TEST(LinearMap, FindsALinearOffsetOfRunsOfAnyLength) {
  const LinearMap map = Fitted({.ridge = 1e-9}, 8).Solve();
  const KvRows unseen = RandomRows(kLayers, 31, kWidth, 500);
  EXPECT_LT(ErrorOf(map.Predict(unseen), LinearOffset(unseen)).share(), 1e-8);
}

TEST(LinearMap, ALowRankIsEnoughWhereTheOffsetHasIt) {
  const KvRows unseen = RandomRows(kLayers, 31, kWidth, 500);
  const auto share = [&](int64_t rank) {
    const LinearMap map = Fitted({.ridge = 1e-9, .rank = rank}, 8).Solve();
    return ErrorOf(map.Predict(unseen), LinearOffset(unseen)).share();
  };
  EXPECT_LT(share(2), 1e-6);
  EXPECT_GT(share(1), 1e-3);
}

TEST(LinearMap, PartsMergeToTheWhole) {
  LinearFit left = Fitted({}, 3), whole = Fitted({}, 3);
  const LinearFit right = Fitted({}, 4, 100);
  left.Merge(right);
  for (int i = 0; i < 4; ++i) {
    const KvRows base = RandomRows(kLayers, 12 + i, kWidth, 100 + static_cast<uint32_t>(i));
    whole.Update(base, LinearOffset(base));
  }
  EXPECT_EQ(left.tokens(), whole.tokens());
  EXPECT_EQ(left.runs(), 7);
  const KvRows unseen = RandomRows(kLayers, 9, kWidth, 500);
  const KvRows a = left.Solve().Predict(unseen), b = whole.Solve().Predict(unseen);
  for (size_t i = 0; i < a.keys.size(); ++i) EXPECT_NEAR(a.keys[i], b.keys[i], 1e-5);
}

TEST(LinearMap, IsOfConstantSize) { EXPECT_EQ(Fitted({}, 1).bytes(), Fitted({}, 9).bytes()); }

TEST(LinearMap, ForgetsWhatNoLongerHolds) {
  LinearFit fit(kLayers, kWidth, {.ridge = 1e-6, .forget = 0.5});
  for (uint32_t i = 0; i < 40; ++i) {
    const KvRows base = RandomRows(kLayers, 20, kWidth, i);
    KvRows offset = LinearOffset(base);
    if (i < 20) {
      for (float& value : offset.keys) value = -value;
    }
    fit.Update(base, offset);
  }
  const KvRows unseen = RandomRows(kLayers, 9, kWidth, 500);
  EXPECT_LT(ErrorOf(fit.Solve().Predict(unseen), LinearOffset(unseen)).share(), 1e-3);
}

TEST(LinearMap, KnowingNothingItSaysNothing) {
  const LinearFit fit(kLayers, kWidth, {});
  const KvRows offset = fit.Solve().Predict(RandomRows(kLayers, 4, kWidth, 1));
  for (float value : offset.keys) EXPECT_EQ(value, 0);
}

#if KEDGE_CUDA

using LinearMapCudaTest = kernels::CudaTwin;

TEST_F(LinearMapCudaTest, AgreesWithTheCpu) {
  constexpr int64_t kTokens = 31;
  const KvRows base = RandomRows(kLayers, kTokens, kWidth, 500);
  const auto rows_of = [&](std::span<const float> first) {
    return std::vector<float>(first.data(), first.data() + kTokens * kWidth);
  };
  const auto copied = [](std::span<const float> values) {
    return std::vector<float>(values.begin(), values.end());
  };
  for (const int64_t rank : {0, 2}) {
    const LinearMap map = Fitted({.ridge = 1e-9, .rank = rank}, 8).Solve();
    ASSERT_EQ(map.rank(), rank);
    const KvRows offset = map.Predict(base);
    for (int64_t layer = 1; layer < kLayers; ++layer) {
      const LinearMapArgs args{.keys = ToGpu(rows_of(base.Key(layer, 0))),
                               .values = ToGpu(rows_of(base.Value(layer, 0))),
                               .in = ToGpu(copied(map.in(layer))),
                               .out = rank == 0 ? nullptr : ToGpu(copied(map.out(layer))),
                               .tokens = kTokens,
                               .width = kWidth,
                               .rank = rank,
                               .scratch = Room<float>(kTokens * std::max<int64_t>(rank, 1)),
                               .key_offsets = Room<float>(kTokens * kWidth),
                               .value_offsets = Room<float>(kTokens * kWidth)};
      LinearMapCuda(args, stream());
      const auto expect = [&](float* actual, const std::vector<float>& expected) {
        float largest = 0;
        for (const float value : expected) largest = std::max(largest, std::abs(value));
        const std::vector<float> found = FromGpu(actual, expected.size());
        for (size_t i = 0; i < expected.size(); ++i)
          ASSERT_NEAR(found[i], expected[i], 1e-5 * largest) << "rank " << rank << " at " << i;
      };
      expect(args.key_offsets, rows_of(offset.Key(layer, 0)));
      expect(args.value_offsets, rows_of(offset.Value(layer, 0)));
    }
  }
}

#endif  // KEDGE_CUDA

}  // namespace
}  // namespace kedge::offset
