#include "gpu/codec/archive.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "gpu/codec/codec_chain.h"
#include "gpu/codec/kivi_rans.h"
#include "gpu/codec/kivi_rans_codec.h"
#include "gpu/codec/part_header.h"
#include "gpu/kernels/cast.h"
#include "proto/model_profile.h"

namespace kedge::codec {
namespace {

constexpr uint16_t kLayers = 2;
constexpr uint16_t kHeads = 2;
constexpr uint16_t kSize = 32;
constexpr int kWidth = kHeads * kSize;

KvShape AShape() { return KvShape::KeysAndValues(kLayers, kHeads, kSize, 64, DType::kBf16); }

ProfiledModel AModel() {
  return {.weights_id = "w",
          .adapter_id = "",
          .rope_scaling = "",
          .rope_theta = 10000,
          .layers = kLayers,
          .kv_heads = kHeads,
          .head_size = kSize,
          .dtype = DType::kBf16};
}

// Components are channels; all are kept with this step.
ArchiveBases UnitBases() {
  ArchiveBases bases{.layers = kLayers, .kv_heads = kHeads, .head_size = kSize, .parts = {}};
  for (int part = 0; part < kLayers * 2; ++part) {
    ArchiveBasis basis{.mean = std::vector<float>(kWidth, 0.25f),
                       .analysis = std::vector<float>(kWidth * kWidth),
                       .synthesis = std::vector<float>(kWidth * kWidth)};
    for (int i = 0; i < kWidth; ++i)
      basis.analysis[i * kWidth + i] = basis.synthesis[i * kWidth + i] = 1.0f;
    bases.parts.push_back(basis);
  }
  return bases;
}

ArchivePoint PointOf(float step, int kept) {
  ArchivePoint point{
      .layers = kLayers, .width = kWidth, .rounding = 0.5f, .classes = {}, .parts = {}};
  ArchiveClass& c = point.classes.emplace_back();
  std::vector<uint64_t> counts(kArchiveSymbols);
  for (int i = 0; i < kArchiveSymbols; ++i)
    counts[i] = static_cast<uint64_t>(1e6 * std::exp(-std::abs(i - kArchiveCodeMax) / 8.0));
  const std::vector<uint16_t> shares = RansTable::SharesOf(counts);
  std::copy(shares.begin(), shares.end(), c.shares.begin());
  for (int i = 0; i < kArchiveEscape; ++i) c.points[i] = static_cast<float>(i - kArchiveCodeMax);
  for (int part = 0; part < kLayers * 2; ++part) {
    auto& components = point.parts.emplace_back();
    for (int i = 0; i < kept; ++i)
      components.push_back({.component = static_cast<uint16_t>(i), .of_class = 0, .step = step});
  }
  return point;
}

ModelProfile ProfileOf(const ArchiveBases& bases, const ArchivePoint& point) {
  KiviCounts counts(kLayers * 2);
  for (auto& part : counts) {
    for (auto& stream : part) stream[0] = 100;
  }
  auto profile = ModelProfile::Make(AModel(),
                                    {{kPcaSection, bases.Encode()},
                                     {"entropy/archive2", point.Encode()},
                                     {"entropy/kivi2g32+rans", EncodeKiviTables(counts)}},
                                    {});
  EXPECT_TRUE(profile.ok()) << profile.status();
  return *std::move(profile);
}

CodecChain ChainOf(const ModelProfile& profile, std::string_view name = "archive2") {
  auto chain = CodecChain::Parse(name, &profile);
  EXPECT_TRUE(chain.ok()) << chain.status();
  return *std::move(chain);
}

std::vector<uint8_t> RandomPart(uint32_t seed, float deviation) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, deviation);
  std::vector<float> values(64 * kWidth);
  for (float& v : values) v = normal(random);
  std::vector<uint8_t> part(values.size() * 2);
  kernels::CastFromFloat(DType::kBf16, values.data(), static_cast<int64_t>(values.size()),
                         part.data());
  return part;
}

std::vector<float> Floats(std::span<const uint8_t> part) {
  std::vector<float> values(part.size() / 2);
  kernels::CastToFloat(DType::kBf16, part.data(), static_cast<int64_t>(values.size()),
                       values.data());
  return values;
}

std::vector<uint8_t> Encoded(const CodecChain& chain, const PartTask& task, bool start,
                             std::span<const uint8_t> raw) {
  std::vector<uint8_t> out(*chain.MaxPartBytes(task.shape, task.component, start));
  const auto used = chain.EncodePart(task, start, raw, out);
  EXPECT_TRUE(used.ok()) << used.status();
  out.resize(used.value_or(0));
  return out;
}

absl::Status Decode(const CodecChain& chain, const PartTask& task, std::span<const uint8_t> encoded,
                    std::vector<uint8_t>& out) {
  const std::span<uint8_t> page = out;
  return chain.DecodePart(task, encoded, {{&page, 1}, 64});
}

bool Says(const absl::Status& s, std::string_view text) {
  return std::string(s.message()).find(text) != std::string::npos;
}

TEST(Archive, SectionsComeBack) {
  const ArchiveBases bases = UnitBases();
  const auto read = ArchiveBases::Parse(bases.Encode());
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->Encode(), bases.Encode());
  const ArchivePoint point = PointOf(0.125f, 40);
  const auto back = ArchivePoint::Parse(point.Encode());
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->Encode(), point.Encode());
  EXPECT_EQ(back->parts[3][39].component, 39);
}

TEST(Archive, NoTruncatedSectionIsRead) {
  const std::vector<uint8_t> bases = UnitBases().Encode();
  for (size_t size = 0; size < bases.size(); size += 61)
    EXPECT_FALSE(ArchiveBases::Parse(std::span<const uint8_t>(bases).first(size)).ok()) << size;
  const std::vector<uint8_t> point = PointOf(1, 40).Encode();
  for (size_t size = 0; size < point.size(); ++size)
    EXPECT_FALSE(ArchivePoint::Parse(std::span<const uint8_t>(point).first(size)).ok()) << size;
}

// With every channel kept, the error is at most half a step and bf16's rounding.
TEST(Archive, ErrorIsWithinHalfAStep) {
  const ModelProfile profile = ProfileOf(UnitBases(), PointOf(0.125f, kWidth));
  const CodecChain chain = ChainOf(profile);
  EXPECT_EQ(chain.fidelity(), Fidelity::kQuantized);
  EXPECT_FALSE(chain.fixed_size());
  for (const bool start : {false, true}) {
    for (const Component component : {Component::kK, Component::kV}) {
      const PartTask task{.shape = AShape(), .layer = 1, .component = component};
      // Some are far beyond 31 steps: escapes.
      const std::vector<uint8_t> raw = RandomPart(7, 2.0f);
      const std::vector<uint8_t> encoded = Encoded(chain, task, start, raw);
      std::vector<uint8_t> out(raw.size());
      ASSERT_TRUE(Decode(chain, task, encoded, out).ok());
      const std::vector<float> one = Floats(raw);
      const std::vector<float> two = Floats(out);
      for (size_t i = 0; i < one.size(); ++i) {
        if (start && i < 4 * kWidth) {
          EXPECT_EQ(one[i], two[i]) << i;
        } else {
          EXPECT_NEAR(one[i], two[i], 0.0626f + std::abs(one[i]) / 128) << i;
        }
      }
    }
  }
}

TEST(Archive, LeftOutComponentsAreTheMean) {
  const ModelProfile profile = ProfileOf(UnitBases(), PointOf(0.5f, 0));
  const CodecChain chain = ChainOf(profile);
  const PartTask task{.shape = AShape(), .layer = 0, .component = Component::kV};
  const std::vector<uint8_t> raw = RandomPart(8, 1.0f);
  const std::vector<uint8_t> encoded = Encoded(chain, task, false, raw);
  EXPECT_EQ(encoded.size(), size_t{kPartHeaderBytes});
  std::vector<uint8_t> out(raw.size());
  ASSERT_TRUE(Decode(chain, task, encoded, out).ok());
  for (float v : Floats(out)) EXPECT_EQ(v, 0.25f);
}

TEST(Archive, DamageIsAnErrorAndTouchesNoPage) {
  const ModelProfile profile = ProfileOf(UnitBases(), PointOf(0.25f, 20));
  const CodecChain chain = ChainOf(profile);
  const PartTask task{.shape = AShape(), .layer = 0, .component = Component::kK};
  const std::vector<uint8_t> good = Encoded(chain, task, false, RandomPart(9, 3.0f));
  const std::vector<uint8_t> untouched(64 * kWidth * 2, 0xab);
  for (size_t size = 0; size < good.size(); size += 5) {
    std::vector<uint8_t> out = untouched;
    const absl::Status s = Decode(chain, task, std::span<const uint8_t>(good).first(size), out);
    EXPECT_FALSE(s.ok()) << size;
    EXPECT_TRUE(Says(s, "layer 0 k")) << s;
    EXPECT_EQ(out, untouched) << size;
  }
  std::vector<uint8_t> longer = good;
  longer.push_back(0);
  longer.push_back(1);
  std::vector<uint8_t> out = untouched;
  EXPECT_TRUE(Says(Decode(chain, task, longer, out), "2 bytes are left over"));
}

TEST(Archive, OtherTablesAreNamed) {
  const ModelProfile one = ProfileOf(UnitBases(), PointOf(0.25f, 20));
  const ModelProfile two = ProfileOf(UnitBases(), PointOf(0.26f, 20));
  const PartTask task{.shape = AShape(), .layer = 0, .component = Component::kK};
  const std::vector<uint8_t> encoded = Encoded(ChainOf(one), task, false, RandomPart(9, 3.0f));
  std::vector<uint8_t> out(64 * kWidth * 2);
  const absl::Status s = Decode(ChainOf(two), task, encoded, out);
  EXPECT_TRUE(Says(s, "tables of the profile")) << s;
}

TEST(Archive, NeedsItsProfileAndItsShape) {
  const absl::Status none = CodecChain::Parse("archive2").status();
  EXPECT_EQ(none.code(), absl::StatusCode::kFailedPrecondition) << none;
  const ModelProfile profile = ProfileOf(UnitBases(), PointOf(0.25f, 20));
  const absl::Status other = CodecChain::Parse("archive3", &profile).status();
  EXPECT_EQ(other.code(), absl::StatusCode::kFailedPrecondition) << other;
  EXPECT_TRUE(Says(other, "entropy/archive3")) << other;
  EXPECT_EQ(CodecChain::Parse("archive2x", &profile).status().code(),
            absl::StatusCode::kInvalidArgument);
  KvShape shape = AShape();
  shape.head_size = 64;
  EXPECT_TRUE(Says(ChainOf(profile).Supports(shape), "head_size: 64, the profile has 32"));
  shape = AShape();
  shape.layer_begin = 1;
  EXPECT_TRUE(Says(ChainOf(profile).Supports(shape), "layers: 3, the profile has 2"));
}

// The codes come back to the last bit: what kivi2g32 would have given.
TEST(KiviRans, IsLosslessOverKivi) {
  const ModelProfile profile = ProfileOf(UnitBases(), PointOf(0.25f, 20));
  const CodecChain rans = ChainOf(profile, "kivi2g32+rans");
  const CodecChain kivi = *CodecChain::Parse("kivi2g32");
  for (const bool start : {false, true}) {
    for (const Component component : {Component::kK, Component::kV}) {
      const PartTask task{.shape = AShape(), .layer = 1, .component = component};
      const std::vector<uint8_t> raw = RandomPart(10, 1.0f);
      std::vector<uint8_t> one(raw.size());
      std::vector<uint8_t> two(raw.size());
      ASSERT_TRUE(Decode(kivi, task, Encoded(kivi, task, start, raw), one).ok());
      const absl::Status s = Decode(rans, task, Encoded(rans, task, start, raw), two);
      ASSERT_TRUE(s.ok()) << s;
      EXPECT_EQ(one, two);
    }
  }
}

TEST(KiviRans, TruncationIsAnError) {
  const ModelProfile profile = ProfileOf(UnitBases(), PointOf(0.25f, 20));
  const CodecChain chain = ChainOf(profile, "kivi2g32+rans");
  const PartTask task{.shape = AShape(), .layer = 1, .component = Component::kV};
  const std::vector<uint8_t> good = Encoded(chain, task, false, RandomPart(11, 1.0f));
  for (size_t size = 0; size < good.size(); size += 7) {
    std::vector<uint8_t> out(64 * kWidth * 2);
    EXPECT_FALSE(Decode(chain, task, std::span<const uint8_t>(good).first(size), out).ok());
  }
}

}  // namespace
}  // namespace kedge::codec
