#include "gpu/codec/codec_chain.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "gpu/kernels/cast.h"
#include "gpu/kernels/random_floats.h"

namespace kedge::codec {
namespace {

const std::vector<std::string> kLossy = {"fp8",          "kivi8g32",   "kivi4g32",
                                         "kivi2g32",     "kivi4g64",   "kivi2g32s8",
                                         "had+kivi2g32", "kivi8g32s8", "had+kivi4g64s8"};

KvShape Shape(DType dtype = DType::kF16) {
  KvShape shape = KvShape::KeysAndValues(4, 2, 64, 64, dtype);
  shape.layer_begin = 8;
  return shape;
}

CodecChain Chain(const std::string& name) {
  auto chain = CodecChain::Parse(name);
  EXPECT_TRUE(chain.ok()) << chain.status();
  return *chain;
}

std::vector<uint8_t> RawPart(const KvShape& shape, uint64_t seed) {
  const auto count = static_cast<int64_t>(shape.raw_part_bytes() / DTypeBytes(shape.dtype));
  std::vector<uint8_t> raw(shape.raw_part_bytes());
  kernels::CastFromFloat(shape.dtype, kernels::RandomFloats(count, seed).data(), count, raw.data());
  return raw;
}

kernels::RopeTable Rope(const KvShape& shape, int64_t first) {
  return kernels::MakeRopeTable(kernels::RopeFrequencies(shape.head_size, 10000.0f, {}), first,
                                shape.block_tokens);
}

std::vector<uint8_t> Encode(const std::string& name, const PartTask& task, bool sequence_start,
                            const std::vector<uint8_t>& raw) {
  const CodecChain chain = Chain(name);
  std::vector<uint8_t> out(*chain.MaxPartBytes(task.shape, task.component, sequence_start));
  const absl::StatusOr<uint64_t> bytes = chain.EncodePart(task, sequence_start, raw, out);
  EXPECT_TRUE(bytes.ok()) << bytes.status();
  EXPECT_TRUE(!chain.fixed_size() || bytes.value_or(0) == out.size());
  out.resize(bytes.value_or(0));
  return out;
}

absl::Status Decode(const std::string& name, const PartTask& task,
                    const std::vector<uint8_t>& encoded, std::vector<uint8_t>& out,
                    int64_t page_tokens = 16) {
  out.assign(task.shape.raw_part_bytes(), 0xcd);
  const size_t page_bytes = out.size() / task.shape.block_tokens * page_tokens;
  std::vector<std::span<uint8_t>> pages;
  for (size_t at = 0; at < out.size(); at += page_bytes)
    pages.push_back(std::span<uint8_t>(out).subspan(at, page_bytes));
  return Chain(name).DecodePart(task, encoded, {pages, page_tokens});
}

double MeanError(DType dtype, const std::vector<uint8_t>& a, const std::vector<uint8_t>& b) {
  const auto count = static_cast<int64_t>(a.size()) / kernels::FloatBytes(dtype);
  std::vector<float> x(count), y(count);
  kernels::CastToFloat(dtype, a.data(), count, x.data());
  kernels::CastToFloat(dtype, b.data(), count, y.data());
  double sum = 0.0;
  for (int64_t i = 0; i < count; ++i) sum += std::abs(x[i] - y[i]);
  return sum / static_cast<double>(count);
}

TEST(CodecChain, NamesArePrintedAsParsed) {
  for (const char* name : {"raw", "fp8", "kivi2g32", "kivi4g64", "kivi8g128", "had+kivi2g32",
                           "kivi2g32s8", "had+kivi4g128s8"})
    EXPECT_EQ(Chain(name).name(), name);
  for (const char* name : {"", "kivi", "kivi4", "kivi3g32", "kivi4g16", "had+fp8", "fp8 ",
                           "KIVI4g32", "kivi4g32+raw", "kivi4g32s4", "had+had+kivi2g32"}) {
    const std::string text(CodecChain::Parse(name).status().message());
    EXPECT_NE(text.find("variant: \"" + std::string(name) + "\" is none of raw"), text.npos)
        << text;
  }
  EXPECT_EQ(Chain("raw").fidelity(), Fidelity::kLossless);
  EXPECT_EQ(Chain("fp8").fidelity(), Fidelity::kQuantized);
}

TEST(CodecChain, BytesOfATokenOfLlama8B) {
  const KvShape shape = KvShape::KeysAndValues(32, 8, 128, 64, DType::kF16);
  for (const auto& [name, bytes] : {std::pair{"kivi2g32", 24576}, {"kivi4g32", 40960}}) {
    const uint64_t k = *Chain(name).MaxPartBytes(shape, Component::kK, false);
    const uint64_t v = *Chain(name).MaxPartBytes(shape, Component::kV, false);
    const double token = 32.0 * static_cast<double>(k + v) / 64.0;
    EXPECT_GE(token, bytes);
    EXPECT_LE(token, bytes * 1.01);
    EXPECT_EQ(*Chain(name).MaxPartBytes(shape, Component::kK, true), k + 4 * 8 * 128 * 2);
  }
}

TEST(CodecChain, TwoLevelScalesTakeHalfABitLess) {
  const KvShape shape = KvShape::KeysAndValues(32, 8, 128, 64, DType::kF16);
  for (const auto& [name, bytes] : {std::pair{"kivi2g32s8", 20480}, {"kivi4g32s8", 36864}}) {
    const uint64_t k = *Chain(name).MaxPartBytes(shape, Component::kK, false);
    const uint64_t v = *Chain(name).MaxPartBytes(shape, Component::kV, false);
    EXPECT_GE(32.0 * static_cast<double>(k + v) / 64.0, bytes);
    EXPECT_LE(32.0 * static_cast<double>(k + v) / 64.0, bytes * 1.01);
  }
}

TEST(CodecChain, RefusesShapesItCannotEncode) {
  const auto message = [](const char* name, const KvShape& shape) {
    return std::string(Chain(name).Supports(shape).message());
  };
  EXPECT_EQ(message("kivi2g128", Shape()),
            "variant kivi2g128: group: 128 does not divide block_tokens 64");
  EXPECT_EQ(message("kivi2g64", KvShape::KeysAndValues(1, 1, 96, 64, DType::kF16)),
            "variant kivi2g64: group: 64 does not divide head_size 96");
  EXPECT_EQ(message("fp8", Shape(DType::kU8)), "variant fp8: dtype: u8 is none of f32, f16, bf16");
  EXPECT_EQ(message("fp8", KvShape::Opaque()),
            "variant fp8: shape: opaque bytes cannot be quantized");
  KvShape latent = Shape();
  latent.components = 0b100;
  EXPECT_EQ(message("kivi4g32", latent), "variant kivi4g32: component: latent is neither k nor v");
  EXPECT_TRUE(Chain("raw").Supports(latent).ok());
}

TEST(CodecChain, RoundTrips) {
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBf16}) {
    const KvShape shape = Shape(dtype);
    const kernels::RopeTable rope = Rope(shape, 640);
    for (const Component component : {Component::kK, Component::kV}) {
      const PartTask task{shape, 9, component, &rope};
      const std::vector<uint8_t> raw = RawPart(shape, 3);
      std::vector<uint8_t> back;
      ASSERT_TRUE(Decode("raw", task, Encode("raw", task, false, raw), back).ok());
      EXPECT_EQ(back, raw);
      const auto error = [&](const char* name) {
        const absl::Status s = Decode(name, task, Encode(name, task, false, raw), back);
        EXPECT_TRUE(s.ok()) << s;
        return MeanError(dtype, raw, back);
      };
      // A uniform value's mean error is a quarter of a step.
      EXPECT_LT(error("kivi8g32"), 0.004);
      EXPECT_LT(error("fp8"), 0.02);
      EXPECT_LT(error("kivi4g32"), 0.04);
      EXPECT_LT(error("kivi2g32"), 0.19);
      EXPECT_GT(error("kivi2g32"), 0.1);
      EXPECT_LT(error("had+kivi8g32"), 0.01);
      EXPECT_LT(error("kivi2g32s8"), 0.2);
      EXPECT_LT(error("kivi4g32s8"), 0.045);
    }
  }
}

TEST(CodecChain, KeysAreDecodedWhereTheyAreWanted) {
  const KvShape shape = Shape(DType::kF32);
  const kernels::RopeTable here = Rope(shape, 64);
  const kernels::RopeTable there = Rope(shape, 6400);
  const std::vector<uint8_t> still = RawPart(shape, 4);
  const auto turned = [&](const kernels::RopeTable& rope) {
    std::vector<uint8_t> part = still;
    CpuDevice device(1);
    kernels::Rope(device, rope, 64, 2, 64, 128, reinterpret_cast<float*>(part.data()));
    return part;
  };
  std::vector<uint8_t> back;
  for (const std::string& name : kLossy) {
    const auto part = Encode(name, {shape, 8, Component::kK, &here}, false, turned(here));
    ASSERT_TRUE(Decode(name, {shape, 8, Component::kK, &there}, part, back).ok());
    const double moved = MeanError(DType::kF32, turned(there), back);
    ASSERT_TRUE(Decode(name, {shape, 8, Component::kK, nullptr}, part, back).ok());
    const double unrotated = MeanError(DType::kF32, still, back);
    EXPECT_LT(moved, 1.3 * unrotated + 1e-6) << name;
    EXPECT_LT(unrotated, 0.2) << name;
  }
}

TEST(CodecChain, ASequencesFirstTokensStayBitExact) {
  for (const std::string& name : kLossy) {
    const KvShape shape = Shape();
    const kernels::RopeTable rope = Rope(shape, 0);
    for (const Component component : {Component::kK, Component::kV}) {
      std::vector<uint8_t> raw = RawPart(shape, 5);
      const uint16_t infinity = 0x7c00;  // even this: they are not looked at
      std::memcpy(raw.data() + 10, &infinity, 2);
      const PartTask task{shape, 8, component, &rope};
      std::vector<uint8_t> back;
      const absl::Status s = Decode(name, task, Encode(name, task, true, raw), back, 32);
      ASSERT_TRUE(s.ok()) << s;
      const size_t first = raw.size() / 64 * 4;
      EXPECT_EQ(std::memcmp(raw.data(), back.data(), first), 0) << name;
      EXPECT_NE(std::memcmp(raw.data() + first, back.data() + first, first), 0) << name;
    }
  }
}

TEST(CodecChain, NamesLayerAndTokenOfWhatIsNotFinite) {
  const KvShape shape = Shape();
  const kernels::RopeTable rope = Rope(shape, 0);
  for (const std::string& name : kLossy) {
    std::vector<uint8_t> raw = RawPart(shape, 6);
    const uint16_t nan = 0x7e01;
    std::memcpy(raw.data() + (raw.size() / 64 * 41) + 6, &nan, 2);
    std::vector<uint8_t> out(*Chain(name).MaxPartBytes(shape, Component::kK, true));
    const absl::Status s =
        Chain(name).EncodePart({shape, 10, Component::kK, &rope}, true, raw, out).status();
    const std::string text(s.message());
    EXPECT_NE(text.find("part layer 10 k: token 41: "), text.npos) << name << ": " << text;
  }
}

// Shapes drawn at random: what comes back is near, pages beyond the part are not touched, and a
// second way there and back changes little.
TEST(CodecChain, RandomShapesComeBack) {
  std::mt19937 random(7);
  const auto draw = [&](auto... of) {
    const int all[] = {of...};
    return all[random() % (sizeof all / sizeof all[0])];
  };
  for (int round = 0; round < 60; ++round) {
    const auto dtype = static_cast<DType>(draw(1, 2, 3));
    const KvShape shape =
        KvShape::KeysAndValues(1, static_cast<uint16_t>(draw(1, 2, 3, 5)),
                               static_cast<uint16_t>(draw(32, 64, 96, 128, 160, 256)),
                               static_cast<uint16_t>(draw(32, 64, 96, 128)), dtype);
    const std::string& name = kLossy[random() % kLossy.size()];
    const auto component = draw(0, 1) == 0 ? Component::kK : Component::kV;
    const bool start = draw(0, 1) == 0;
    if (!Chain(name).Supports(shape).ok()) continue;
    SCOPED_TRACE(testing::Message() << name << " " << shape.ToString() << " start " << start);
    const kernels::RopeTable rope = Rope(shape, start ? 0 : draw(64, 640, 64000));
    const PartTask task{shape, 0, component, draw(0, 1) == 0 ? &rope : nullptr};
    const std::vector<uint8_t> raw = RawPart(shape, round);
    std::vector<uint8_t> back, again;
    ASSERT_TRUE(Decode(name, task, Encode(name, task, start, raw), back, 32).ok());
    EXPECT_LT(MeanError(dtype, raw, back), 0.2);
    ASSERT_TRUE(Decode(name, task, Encode(name, task, start, back), again, 32).ok());
    EXPECT_LT(MeanError(dtype, back, again), 0.1);
  }
}

TEST(CodecChain, NoFlippedBitPassesTheDigest) {
  const KvShape shape = KvShape::KeysAndValues(1, 1, 32, 32, DType::kF16);
  const PartTask task{shape, 0, Component::kV};
  for (const std::string& name : kLossy) {
    if (!Chain(name).Supports(shape).ok()) continue;
    const std::vector<uint8_t> part = Encode(name, task, true, RawPart(shape, 9));
    BlockHeader header;
    header.variant = *Variant::Parse(name);
    header.shape = shape;
    for (uint32_t i = 0; i < 2; ++i) {
      header.parts.push_back(
          {static_cast<uint32_t>(part.size()), PartDigest(header.key, header.variant, i, part)});
    }
    std::vector<uint8_t> memory(shape.raw_part_bytes(), 0xcd);
    const std::span<uint8_t> page(memory);
    const auto decode = [&](const PartTask& as, const std::vector<uint8_t>& bytes) {
      return Chain(name).DecodeFetchedPart(header, as, bytes, {{&page, 1}, 32});
    };
    for (size_t bit = 0; bit < part.size() * 8; bit += 5) {
      std::vector<uint8_t> flipped = part;
      flipped[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
      ASSERT_TRUE(absl::IsDataLoss(decode(task, flipped))) << name << " bit " << bit;
    }
    // The right bytes under another part's name, of another chain, of another shape.
    header.parts[1].digest = header.parts[0].digest;
    EXPECT_TRUE(absl::IsDataLoss(decode(task, part))) << name;
    header.parts[1].digest = PartDigest(header.key, header.variant, 1, part);
    KvShape other = shape;
    other.kv_head_begin = 1;
    EXPECT_TRUE(absl::IsInvalidArgument(decode({other, 0, Component::kV}, part)));
    header.variant = Variant::Raw();
    EXPECT_TRUE(absl::IsInvalidArgument(decode(task, part)));
    EXPECT_EQ(memory, std::vector<uint8_t>(memory.size(), 0xcd)) << name;
    header.variant = *Variant::Parse(name);
    EXPECT_TRUE(decode(task, part).ok());
  }
}

TEST(CodecChain, RefusesWhatDoesNotFit) {
  const KvShape shape = Shape();
  kernels::RopeTable rope = Rope(shape, 0);
  const PartTask task{shape, 8, Component::kK, &rope};
  const auto part = Encode("kivi4g32", task, false, RawPart(shape, 7));
  std::vector<uint8_t> out;
  const auto message = [&](const PartTask& t, const std::vector<uint8_t>& bytes,
                           const std::string& name = "kivi4g32") {
    return std::string(Decode(name, t, bytes, out).message());
  };
  // Every length but the right one.
  for (size_t bytes : {size_t{0}, size_t{15}, size_t{16}, part.size() - 1}) {
    const std::vector<uint8_t> cut(part.begin(), part.begin() + bytes);
    EXPECT_NE(message(task, cut).find("part layer 8 k: "), std::string::npos);
  }
  std::vector<uint8_t> longer = part;
  longer.push_back(0);
  EXPECT_NE(message(task, longer).find("encoded bytes: "), std::string::npos);
  // Another chain, component, shape.
  EXPECT_EQ(message(task, part, "fp8"), "part layer 8 k: method: 1, expected 2");
  EXPECT_EQ(message(task, part, "kivi2g32"), "part layer 8 k: bits: 4, expected 2");
  EXPECT_EQ(message(task, part, "kivi4g64"), "part layer 8 k: group: 32, expected 64");
  EXPECT_EQ(message(task, part, "had+kivi4g32"), "part layer 8 k: flags: 0, expected 2");
  EXPECT_EQ(message(task, part, "kivi4g32s8"), "part layer 8 k: flags: 0, expected 4");
  EXPECT_EQ(message({shape, 8, Component::kV, &rope}, part),
            "part layer 8 v: component: 1, expected 2");
  EXPECT_EQ(message({Shape(DType::kBf16), 8, Component::kK, &rope}, part),
            "part layer 8 k: dtype: 2, expected 3");
  EXPECT_NE(message({shape, 7, Component::kK, &rope}, part).find("layer: 7 is not in"),
            std::string::npos);
  rope.cos.pop_back();
  EXPECT_EQ(message(task, part), "part layer 8 k: rope.cos: 2047, expected 2048");
  EXPECT_EQ(out, std::vector<uint8_t>(out.size(), 0xcd));
}

TEST(CodecChain, RefusesPagesThatAreNotTheBlock) {
  const KvShape shape = Shape();
  const PartTask task{shape, 8, Component::kV};
  const auto part = Encode("kivi4g32", task, false, RawPart(shape, 8));
  std::vector<uint8_t> memory(shape.raw_part_bytes());
  const auto decode = [&](int64_t page_tokens, std::vector<std::span<uint8_t>> pages) {
    return std::string(Chain("kivi4g32").DecodePart(task, part, {pages, page_tokens}).message());
  };
  EXPECT_EQ(decode(0, {memory}), "part layer 8 v: page_tokens: 0, expected 64");
  EXPECT_EQ(decode(48, {memory, memory}), "part layer 8 v: page_tokens: 48, expected 64");
  EXPECT_EQ(decode(32, {memory}), "part layer 8 v: pages: 1, expected 2");
  EXPECT_EQ(decode(64, {std::span<uint8_t>(memory).first(16382)}),
            "part layer 8 v: page bytes: 16382, expected 16384");
  EXPECT_EQ(decode(64, {memory}), "");
}

}  // namespace
}  // namespace kedge::codec
