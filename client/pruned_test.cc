// A stored pruned sequence is taken apart by code that believes nothing of it.
#include "client/pruned.h"

#include <cmath>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gpu/kernels/cast.h"
#include "gtest/gtest.h"
#include "store/world/random.h"

namespace kedge {
namespace {

using ::testing::HasSubstr;

constexpr uint32_t kLayers = 2;
constexpr uint32_t kBlocks = 3;
constexpr int64_t kTokens = kBlocks * 32;
constexpr uint64_t kRowBytes = 2 * 32 * 2;
constexpr char kChain[] = "prefixkv0.5-keydiff+kivi4g32";

ModelProfile Profile(const char* passed) {
  codec::PrefixKvBuilder budgets(kLayers);
  std::vector<codec::PriorityCurve> curves(kLayers, codec::PriorityCurve{0.0, 0.7, 1.0});
  budgets.Add(curves);
  const ProfiledModel model{.weights_id = "w",
                            .rope_theta = 1e4,
                            .layers = kLayers,
                            .kv_heads = 2,
                            .head_size = 32,
                            .dtype = DType::kF16};
  return *ModelProfile::Make(
      model, {{codec::kPrefixKvSection, codec::EncodePrefixKv(*budgets.Build())}},
      {{.chain = passed, .task = kGateMean, .bar = 1.0, .questions = 1, .passed = true}});
}

std::unique_ptr<ModelVariants> Variants(uint16_t kv_heads, const char* passed = kChain) {
  const ModelIdentity model{.weights_id = "w",
                            .tokenizer_id = "t",
                            .shape = KvShape::KeysAndValues(kLayers, kv_heads, 32, 32, DType::kF16),
                            .rope_theta = 1e4};
  return *ModelVariants::Make(model, Profile(passed), false);
}

class PrunedTest : public ::testing::Test {
 protected:
  PrunedTest() {
    salt_ = *TenantSalt::FromText("s");
    tail_.key = OpaqueKey(salt_, {});
    tail_.placement = 7;
    tail_.depth = kBlocks - 1;
    Random random(1);
    std::vector<float> values(kTokens * kRowBytes / 2);
    for (uint32_t part = 0; part < 2 * kLayers; ++part) {
      for (float& value : values) value = static_cast<float>(random.Below(2001)) / 1000 - 1;
      parts_.emplace_back(kTokens * kRowBytes);
      kernels::CastFromFloat(DType::kF16, values.data(), static_cast<int64_t>(values.size()),
                             parts_.back().data());
    }
    block_.header = sequence_.Header(salt_, tail_, 9);
    for (uint32_t layer = 0; layer < kLayers; ++layer) {
      const absl::Status s =
          sequence_.EncodeLayer(layer, parts_[2 * layer], parts_[2 * layer + 1], nullptr, block_);
      EXPECT_TRUE(s.ok()) << s;
    }
    Seal(block_);
  }

  // Digests, as a put makes them.
  static void Seal(codec::EncodedBlock& block) {
    for (uint32_t part = 0; part < block.header.parts.size(); ++part) {
      const std::span<const uint8_t> bytes =
          std::span<const uint8_t>(block.payload)
              .subspan(block.header.part_offset(part), block.header.parts[part].bytes);
      block.header.parts[part].digest =
          PartDigest(block.header.key, block.header.variant, part, bytes);
    }
  }
  absl::Status Read(const codec::EncodedBlock& block) {
    std::vector<PrunedReader::Layer> layers(kLayers);
    memory_.assign(2 * kLayers, std::vector<uint8_t>(kTokens * kRowBytes));
    positions_.assign(kLayers, std::vector<int32_t>(kTokens));
    for (uint32_t i = 0; i < kLayers; ++i) {
      layers[i].keys.Add(memory_[2 * i].data(), memory_[2 * i].size());
      layers[i].values.Add(memory_[2 * i + 1].data(), memory_[2 * i + 1].size());
      layers[i].positions = positions_[i];
    }
    PrunedReader reader(sequence_, 0, std::move(layers));
    return reader.Read(block.header, 0, 2 * kLayers, block.payload).status();
  }

  const std::unique_ptr<ModelVariants> variants_ = Variants(2);
  const PrunedSequence sequence_ =
      *PrunedSequence::Make(*variants_, *Variant::Parse(kChain), kBlocks);
  TenantSalt salt_;
  ChainLink tail_;
  std::vector<std::vector<uint8_t>> parts_;
  codec::EncodedBlock block_;
  std::vector<std::vector<uint8_t>> memory_;
  std::vector<std::vector<int32_t>> positions_;
};

TEST_F(PrunedTest, LiesBesideItsBlocksUnderItsOwnName) {
  BlockHeader header = block_.header;
  EXPECT_TRUE(EncodeBlockHeader(header).ok());
  EXPECT_EQ(header.parent, tail_.key);
  EXPECT_EQ(header.placement, tail_.placement);
  EXPECT_EQ(header.chain_depth, kBlocks);
  EXPECT_EQ(header.fidelity, Fidelity::kPruned);
  EXPECT_EQ(header.rope, RopeState::kUnrotated);
  EXPECT_EQ(header.tenant, 9u);
  for (const PartEntry& part : header.parts) EXPECT_LE(part.bytes, sequence_.part_bytes_max());
  // Extent, tail, chain and profile are in the name.
  EXPECT_NE(PrunedSequence::Make(*variants_, header.variant, kBlocks + 1)->Key(salt_, tail_),
            header.key);
  ChainLink other = tail_;
  other.key.bytes[0] ^= 1;
  EXPECT_NE(sequence_.Key(salt_, other), header.key);
  const ModelProfile first = Profile(kChain);
  const auto section = *first.Section(codec::kPrefixKvSection);
  const auto second = ModelProfile::Make(
      first.model(), {{codec::kPrefixKvSection, {section.begin(), section.end()}}},
      {{.chain = kChain, .task = kGateMean, .bar = 2.0, .passed = true}});
  const auto profiled = ModelVariants::Make(
      {.weights_id = "w", .tokenizer_id = "t", .shape = sequence_.shape(), .rope_theta = 1e4},
      *second, false);
  EXPECT_NE(PrunedSequence::Make(**profiled, header.variant, kBlocks)->Key(salt_, tail_),
            header.key);
  EXPECT_NE(ScoresKey(salt_, tail_, kTokens, codec::SidecarKind::kWindow),
            ScoresKey(salt_, tail_, kTokens, codec::SidecarKind::kSum));
}

TEST_F(PrunedTest, IsReadBack) {
  ASSERT_TRUE(Read(block_).ok());
  for (uint32_t layer = 0; layer < kLayers; ++layer) {
    ASSERT_GE(sequence_.rows(layer), 32);
    EXPECT_EQ(positions_[layer][0], 0);
    EXPECT_EQ(positions_[layer][sequence_.rows(layer) - 1], kTokens - 1);
    // The first four rows of a sequence stay as they were.
    EXPECT_TRUE(std::equal(memory_[2 * layer].begin(), memory_[2 * layer].begin() + 4 * kRowBytes,
                           parts_[2 * layer].begin()));
  }
}

TEST_F(PrunedTest, AFlippedBitIsFoundAndItsPartNamed) {
  for (uint64_t at = 0; at < block_.payload.size(); at += 37) {
    codec::EncodedBlock flipped = block_;
    flipped.payload[at] ^= static_cast<uint8_t>(1 << (at % 8));
    const absl::Status s = Read(flipped);
    ASSERT_EQ(s.code(), absl::StatusCode::kDataLoss) << "byte " << at;
    uint32_t part = 0;
    while (flipped.header.part_offset(part + 1) <= at) ++part;
    EXPECT_THAT(std::string(s.message()), HasSubstr("part " + std::to_string(part)));
  }
}

TEST_F(PrunedTest, WhatASenderGotWrongIsNamed) {
  const auto error = [&](codec::EncodedBlock block) {
    Seal(block);
    return std::string(Read(block).message());
  };
  const uint64_t values = block_.header.part_offset(1);
  codec::EncodedBlock wrong = block_;
  wrong.payload[8] += 32;
  EXPECT_THAT(error(wrong), HasSubstr("part layer 0 k: tokens: 128"));
  wrong = block_;
  wrong.payload[24] ^= 1;  // the first position's bit
  EXPECT_THAT(error(wrong), HasSubstr("part layer 0 k: positions"));
  wrong = block_;
  wrong.payload[values + 20] ^= 1;
  EXPECT_THAT(error(wrong), HasSubstr("layer 0 v: positions_crc"));
  wrong = block_;
  wrong.header.chain_depth = kBlocks + 1;
  EXPECT_THAT(error(wrong), HasSubstr("header.chain_depth: 4"));
  wrong = block_;
  wrong.header.fidelity = Fidelity::kQuantized;
  EXPECT_THAT(error(wrong), HasSubstr("header.fidelity: quantized"));

  // Well made, but of another budget: other rows than the chain keeps.
  const auto more = Variants(2, "prefixkv0.75-keydiff+kivi4g32");
  const auto other =
      PrunedSequence::Make(*more, *Variant::Parse("prefixkv0.75-keydiff+kivi4g32"), kBlocks);
  wrong = {.header = block_.header};
  wrong.header.parts.clear();
  for (uint32_t layer = 0; layer < kLayers; ++layer) {
    ASSERT_TRUE(
        other->EncodeLayer(layer, parts_[2 * layer], parts_[2 * layer + 1], nullptr, wrong).ok());
  }
  EXPECT_THAT(error(wrong), HasSubstr("rows: "));
}

TEST_F(PrunedTest, WhatDoesNotGoIsRefused) {
  const auto refused = [](const ModelVariants& variants, const char* chain, uint32_t blocks) {
    const auto made = PrunedSequence::Make(variants, *Variant::Parse(chain), blocks);
    EXPECT_FALSE(made.ok());
    return std::string(made.status().message());
  };
  EXPECT_THAT(refused(*variants_, "prefixkv0.5+kvcrush0.1+raw", 3), HasSubstr("no measurement"));
  EXPECT_THAT(refused(*variants_, kChain, 1 << 20), HasSubstr("tokens"));
  const char* expect = "prefixkv0.5-expect+raw";
  EXPECT_THAT(refused(*Variants(2, expect), expect, 3), HasSubstr("query_stats"));
  codec::ScoreSidecar scores{.tokens = 96, .layers = 2, .heads = 4, .window = 32};
  EXPECT_TRUE(CheckScores(scores, sequence_.shape()).ok());
  scores.heads = 3;
  EXPECT_THAT(std::string(CheckScores(scores, sequence_.shape()).message()),
              HasSubstr("heads % kv_heads: 1"));
}

}  // namespace
}  // namespace kedge
