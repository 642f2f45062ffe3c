#include "gpu/codec/kivi.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "gpu/codec/cuda_test_part.h"
#include "gpu/kernels/cast.h"
#include "gpu/kernels/random_floats.h"

namespace kedge::codec {
namespace {

using kernels::RandomFloats;

KiviLayout Layout(int bits, int64_t group, GroupAxis axis, int64_t tokens, int64_t heads,
                  int64_t head_size, GroupScales scales = GroupScales::kF16) {
  auto layout = MakeKiviLayout(bits, group, axis, tokens, heads, head_size, scales);
  EXPECT_TRUE(layout.ok()) << layout.status();
  return *layout;
}

SourceRows F32Source(const std::vector<float>& values) {
  return {.dtype = DType::kF32, .data = reinterpret_cast<const uint8_t*>(values.data())};
}

std::vector<float> DecodeF32(const KiviLayout& layout, const std::vector<uint8_t>& in) {
  std::vector<float> values(layout.tokens * layout.channels());
  std::vector<uint8_t*> rows(layout.tokens);
  for (int64_t t = 0; t < layout.tokens; ++t)
    rows[t] = reinterpret_cast<uint8_t*>(values.data() + t * layout.channels());
  KiviDecode(layout, in.data(), {.dtype = DType::kF32, .rows = rows.data()});
  return values;
}

template <typename T>
T At(const std::vector<uint8_t>& bytes, int64_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

// The authors' packing of x = 0..31, computed with an f16 scale.
TEST(Kivi, GoldenVectors) {
  std::vector<float> ramp(32);
  for (int i = 0; i < 32; ++i) ramp[i] = static_cast<float>(i);
  const std::vector<std::pair<int, std::vector<uint32_t>>> golden = {
      {2, {0x55555000, 0xFFFAAAAA}},
      {4, {0x33221100, 0x77665544, 0xBBAA9988, 0xFFEEDDCC}},
  };
  for (const auto& [bits, words] : golden) {
    for (const bool scalar : {true, false}) {
      // One token of one head over channels; then 32 tokens of 32 equal channels.
      const KiviLayout over_channels = Layout(bits, 32, GroupAxis::kChannels, 1, 1, 32);
      std::vector<uint8_t> out(over_channels.bytes());
      ASSERT_TRUE(scalar ? KiviEncodeScalar(over_channels, F32Source(ramp), out.data())
                         : KiviEncode(over_channels, F32Source(ramp), out.data()));
      EXPECT_EQ(At<uint16_t>(out, 0), bits == 2 ? 0x492b : 0x4022);  // 10.3359375, 2.06640625
      EXPECT_EQ(At<uint16_t>(out, over_channels.minimums_at()), 0);
      for (size_t w = 0; w < words.size(); ++w)
        EXPECT_EQ(At<uint32_t>(out, over_channels.codes_at() + 4 * w), words[w]);

      const KiviLayout over_tokens = Layout(bits, 32, GroupAxis::kTokens, 32, 1, 32);
      std::vector<float> columns(32 * 32);
      for (int t = 0; t < 32; ++t) std::fill_n(columns.begin() + t * 32, 32, ramp[t]);
      out.assign(over_tokens.bytes(), 0xee);
      ASSERT_TRUE(scalar ? KiviEncodeScalar(over_tokens, F32Source(columns), out.data())
                         : KiviEncode(over_tokens, F32Source(columns), out.data()));
      for (int64_t c = 0; c < 32; ++c) {
        EXPECT_EQ(At<uint16_t>(out, 2 * c), bits == 2 ? 0x492b : 0x4022);
        for (size_t w = 0; w < words.size(); ++w)
          EXPECT_EQ(At<uint32_t>(out, over_tokens.codes_at() + 4 * (32 * w + c)), words[w]);
      }
    }
  }
}

TEST(Kivi, BytesOfATokenOfLlama8B) {
  for (const auto& [bits, bytes] : {std::pair{2, 24576}, {4, 40960}}) {
    const KiviLayout keys = Layout(bits, 32, GroupAxis::kTokens, 64, 8, 128);
    const KiviLayout values = Layout(bits, 32, GroupAxis::kChannels, 64, 8, 128);
    EXPECT_EQ(32 * (keys.bytes() + values.bytes()) / 64, bytes);
  }
  const auto two_level = [](int bits, GroupAxis axis) {
    return Layout(bits, 32, axis, 64, 8, 128, GroupScales::kTwoLevel).bytes();
  };
  // 2 bits and 8 + 8 for 32 values; 32 bits for 128 * 32 values.
  EXPECT_EQ(two_level(2, GroupAxis::kTokens), 64 * 1024 * 2.5 / 8 + 64);
  EXPECT_EQ(two_level(4, GroupAxis::kChannels), 64 * 1024 * 4.5 / 8 + 64);
}

// Words worked out by hand: m = 4 (of the minimum -4), s = f16 up of 12 * 65536 / 65025 / 3.
TEST(Kivi, TwoLevelGoldenVector) {
  const KiviLayout layout = Layout(2, 32, GroupAxis::kChannels, 2, 1, 32, GroupScales::kTwoLevel);
  std::vector<float> values(64, 2.5f);  // the second token: equal values
  for (int i = 0; i < 32; ++i) values[i] = static_cast<float>(i % 4) * 4.0f - 4.0f;
  for (const bool scalar : {true, false}) {
    std::vector<uint8_t> out(layout.bytes(), 0xee);
    ASSERT_TRUE(scalar ? KiviEncodeScalar(layout, F32Source(values), out.data())
                       : KiviEncode(layout, F32Source(values), out.data()));
    EXPECT_EQ(layout.unions(), 1);
    EXPECT_EQ(At<uint16_t>(out, 0), 0x4409);                     // 4.03515625
    EXPECT_EQ(At<uint16_t>(out, layout.minimums_at()), 0x4400);  // 4
    EXPECT_EQ(out[layout.scale_codes_at()], 255);
    EXPECT_EQ(out[layout.scale_codes_at() + 1], 0);
    EXPECT_EQ(out[layout.minimum_codes_at()], 0x80);              // -128
    EXPECT_EQ(At<uint32_t>(out, layout.codes_at()), 0xe4e4e4e4);  // 0, 1, 2, 3, ...
    EXPECT_EQ(At<uint32_t>(out, layout.codes_at() + 8), 0x4100);  // f16 of 2.5
    EXPECT_EQ(layout.bytes(), 2 + 2 + 2 + 2 + 16);
    const std::vector<float> back = DecodeF32(layout, out);
    for (int i = 0; i < 32; ++i) EXPECT_NEAR(back[i], values[i], 0.02);
    for (int i = 32; i < 64; ++i) EXPECT_EQ(back[i], 2.5f);
  }
}

struct Case {
  int bits;
  int64_t group;
  GroupAxis axis;
  int64_t tokens, heads, head_size;
  DType dtype;
  bool turned;
  int64_t skip;
  GroupScales scales;
  bool hadamard;
};

// Shapes that fit vectors and shapes that do not, all types, with zeros of both signs and groups of
// one value.
std::vector<Case> Cases() {
  constexpr auto kKeys = GroupAxis::kTokens, kValues = GroupAxis::kChannels;
  std::vector<Case> cases;
  const auto add = [&](int bits, DType dtype, int64_t skip, GroupScales scales, bool had) {
    for (bool turned : {false, true}) {
      cases.push_back({bits, 32, kKeys, 64, 2, 64, dtype, turned, skip, scales, had});
      cases.push_back({bits, 64, kKeys, 64, 3, 20, dtype, turned, skip, scales, had});
      cases.push_back({bits, 128, kKeys, 128, 1, 32, dtype, turned, skip, scales, had});
    }
    cases.push_back({bits, 32, kKeys, 32, 2, 96, dtype, true, skip, scales, had});
    cases.push_back({bits, 32, kValues, 33, 3, 96, dtype, false, skip, scales, had});
    cases.push_back({bits, 64, kValues, 32, 2, 64, dtype, false, skip, scales, had});
    cases.push_back({bits, 128, kValues, 5, 20, 128, dtype, false, skip, scales, had});
    cases.push_back({bits, 32, kValues, 8, 1, 32, dtype, true, skip, scales, had});
    cases.push_back({bits, 128, kValues, 5, 1, 256, dtype, false, skip, scales, had});
  };
  for (int bits : {2, 4, 8}) {
    for (DType dtype : {DType::kF32, DType::kF16, DType::kBf16}) {
      for (int64_t skip : {0, 4}) {
        for (const GroupScales scales : {GroupScales::kF16, GroupScales::kTwoLevel}) {
          for (bool had : {false, true}) add(bits, dtype, skip, scales, had);
        }
      }
    }
  }
  return cases;
}

TEST(Kivi, VectorsGiveTheBitsOfTheSpecification) {
  uint64_t seed = 1;
  for (const Case& c : Cases()) {
    SCOPED_TRACE(testing::Message()
                 << c.bits << " bits, group " << c.group << ", tokens " << c.tokens << ", head "
                 << c.head_size << " " << DTypeName(c.dtype) << " turned " << c.turned << " skip "
                 << c.skip << " two-level " << (c.scales == GroupScales::kTwoLevel) << " hadamard "
                 << c.hadamard);
    const KiviLayout layout =
        Layout(c.bits, c.group, c.axis, c.tokens, c.heads, c.head_size, c.scales);
    const int64_t count = c.tokens * layout.channels();
    std::vector<float> values = RandomFloats(count, ++seed);
    for (int64_t i = 0; i < count; ++i) {
      if (i % 7 == 0) values[i] *= 1000.0f;
      if (i % 5 == 0) values[i] *= 1e-6f;
      if (i % 11 == 0) values[i] = i % 2 == 0 ? 0.0f : -0.0f;
      if (i % layout.channels() == 3) values[i] = -0.0f;
      if (i % layout.channels() < 2) values[i] = 2.1f;
      if (i / layout.channels() == 4 && i % layout.channels() >= c.head_size / 2)
        values[i] = -3e-6f;
    }
    std::vector<uint8_t> raw(count * kernels::FloatBytes(c.dtype));
    kernels::CastFromFloat(c.dtype, values.data(), count, raw.data());
    const kernels::RopeTable rope =
        kernels::MakeRopeTable(kernels::RopeFrequencies(c.head_size, 10000.0f, {}), 1000, c.tokens);
    const kernels::RopeTable* table = c.turned ? &rope : nullptr;

    std::vector<uint8_t> expected(layout.bytes(), 0xaa), actual(layout.bytes(), 0x55);
    const SourceRows source{c.dtype, raw.data(), table, c.skip, c.hadamard};
    ASSERT_TRUE(KiviEncodeScalar(layout, source, expected.data()));
    ASSERT_TRUE(KiviEncode(layout, source, actual.data()));
    ASSERT_EQ(actual, expected);
    ASSERT_TRUE(KiviCheck(layout, "p", actual.data()).ok());

    std::vector<uint8_t> scalar_out(raw.size(), 7), vector_out(raw.size(), 7);
    std::vector<uint8_t*> scalar_rows, vector_rows;
    for (int64_t t = 0; t < c.tokens; ++t) {
      scalar_rows.push_back(scalar_out.data() + t * (raw.size() / c.tokens));
      vector_rows.push_back(vector_out.data() + t * (raw.size() / c.tokens));
    }
    KiviDecodeScalar(layout, expected.data(),
                     {c.dtype, scalar_rows.data(), table, c.skip, c.hadamard});
    KiviDecode(layout, expected.data(), {c.dtype, vector_rows.data(), table, c.skip, c.hadamard});
    ASSERT_EQ(vector_out, scalar_out);
    for (size_t i = 0; i < c.skip * (raw.size() / c.tokens); ++i) ASSERT_EQ(vector_out[i], 7);
  }
}

TEST(Kivi, ErrorIsHalfAStep) {
  for (const GroupAxis axis : {GroupAxis::kTokens, GroupAxis::kChannels}) {
    for (int bits : {2, 4, 8, -2, -4, -8}) {  // below 0: two-level
      const GroupScales scales = bits < 0 ? GroupScales::kTwoLevel : GroupScales::kF16;
      bits = std::abs(bits);
      const KiviLayout layout = Layout(bits, 32, axis, 64, 2, 64, scales);
      const std::vector<float> values = RandomFloats(64 * 128, 5);
      std::vector<uint8_t> out(layout.bytes());
      ASSERT_TRUE(KiviEncode(layout, F32Source(values), out.data()));
      const std::vector<float> back = DecodeF32(layout, out);
      // Half a step of the largest range, 2, and f16's rounding of minimum and scale.
      // Two-level codes near 255 and 128 are 0.8% and 1.6% apart.
      float most = 1.0f / static_cast<float>((1 << bits) - 1) + 2e-3f;
      if (layout.two_level()) most = most * 1.01f + 0.008f / static_cast<float>((1 << bits) - 1);
      float seen = 0.0f;
      for (size_t i = 0; i < values.size(); ++i)
        seen = std::max(seen, std::abs(back[i] - values[i]));
      EXPECT_LE(seen, most);
      EXPECT_GT(seen, most / 4);
    }
  }
}

TEST(Kivi, GroupsWithoutRangeAreExact) {
  for (const GroupAxis axis : {GroupAxis::kTokens, GroupAxis::kChannels}) {
    for (float value : {0.0f, -1.5f, 65504.0f, -65504.0f, 0x1p-24f, 3.140625f}) {
      for (const GroupScales scales : {GroupScales::kF16, GroupScales::kTwoLevel}) {
        const KiviLayout layout = Layout(2, 32, axis, 32, 1, 64, scales);
        std::vector<float> values(32 * 64, value);
        // Neighbours that are not equal change nothing for those that are.
        const auto is_other = [&](int i) {
          return axis == GroupAxis::kTokens ? i % 64 == 7 : i < 2 * 32;
        };
        for (int i = 0; i < 32 * 64; ++i)
          if (is_other(i)) values[i] = static_cast<float>(i % 5) - 1.0f;
        std::vector<uint8_t> out(layout.bytes());
        ASSERT_TRUE(KiviEncode(layout, F32Source(values), out.data()));
        const std::vector<float> back = DecodeF32(layout, out);
        for (int i = 0; i < 32 * 64; ++i) {
          if (is_other(i)) continue;
          ASSERT_EQ(back[i], value) << i;
        }
      }
    }
  }
}

TEST(Kivi, FindsWhatCannotBeQuantized) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const GroupAxis axis : {GroupAxis::kTokens, GroupAxis::kChannels}) {
    const KiviLayout layout = Layout(4, 32, axis, 64, 1, 32);
    for (float bad : {kNan, kInfinity, -kInfinity, 65505.0f, -1e30f, 3.4e38f}) {
      for (int64_t token : {4, 37, 63}) {
        std::vector<float> values = RandomFloats(64 * 32, 3);
        values[token * 32 + token % 32] = bad;
        std::vector<uint8_t> out(layout.bytes());
        EXPECT_FALSE(KiviEncode(layout, F32Source(values), out.data())) << bad;
        EXPECT_FALSE(KiviEncodeScalar(layout, F32Source(values), out.data())) << bad;
        EXPECT_EQ(FirstBadToken(F32Source(values), 64, 1, 32), token);
        SourceRows skipping = F32Source(values);
        skipping.skip = 5;
        EXPECT_EQ(KiviEncode(layout, skipping, out.data()), token == 4);
      }
    }
  }
}

TEST(Kivi, RefusesGroupsThatDoNotDivide) {
  const auto message = [](int bits, int64_t group, GroupAxis axis) {
    return std::string(MakeKiviLayout(bits, group, axis, 64, 8, 96).status().message());
  };
  EXPECT_EQ(message(2, 128, GroupAxis::kTokens), "group: 128 does not divide block_tokens 64");
  EXPECT_EQ(message(2, 64, GroupAxis::kChannels), "group: 64 does not divide head_size 96");
  EXPECT_EQ(message(3, 32, GroupAxis::kTokens), "bits: 3 is none of 2, 4, 8");
  EXPECT_EQ(message(2, 16, GroupAxis::kTokens), "group: 16 is none of 32, 64, 128");
}

TEST(Kivi, ChecksScalesAndMinimums) {
  const KiviLayout layout = Layout(2, 32, GroupAxis::kTokens, 32, 1, 33);  // 33 groups: a tail
  for (int64_t group : {0, 5, 32}) {
    for (uint16_t bits : {0x7c00, 0x7e00, 0x8000, 0xbc00, 0xfc00}) {
      std::vector<uint8_t> in(layout.bytes(), 1);
      EXPECT_TRUE(KiviCheck(layout, "p", in.data()).ok());
      std::memcpy(in.data() + group * 2, &bits, 2);
      const std::string text(KiviCheck(layout, "p", in.data()).message());
      EXPECT_NE(text.find("part p: scale of group " + std::to_string(group)), text.npos) << text;
    }
    for (uint16_t bits : {0x7c00, 0xfc01}) {
      std::vector<uint8_t> in(layout.bytes(), 1);
      std::memcpy(in.data() + layout.minimums_at() + group * 2, &bits, 2);
      const std::string text(KiviCheck(layout, "p", in.data()).message());
      EXPECT_NE(text.find("part p: minimum of group " + std::to_string(group)), text.npos) << text;
    }
  }
}

TEST(Kivi, ChecksTwoLevelScales) {
  for (const GroupAxis axis : {GroupAxis::kTokens, GroupAxis::kChannels}) {
    const KiviLayout layout = Layout(4, 32, axis, 64, 3, 32, GroupScales::kTwoLevel);
    const auto message = [&](int64_t at, uint16_t bits, int64_t zero_code = -1) {
      std::vector<uint8_t> in(layout.bytes(), 1);
      if (zero_code >= 0) in[layout.scale_codes_at() + zero_code] = 0;
      std::memcpy(in.data() + at, &bits, 2);
      return std::string(KiviCheck(layout, "p", in.data()).message());
    };
    EXPECT_EQ(message(0, 0x101), "");
    EXPECT_EQ(message(2, 0x7c00), "part p: scale of head 1: inf is negative or not finite");
    EXPECT_EQ(message(4, 0xbc00), "part p: scale of head 2: -1 is negative or not finite");
    EXPECT_EQ(message(layout.minimums_at(), 0x8001),
              "part p: minimum of head 0: -5.96046e-08 is negative or not finite");
    const int64_t value_at = layout.codes_at() + layout.word_of_group(100) * 4;
    EXPECT_EQ(message(value_at, 0xfc00), "");  // codes, where the group has a scale
    EXPECT_EQ(message(value_at, 0x3c00, 100), "");
    EXPECT_EQ(message(value_at, 0xfc00, 100), "part p: value of group 100: -inf is not finite");
  }
}

#if KEDGE_CUDA

using KiviCudaTest = CodecCudaTest;

TEST_F(KiviCudaTest, KiviHasTheBitsOfTheCpu) {
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBf16}) {
    Fill(dtype);
    for (int bits : {2, 4, 8}) {
      for (const GroupAxis axis : {GroupAxis::kTokens, GroupAxis::kChannels}) {
        for (int64_t skip : {0, 4, -1, -5}) {  // below 0: two-level scales
          const GroupScales scales = skip < 0 ? GroupScales::kTwoLevel : GroupScales::kF16;
          if (skip < 0) skip = -skip - 1;
          const KiviLayout layout =
              *MakeKiviLayout(bits, 32, axis, kTokens, kHeads, kHeadSize, scales);
          std::vector<uint8_t> expected(layout.bytes());
          ASSERT_TRUE(KiviEncode(layout, {dtype, raw_.data(), &rope_, skip}, expected.data()));
          uint8_t* out = Room<uint8_t>(expected.size());
          int* bad = ToGpu(std::vector<int>{0});
          const float* cos = ToGpu(rope_.cos);
          const float* sin = ToGpu(rope_.sin);
          KiviEncodeCuda(layout, dtype, ToGpu(raw_), cos, sin, skip, out, bad, stream());
          ASSERT_EQ(FromGpu(out, expected.size()), expected);
          ASSERT_EQ(FromGpu(bad, 1)[0], 0);

          std::vector<uint8_t> back(raw_.size());
          const std::vector<uint8_t*> rows = Rows(back.data());
          KiviDecode(layout, expected.data(), {dtype, rows.data(), &rope_, skip});
          uint8_t* pages = ToGpu(std::vector<uint8_t>(raw_.size()));
          KiviDecodeCuda(layout, out, dtype, ToGpu(Rows(pages)), cos, sin, skip, stream());
          ASSERT_EQ(FromGpu(pages, raw_.size()), back);
        }
      }
    }
  }
}

TEST_F(KiviCudaTest, ReportsWhatCannotBeQuantized) {
  Fill(DType::kF16);
  raw_[raw_.size() / 2 + 1] = 0x7e;  // NaN
  const KiviLayout layout =
      *MakeKiviLayout(4, 32, GroupAxis::kChannels, kTokens, kHeads, kHeadSize);
  int* bad = ToGpu(std::vector<int>{0});
  KiviEncodeCuda(layout, DType::kF16, ToGpu(raw_), nullptr, nullptr, 0,
                 Room<uint8_t>(layout.bytes()), bad, stream());
  EXPECT_EQ(FromGpu(bad, 1)[0], 1);
}

#endif  // KEDGE_CUDA

}  // namespace
}  // namespace kedge::codec
