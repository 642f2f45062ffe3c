#include "gpu/codec/pruned_chain.h"

#include <cmath>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gpu/codec/sequence_part.h"
#include "gpu/kernels/cast.h"
#include "gpu/kernels/random_floats.h"
#include "gtest/gtest.h"
#include "proto/model_profile.h"

namespace kedge::codec {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kLayers = 4;
constexpr int64_t kTokens = 192;
constexpr int64_t kWidth = 2 * 64;

PruneProfile Profile() {
  PrefixKvBuilder builder(kLayers);
  std::vector<PriorityCurve> curves;
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    std::vector<double> importance;
    for (int64_t t = 0; t < 200; ++t)
      importance.push_back(std::pow(static_cast<double>(t + 1), -0.3 * static_cast<double>(layer)));
    curves.push_back(CurveOf(importance));
  }
  builder.Add(curves);
  QueryStatsBuilder queries(kLayers, 8, 64);
  const std::vector<float> rows = kernels::RandomFloats(50 * 8 * 64, 3);
  for (int64_t layer = 0; layer < kLayers; ++layer) queries.Add(layer, rows.data(), 50, 8 * 64);
  return {.budgets = *builder.Build(), .queries = *queries.Build()};
}

class PrunedChainTest : public ::testing::Test {
 protected:
  PrunedChainTest() {
    const std::vector<float> values = kernels::RandomFloats(2 * kLayers * kTokens * kWidth, 1);
    raw_.resize(values.size() * 2);
    kernels::CastFromFloat(DType::kF16, values.data(), static_cast<int64_t>(values.size()),
                           raw_.data());
    const std::vector<float> frequencies = kernels::RopeFrequencies(64, 1e4f, {});
    rope_ = kernels::MakeRopeTable(frequencies, 0, kTokens);
    ahead_ = kernels::MakeRopeTable(frequencies, kTokens, kQueriesAhead);
    task_ = {.shape = KvShape::KeysAndValues(kLayers, 2, 64, 64, DType::kF16),
             .tokens = kTokens,
             .rope = &rope_,
             .ahead = &ahead_};
    for (const float value : kernels::RandomFloats(kLayers * 8 * kTokens, 2))
      sidecar_.codes.push_back(ScoreCode(std::abs(value)));
  }
  std::span<const uint8_t> Raw(int64_t layer, Component component) const {
    const size_t bytes = kTokens * kWidth * 2;
    return {raw_.data() + (2 * layer + (component == Component::kV ? 1 : 0)) * bytes, bytes};
  }
  PrunedChain Chain(const std::string& name) const {
    absl::StatusOr<PrunedChain> chain = PrunedChain::Make(name, Profile());
    EXPECT_TRUE(chain.ok()) << chain.status();
    return *std::move(chain);
  }
  Kept Choose(const PrunedChain& chain) const {
    absl::StatusOr<Kept> kept = chain.Choose(task_, source_, &sidecar_);
    EXPECT_TRUE(kept.ok()) << kept.status();
    return *std::move(kept);
  }
  std::vector<float> Floats(std::span<const uint8_t> bytes) const {
    std::vector<float> values(bytes.size() / 2);
    kernels::CastToFloat(DType::kF16, bytes.data(), static_cast<int64_t>(values.size()),
                         values.data());
    return values;
  }

  std::vector<uint8_t> raw_;
  kernels::RopeTable rope_;
  kernels::RopeTable ahead_;
  SequenceTask task_;
  ScoreSidecar sidecar_{.tokens = kTokens, .layers = kLayers, .heads = 8, .window = 32};
  SequenceSource source_ = [this](int64_t layer, Component component) {
    return Raw(layer, component);
  };
};

TEST_F(PrunedChainTest, UniformLayersKeepAsManyRows) {
  const auto raw = Chain("uniform0.25-keydiff+raw").Rows(task_);
  ASSERT_TRUE(raw.ok()) << raw.status();
  EXPECT_EQ(*raw, std::vector<int64_t>(kLayers, kTokens / 4));
  EXPECT_NE(*Chain("prefixkv0.25-keydiff+raw").Rows(task_), *raw);
  // A quarter of 192 tokens are one and a half groups: some layers get one, others two.
  const auto grouped = Chain("uniform0.25-keydiff+kivi4g32").Rows(task_);
  ASSERT_TRUE(grouped.ok()) << grouped.status();
  EXPECT_EQ(std::accumulate(grouped->begin(), grouped->end(), int64_t{0}), kLayers * kTokens / 4);
  for (const int64_t rows : *grouped) EXPECT_TRUE(rows == 32 || rows == 64) << rows;
}

TEST_F(PrunedChainTest, NamesOfTheGrammar) {
  for (const char* name :
       {"prefixkv0.5+kivi2g32", "prefixkv0.5+kvcrush0.1+kivi4g32", "prefixkv0.25-keydiff+raw",
        "prefixkv0.125-sum+fp8", "prefixkv0.01+kvcrush0-rand+kivi2g64", "prefixkv0.9-knorm+raw",
        "prefixkv0.5-expect+kvcrush0.05-alt+had+kivi2g32", "uniform0.5-keydiff+kivi4g32",
        "uniform0.25+kvcrush0.1+raw"}) {
    EXPECT_TRUE(PrunedChain::IsPruned(name));
    EXPECT_EQ(Chain(name).name(), name);
    EXPECT_TRUE(Variant::Parse(name).ok());
  }
  EXPECT_FALSE(PrunedChain::IsPruned("kivi2g32"));
  const PrunedChain chain = Chain("prefixkv0.125-sum+fp8");
  EXPECT_EQ(chain.budget(), 0.125);
  EXPECT_EQ(chain.score(), ScoreKind::kSum);
  EXPECT_EQ(chain.rest().name(), "fp8");
  EXPECT_EQ(chain.fidelity(), Fidelity::kPruned);
  const struct {
    const char* name;
    const char* why;
  } bad[] = {{"prefixkv", "share is not in"},
             {"uniform+raw", "share is not in"},
             {"prefixuniform0.5+raw", "neither prefixkv nor uniform"},
             {"prefixkv0.50+raw", "share is not in"},
             {"prefixkv0.1255+raw", "a + is missing"},
             {"prefixkv1+raw", "share is not in"},
             {"prefixkv0+raw", "share is not in"},
             {"prefixkv0.005+raw", "share is not in"},
             {"prefixkv.5+raw", "share is not in"},
             {"prefixkv0.5", "a + is missing"},
             {"prefixkv0.5+", "is none of"},
             {"prefixkv0.5-magic+raw", "a + is missing"},
             {"prefixkv0.5+kvcrush0.95+raw", "kvcrush's share"},
             {"prefixkv0.5+kvcrush0.1", "a + is missing"},
             {"prefixkv0.5+kvcrush0.1+prefixkv0.5+raw", "is none of"},
             {"prefixkv0.5+kivi3g32", "is none of"},
             {"prefixkv0.125-expect+kvcrush0.125-rand+had+kivi2g32", "at most 47"}};
  for (const auto& each : bad) {
    EXPECT_THAT(std::string(PrunedChain::Make(each.name, Profile()).status().message()),
                HasSubstr(each.why))
        << each.name;
  }
}

TEST_F(PrunedChainTest, NeedsItsSectionsOfTheProfile) {
  EXPECT_EQ(PrunedChain::Parse("prefixkv0.5+raw", nullptr).status().code(),
            absl::StatusCode::kFailedPrecondition);
  const ProfiledModel model{.weights_id = "w", .layers = kLayers, .kv_heads = 2, .head_size = 64};
  const PruneProfile sections = Profile();
  const auto with =
      ModelProfile::Make(model, {{kPrefixKvSection, EncodePrefixKv(sections.budgets)}}, {});
  ASSERT_TRUE(with.ok()) << with.status();
  EXPECT_TRUE(PrunedChain::Parse("prefixkv0.5+raw", &*with).ok());
  EXPECT_THAT(std::string(PrunedChain::Parse("prefixkv0.5-expect+raw", &*with).status().message()),
              HasSubstr("needs the profile's section query_stats"));
  const auto without = ModelProfile::Make(model, {}, {});
  EXPECT_EQ(PrunedChain::Parse("prefixkv0.5+raw", &*without).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(PrunedChainTest, KeepsTheBudgetExactly) {
  for (const std::string rest : {"raw", "fp8", "kivi2g32", "kivi4g64", "kivi2g128"}) {
    SequenceTask task = task_;
    task.shape.head_size = 128;
    task.shape.kv_heads = 1;
    task.rope = nullptr;
    for (const std::string budget : {"0.25", "0.5", "0.75"}) {
      const PrunedChain chain = Chain("prefixkv" + budget + "+" + rest);
      const absl::StatusOr<std::vector<int64_t>> rows = chain.Rows(task);
      ASSERT_TRUE(rows.ok()) << rows.status();
      const int64_t group = rest == "raw"         ? 1
                            : rest == "kivi4g64"  ? 64
                            : rest == "kivi2g128" ? 128
                                                  : 32;
      const int64_t sum = std::accumulate(rows->begin(), rows->end(), int64_t{0});
      const double wanted = std::stod(budget) * kLayers * kTokens;
      // At least a group a layer; groups of 128 fit once into 192 tokens.
      const int64_t least = group == 1 ? 20 : kLayers * group;
      const int64_t most = kLayers * (kTokens / group) * group;
      EXPECT_EQ(sum, std::clamp<int64_t>(std::llround(wanted / static_cast<double>(group)) * group,
                                         least, most))
          << chain.name();
      EXPECT_TRUE(group > 1 || (*rows)[0] > (*rows)[3]) << "curves say so";
    }
  }
}

// A pipeline shard keeps what the whole model would.
TEST_F(PrunedChainTest, AShardOfLayersKeepsTheSame) {
  const PrunedChain chain = Chain("prefixkv0.5-keydiff+kivi2g32");
  const Kept whole = Choose(chain);
  SequenceTask shard = task_;
  shard.shape.layer_begin = 1;
  shard.shape.layer_count = 2;
  const absl::StatusOr<Kept> part = chain.Choose(shard, source_, nullptr);
  ASSERT_TRUE(part.ok()) << part.status();
  EXPECT_EQ(*part, Kept(whole.begin() + 1, whole.begin() + 3));
}

TEST_F(PrunedChainTest, RawRowsComeBackBitByBit) {
  for (const char* name : {"prefixkv0.3+raw", "prefixkv0.5+kvcrush0.25+raw",
                           "prefixkv0.25-expect+kvcrush0.1-alt+raw", "prefixkv0.3-knorm+raw"}) {
    const PrunedChain chain = Chain(name);
    const Kept kept = Choose(chain);
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      EXPECT_EQ(kept[layer][3], 3);
      EXPECT_EQ(kept[layer].back(), kTokens - 1);
      for (const Component component : {Component::kK, Component::kV}) {
        const auto part =
            chain.EncodePart(task_, layer, component, kept[layer], Raw(layer, component));
        ASSERT_TRUE(part.ok()) << part.status();
        if (component == Component::kK) {
          EXPECT_EQ(*chain.ReadKept(task_, layer, *part), kept[layer]);
        }
        std::vector<uint8_t> rows(kept[layer].size() * kWidth * 2);
        const absl::Status s = chain.DecodePart(task_, layer, component, kept[layer], *part, rows);
        ASSERT_TRUE(s.ok()) << s;
        for (size_t i = 0; i < kept[layer].size(); ++i) {
          ASSERT_EQ(
              std::memcmp(rows.data() + i * kWidth * 2,
                          Raw(layer, component).data() + kept[layer][i] * kWidth * 2, kWidth * 2),
              0);
        }
      }
    }
  }
}

// Keys are turned back by, and forward to, their true positions: a wrong one would be far off.
TEST_F(PrunedChainTest, LossyRowsComeBackAtTheirPositions) {
  for (const char* name : {"prefixkv0.5+kivi8g32", "prefixkv0.5+kvcrush0.2+fp8"}) {
    const PrunedChain chain = Chain(name);
    const Kept kept = Choose(chain);
    for (const Component component : {Component::kK, Component::kV}) {
      const auto part = chain.EncodePart(task_, 1, component, kept[1], Raw(1, component));
      ASSERT_TRUE(part.ok()) << part.status();
      EXPECT_LT(part->size(), kept[1].size() * kWidth * 1.3) << "8 bits and a quarter of groups";
      std::vector<uint8_t> rows(kept[1].size() * kWidth * 2);
      ASSERT_TRUE(chain.DecodePart(task_, 1, component, kept[1], *part, rows).ok());
      const std::vector<float> decoded = Floats(rows);
      const std::vector<float> all = Floats(Raw(1, component));
      for (size_t i = 0; i < decoded.size(); ++i) {
        const float expected = all[kept[1][i / kWidth] * kWidth + i % kWidth];
        ASSERT_NEAR(decoded[i], expected, i < 4 * kWidth ? 0.0f : 0.1f) << "row " << i / kWidth;
      }
    }
  }
}

// The rule of pruned_chain.h, as far as this room sees it; score_capture_test has the rest.
TEST_F(PrunedChainTest, OnlyTheSequencesOwnScoresAreTaken) {
  const PrunedChain chain = Chain("prefixkv0.5+raw");
  const auto message = [&](ScoreSidecar sidecar) {
    return std::string(chain.Choose(task_, source_, &sidecar).status().message());
  };
  EXPECT_THAT(std::string(chain.Choose(task_, source_, nullptr).status().message()),
              HasSubstr("needs a score sidecar"));
  ScoreSidecar longer = sidecar_;
  longer.tokens = 256;
  longer.codes.resize(kLayers * 8 * 256);
  EXPECT_THAT(message(longer), HasSubstr("sidecar: tokens: 256, expected 192"));
  ScoreSidecar wider = sidecar_;
  wider.window = 64;
  EXPECT_THAT(message(wider), HasSubstr("sidecar: window: 64, expected 32"));
  ScoreSidecar sums = sidecar_;
  sums.kind = SidecarKind::kSum;
  sums.window = 0;
  EXPECT_THAT(message(sums), HasSubstr("sidecar: kind: 2, expected 1"));
  EXPECT_EQ(Choose(chain), Choose(chain));
  ScoreSidecar other = sidecar_;
  for (size_t i = 0; i < other.codes.size(); i += 2) other.codes[i] ^= 0x55;
  EXPECT_NE(*chain.Choose(task_, source_, &other), Choose(chain));
}

TEST_F(PrunedChainTest, HostilePartsAreNamed) {
  const PrunedChain chain = Chain("prefixkv0.5+kivi2g32");
  const Kept kept = Choose(chain);
  const std::vector<uint8_t> keys =
      *chain.EncodePart(task_, 2, Component::kK, kept[2], Raw(2, Component::kK));
  const std::vector<uint8_t> values =
      *chain.EncodePart(task_, 2, Component::kV, kept[2], Raw(2, Component::kV));
  std::vector<uint8_t> rows(kept[2].size() * kWidth * 2);
  const auto positions = keys[16] | keys[17] << 8;
  // Header and positions: every flipped bit. A bitmap's flip changes the count or the CRC.
  for (int64_t at = 0; at < 24 + positions + 4; ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::vector<uint8_t> hurt = keys;
      hurt[at] ^= static_cast<uint8_t>(1 << bit);
      const absl::Status s = chain.DecodePart(task_, 2, Component::kK, kept[2], hurt, rows);
      EXPECT_FALSE(s.ok()) << "byte " << at << " bit " << bit;
      EXPECT_THAT(std::string(s.message()), HasSubstr("part")) << s;
    }
  }
  for (size_t size = 0; size < keys.size(); size += 7) {
    EXPECT_FALSE(
        chain.DecodePart(task_, 2, Component::kK, kept[2], std::span(keys).first(size), rows).ok());
  }
  std::vector<uint8_t> longer = values;
  longer.push_back(0);
  EXPECT_FALSE(chain.DecodePart(task_, 2, Component::kV, kept[2], longer, rows).ok());
  EXPECT_TRUE(chain.DecodePart(task_, 2, Component::kV, kept[2], values, rows).ok());
  std::vector<int32_t> other = kept[2];
  other[10] = other[9] + (other[10] == other[9] + 1 ? 2 : 1);
  EXPECT_THAT(std::string(chain.DecodePart(task_, 2, Component::kV, other, values, rows).message()),
              HasSubstr("positions_crc"));
  EXPECT_THAT(
      std::string(chain.DecodePart(task_, 1, Component::kV, kept[2], values, rows).message()),
      HasSubstr("part layer 1 v: layer: 2"));
  EXPECT_THAT(
      std::string(chain.DecodePart(task_, 2, Component::kK, kept[2], values, rows).message()),
      HasSubstr("part layer 2 k: component: 2"));
  // A code word's scale that is no number, in the second segment.
  std::vector<uint8_t> bad = keys;
  const size_t first = 24 + positions + 4 + (bad[24 + positions] | bad[25 + positions] << 8);
  bad[first + 4 + 16 + 1] = 0x7c;
  EXPECT_THAT(std::string(chain.DecodePart(task_, 2, Component::kK, kept[2], bad, rows).message()),
              HasSubstr("segment at row 64"));
}

TEST(SequencePart, TakesTheShorterCodingOfPositions) {
  uint8_t coding = 0;
  const std::vector<int32_t> few = {0, 1, 2, 3, 900, 1023};
  EXPECT_EQ(EncodePositions(few, 1024, &coding).size(), 7u);
  EXPECT_EQ(coding, 2);
  std::vector<int32_t> many(600);
  std::iota(many.begin(), many.end(), 100);
  EXPECT_EQ(EncodePositions(many, 1024, &coding).size(), 128u);
  EXPECT_EQ(coding, 1);
  for (const auto& positions : {few, many}) {
    std::vector<uint8_t> bytes;
    AppendSequenceHeader(Component::kK, 5, 1024, positions, bytes);
    const absl::StatusOr<SequencePart> part = ReadSequencePart(Component::kK, 5, 1024, bytes);
    ASSERT_TRUE(part.ok()) << part.status();
    EXPECT_EQ(part->positions, positions);
    EXPECT_TRUE(part->segments.empty());
  }
}

}  // namespace
}  // namespace kedge::codec
