#include "tests/client/testing_pruned.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "gpu/codec/block_codec.h"
#include "gpu/kernels/cast.h"
#include "store/world/random.h"

namespace kedge {
namespace {

constexpr const char* kPassed[] = {"prefixkv0.5-keydiff+kivi4g32",
                                   "prefixkv0.5+kvcrush0.1+kivi4g32", "prefixkv0.5-keydiff+raw",
                                   "prefixkv0.5-expect+kivi4g32", "prefixkv0.5-sum+kivi4g32"};

// Between -1 and 1.
std::vector<float> Floats(int64_t count, uint64_t seed) {
  Random random(seed);
  std::vector<float> floats(count);
  for (float& value : floats) value = static_cast<float>(random.Below(1 << 20)) / (1 << 19) - 1.0f;
  return floats;
}

GateRecord Record(const char* chain, double points, bool passed) {
  return {.chain = chain,
          .task = kGateMean,
          .points_lost = points,
          .bar = 1.0,
          .bits_per_value = 3.0,
          .questions = 100,
          .passed = passed};
}

ModelProfile MakeProfile(uint64_t seed) {
  codec::PrefixKvBuilder budgets(PrunedModel::kLayers);
  std::vector<codec::PriorityCurve> curves;
  for (uint32_t layer = 0; layer < PrunedModel::kLayers; ++layer) {
    std::vector<double> importance;
    for (int t = 1; t <= 200; ++t)
      importance.push_back(std::pow(t, -0.4 * static_cast<double>(layer + seed - 1)));
    curves.push_back(codec::CurveOf(importance));
  }
  budgets.Add(curves);
  codec::QueryStatsBuilder queries(PrunedModel::kLayers, PrunedModel::kHeads,
                                   PrunedModel::kHeadSize);
  constexpr int64_t kWidth = PrunedModel::kHeads * PrunedModel::kHeadSize;
  const std::vector<float> rows = Floats(50 * kWidth, seed);
  for (int64_t layer = 0; layer < PrunedModel::kLayers; ++layer)
    queries.Add(layer, rows.data(), 50, kWidth);
  std::vector<GateRecord> gate = {Record("prefixkv0.25-keydiff+kivi2g32", 12.5, false)};
  double points = 0.1;
  for (const char* chain : kPassed) gate.push_back(Record(chain, points += 0.1, true));
  const ProfiledModel model{.weights_id = "test/pruned@1",
                            .rope_theta = 1e4,
                            .layers = PrunedModel::kLayers,
                            .kv_heads = PrunedModel::kKvHeads,
                            .head_size = PrunedModel::kHeadSize,
                            .dtype = DType::kF16};
  return *ModelProfile::Make(
      model,
      {{codec::kPrefixKvSection, codec::EncodePrefixKv(*budgets.Build())},
       {codec::kQueryStatsSection, codec::EncodeQueryStats(*queries.Build())}},
      gate);
}

}  // namespace

PrunedModel::PrunedModel(uint64_t seed) : profile_(MakeProfile(seed)) {}

std::string PrunedModel::ProfilePath() const {
  const char* root = std::getenv("TEST_TMPDIR");
  const std::string path =
      std::string(root == nullptr ? "/tmp" : root) + "/" + profile_.id().ToHex() + ".bin";
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(profile_.bytes().data()),
             static_cast<std::streamsize>(profile_.bytes().size()));
  return path;
}

sdk::ModelOptions PrunedModel::Options() const {
  return {.weights_id = "test/pruned@1",
          .tokenizer_id = "test",
          .dtype = sdk::DType::kF16,
          .layer_count = kLayers,
          .kv_heads = kKvHeads,
          .head_size = kHeadSize,
          .block_tokens = kBlockTokens,
          .rope_theta = 1e4,
          .profile = ProfilePath()};
}

std::vector<uint8_t> PrunedModel::Kv(uint32_t blocks, uint64_t seed) {
  const std::vector<float> values =
      Floats(int64_t{blocks} * kLayers * 2 * kBlockTokens * kKvHeads * kHeadSize, seed);
  std::vector<uint8_t> kv(values.size() * 2);
  kernels::CastFromFloat(DType::kF16, values.data(), static_cast<int64_t>(values.size()),
                         kv.data());
  return kv;
}

std::vector<sdk::BlockBuffer> PrunedModel::Buffers(std::vector<uint8_t>& kv) {
  constexpr uint64_t kBlockBytes = kLayers * 2 * kBlockTokens * kRowBytes;
  std::vector<sdk::BlockBuffer> buffers;
  for (uint64_t at = 0; at < kv.size(); at += kBlockBytes)
    buffers.push_back({{&kv[at], 1000}, {&kv[at + 1000], kBlockBytes - 1000}});
  return buffers;
}

std::vector<int32_t> PrunedModel::Tokens(uint32_t blocks, int32_t seed) {
  std::vector<int32_t> tokens(blocks * kBlockTokens);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = seed * 100'003 + static_cast<int32_t>(i);
  return tokens;
}

codec::ScoreSidecar PrunedModel::Scores(uint32_t blocks, uint64_t seed) {
  codec::ScoreSidecar scores{
      .tokens = blocks * kBlockTokens, .layers = kLayers, .heads = kHeads, .window = 32};
  for (const float value : Floats(int64_t{kLayers} * kHeads * blocks * kBlockTokens, seed))
    scores.codes.push_back(codec::ScoreCode(std::abs(value)));
  return scores;
}

std::vector<PrunedModel::Layer> PrunedModel::PrunedHere(const std::string& name,
                                                        const std::vector<uint8_t>& kv,
                                                        const codec::ScoreSidecar& scores) const {
  constexpr uint64_t kPartBytes = kBlockTokens * kRowBytes;
  const auto blocks = static_cast<uint32_t>(kv.size() / (kLayers * 2 * kPartBytes));
  const auto chain = *codec::PrunedChain::Parse(name, &profile_);
  const auto rotation = *codec::KeyRotation::Of(1e4, "", kHeadSize);
  const int64_t tokens = int64_t{blocks} * kBlockTokens;
  const auto rope = rotation.Table(0, tokens);
  const auto ahead = rotation.Table(tokens, codec::kQueriesAhead);
  const codec::SequenceTask task{
      .shape = KvShape::KeysAndValues(kLayers, kKvHeads, kHeadSize, kBlockTokens, DType::kF16),
      .tokens = tokens,
      .rope = &*rope,
      .ahead = &*ahead};
  std::vector<std::vector<uint8_t>> parts(kLayers * 2);
  for (uint32_t block = 0; block < blocks; ++block) {
    for (uint32_t part = 0; part < kLayers * 2; ++part) {
      const uint8_t* from = kv.data() + (block * kLayers * 2 + part) * kPartBytes;
      parts[part].insert(parts[part].end(), from, from + kPartBytes);
    }
  }
  const auto source = [&](int64_t layer, Component component) -> std::span<const uint8_t> {
    return parts[2 * layer + (component == Component::kV ? 1 : 0)];
  };
  const auto kept = chain.Choose(task, source, &scores);
  EXPECT_TRUE(kept.ok()) << kept.status();
  std::vector<Layer> layers;
  for (int64_t i = 0; i < kLayers; ++i) {
    Layer& layer = layers.emplace_back(Layer{.positions = (*kept)[i]});
    for (const Component component : {Component::kK, Component::kV}) {
      const auto part = chain.EncodePart(task, i, component, layer.positions, source(i, component));
      EXPECT_TRUE(part.ok()) << part.status();
      std::vector<uint8_t>& rows = component == Component::kK ? layer.keys : layer.values;
      rows.resize(layer.positions.size() * kRowBytes);
      const absl::Status s = chain.DecodePart(task, i, component, layer.positions, *part, rows);
      EXPECT_TRUE(s.ok()) << s;
    }
  }
  return layers;
}

}  // namespace kedge
