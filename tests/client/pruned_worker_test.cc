// The reference runner as a worker that prunes, and as one that computes on over what another has
// pruned: the same bits as without a store.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "client/kv_client.h"
#include "gpu/codec/pruned_chain.h"
#include "gpu/device/device_cpu.h"
#include "gpu/model/model.h"
#include "gpu/model/prune_profile.h"
#include "gpu/model/random_checkpoint.h"
#include "gpu/model/score_capture.h"
#include "proto/model_profile.h"
#include "tools/worker/kv_blocks.h"

namespace kedge {
namespace {

constexpr int64_t kBlockTokens = 32;
constexpr uint32_t kBlocks = 3;
constexpr int64_t kPrefix = kBlocks * kBlockTokens;
constexpr char kChains[][48] = {"prefixkv0.5+kivi4g32", "prefixkv0.5+kvcrush0.1+raw",
                                "prefixkv0.5-keydiff+raw"};

std::vector<int32_t> TokensOf(int64_t count, int32_t seed) {
  std::vector<int32_t> tokens;
  for (int64_t t = 0; t < count; ++t)
    tokens.push_back(static_cast<int32_t>((t * 31 + seed * 17 + t * t % 7) % 96));
  return tokens;
}

class PrunedWorkerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* root = std::getenv("TEST_TMPDIR");
    const std::string directory = std::string(root == nullptr ? "/tmp" : root) + "/pruned_worker";
    const ModelConfig config{.hidden_size = 64,
                             .intermediate_size = 96,
                             .layers = 3,
                             .heads = 8,
                             .kv_heads = 2,
                             .head_size = 32,
                             .vocabulary = 96,
                             .max_positions = 256,
                             .dtype = DType::kBf16};
    ASSERT_TRUE(WriteRandomCheckpoint(directory, config, 4).ok());
    auto model = Model::Load(directory, device_, {.block_tokens = kBlockTokens});
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    options_ = StoreModel(*model_, "test/worker", "test");

    PruneProfiler profiler(*model_);
    for (int32_t seed = 1; seed <= 3; ++seed)
      ASSERT_TRUE(profiler.Add(*model_, TokensOf(120, seed)).ok());
    const auto learned = profiler.Build();
    ASSERT_TRUE(learned.ok()) << learned.status();
    std::vector<GateRecord> gate;
    for (const char* chain : kChains)
      gate.push_back({.chain = chain, .task = kGateMean, .bar = 1, .questions = 1, .passed = true});
    const auto profile = ModelProfile::Make(
        {.weights_id = options_.weights_id,
         .rope_scaling = options_.rope_scaling,
         .rope_theta = options_.rope_theta,
         .layers = 3,
         .kv_heads = 2,
         .head_size = 32,
         .dtype = model_->kv_dtype()},
        {{codec::kPrefixKvSection, codec::EncodePrefixKv(learned->budgets)}}, gate);
    ASSERT_TRUE(profile.ok()) << profile.status();
    profile_ = *profile;
    options_.profile = directory + "/profile.bin";
    std::ofstream(options_.profile, std::ios::binary)
        .write(reinterpret_cast<const char*>(profile_->bytes().data()),
               static_cast<std::streamsize>(profile_->bytes().size()));
    auto client = sdk::Client::Open(
        {.address = "embedded:?host=128MiB&profile=" + options_.profile, .salt = "worker"});
    ASSERT_TRUE(client) << client.text();
    client_ = std::move(*client);
    auto blocks = client_->OpenModel(options_);
    ASSERT_TRUE(blocks) << blocks.text();
    blocks_ = std::move(*blocks);
  }

  struct Computed {
    KvCache cache;
    codec::ScoreSidecar scores;
    std::vector<float> logits;
  };
  // The prefix with something behind it, dense.
  Computed Dense(const std::vector<int32_t>& tokens) {
    ScoreCapture capture(*model_, kPrefix, codec::kScoreWindow);
    PrefillOptions options;
    capture.Attach(options);
    KvCache cache = *model_->NewCache(static_cast<int64_t>(tokens.size()));
    const auto logits = model_->Prefill(tokens, cache, options);
    EXPECT_TRUE(logits.ok()) << logits.status();
    return {std::move(cache), *capture.Finish(), logits->values};
  }
  std::vector<float> ComputeOn(const std::vector<int32_t>& tokens, KvCache& cache) {
    const auto logits = model_->Prefill(tokens, cache);
    EXPECT_TRUE(logits.ok()) << logits.status();
    return logits->values;
  }
  // Pruned without a store.
  KvCache PrunedHere(const std::string& name, const Computed& dense, int64_t capacity) {
    const auto chain = *codec::PrunedChain::Parse(name, &*profile_);
    const kernels::RopeTable rope = model_->RopeTableAt(0, kPrefix);
    const codec::SequenceTask task{.shape = model_->kv_shape(), .tokens = kPrefix, .rope = &rope};
    const auto source = [&](int64_t layer, Component component) {
      return dense.cache.PartSpan(layer, component, 0, kPrefix);
    };
    const auto kept = chain.Choose(task, source, &dense.scores);
    EXPECT_TRUE(kept.ok()) << kept.status();
    KvCache cache = *model_->NewCache(capacity);
    EXPECT_TRUE(cache.SetPruned(kPrefix, *kept).ok());
    for (int64_t layer = 0; layer < 3; ++layer) {
      for (const Component component : {Component::kK, Component::kV}) {
        const auto part =
            chain.EncodePart(task, layer, component, (*kept)[layer], source(layer, component));
        EXPECT_TRUE(part.ok()) << part.status();
        EXPECT_TRUE(chain
                        .DecodePart(task, layer, component, (*kept)[layer], *part,
                                    cache.PartSpan(layer, component, 0, cache.rows(layer)))
                        .ok());
      }
    }
    return cache;
  }
  // Fetched into the cache itself: its layers are ragged.
  void FetchInto(const sdk::Sequence& sequence, const std::string& chain, KvCache& cache) {
    const auto rows = sequence.PrunedRows(kBlocks, chain, 3);
    ASSERT_TRUE(rows) << rows.text();
    std::vector<std::vector<int32_t>> positions(3);
    std::vector<sdk::PrunedLayer> layers;
    for (int64_t i = 0; i < 3; ++i) {
      positions[i].resize((*rows)[i]);
      const auto keys = cache.PartSpan(i, Component::kK, 0, (*rows)[i]);
      const auto values = cache.PartSpan(i, Component::kV, 0, (*rows)[i]);
      layers.push_back(
          {{{keys.data(), keys.size()}}, {{values.data(), values.size()}}, positions[i]});
    }
    auto fetch = sequence.FetchPruned({.block_count = kBlocks, .variant = chain}, layers);
    ASSERT_TRUE(fetch) << fetch.text();
    ASSERT_TRUE(fetch->Wait() && fetch->all_ok()) << fetch->text();
    ASSERT_TRUE(cache.SetPruned(kPrefix, positions).ok());
  }

  CpuDevice device_;
  std::unique_ptr<Model> model_;
  std::optional<ModelProfile> profile_;
  sdk::ModelOptions options_;
  std::optional<sdk::Client> client_;
  std::optional<sdk::Model> blocks_;
};

TEST_F(PrunedWorkerTest, ComputingOnOverWhatAnotherPruned) {
  std::vector<int32_t> tokens = TokensOf(kPrefix, 9);
  for (const int32_t question : {3, 1, 4, 1, 5, 9, 2, 6}) tokens.push_back(question);
  Computed dense = Dense(tokens);
  const auto capacity = static_cast<int64_t>(tokens.size());
  const auto buffers = BlockSpans(dense.cache, kBlockTokens, 0, kBlocks);
  const std::vector<uint8_t> sidecar = codec::EncodeSidecar(dense.scores);
  for (const std::string chain : kChains) {
    SCOPED_TRACE(chain);
    const auto worker = std::move(blocks_->FromTokens(tokens).value());
    auto store =
        worker.StorePruned({.block_count = kBlocks, .variant = chain, .scores = sidecar}, buffers);
    ASSERT_TRUE(store) << store.text();
    ASSERT_TRUE(store->Wait() && store->all_ok()) << store->text();

    const auto other = std::move(blocks_->FromTokens(tokens).value());
    ASSERT_EQ(other.MatchPruned({.variants = {chain}})->blocks(), kBlocks);
    KvCache fetched = *model_->NewCache(capacity);
    ASSERT_NO_FATAL_FAILURE(FetchInto(other, chain, fetched));
    KvCache here = PrunedHere(chain, dense, capacity);
    const uint64_t row_bytes = static_cast<uint64_t>(fetched.token_bytes());
    for (int64_t layer = 0; layer < 3; ++layer) {
      ASSERT_EQ(fetched.rows(layer), here.rows(layer));
      for (const Component component : {Component::kK, Component::kV}) {
        const auto a = fetched.PartSpan(layer, component, 0, fetched.rows(layer));
        const auto b = here.PartSpan(layer, component, 0, here.rows(layer));
        EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size()), 0);
        if (chain.find("+raw") == std::string::npos) continue;
        // A raw row is the dense one of its true position, rotated there.
        for (int64_t row = 0; row < fetched.rows(layer); ++row) {
          const auto dense_row =
              dense.cache.PartSpan(layer, component, fetched.kept(layer)[row], 1);
          ASSERT_EQ(std::memcmp(a.data() + row * row_bytes, dense_row.data(), row_bytes), 0);
        }
      }
    }
    // The question is computed at its true positions over ragged layers, to the same bits.
    const std::vector<float> logits = ComputeOn(tokens, fetched);
    EXPECT_EQ(logits, ComputeOn(tokens, here));
    EXPECT_NE(logits, dense.logits);
    EXPECT_EQ(fetched.length(), capacity);
  }
}

TEST_F(PrunedWorkerTest, WhatStandsBehindTheBlocksChangesNothing) {
  const std::vector<int32_t> prefix = TokensOf(kPrefix, 11);
  std::vector<int32_t> first = prefix;
  first.insert(first.end(), {1, 2, 3, 4, 5});
  std::vector<int32_t> second = prefix;
  second.insert(second.end(), {90, 80, 70});
  Computed one = Dense(first);
  const auto worker = std::move(blocks_->FromTokens(first).value());
  const auto buffers = BlockSpans(one.cache, kBlockTokens, 0, kBlocks);
  auto raw = worker.Store({.block_count = kBlocks}, buffers);
  ASSERT_TRUE(raw && raw->Wait() && raw->all_ok()) << raw->text();
  auto scores = worker.StoreScores(codec::EncodeSidecar(one.scores));
  ASSERT_TRUE(scores && scores->Wait() && scores->all_ok()) << scores->text();
  // A process that has neither the model nor its tokens' KV prunes what lies there.
  for (const char* chain : kChains) {
    const auto pruned = std::move(blocks_->FromTokens(prefix).value()).Prune(kBlocks, chain);
    ASSERT_TRUE(pruned) << pruned.text();
    EXPECT_EQ(pruned->code, KEDGE_OK);
  }
  // Another worker with another question finds that it would have made the same bytes.
  Computed two = Dense(second);
  const auto other = std::move(blocks_->FromTokens(second).value());
  const std::vector<uint8_t> sidecar = codec::EncodeSidecar(two.scores);
  auto again = other.StoreScores(sidecar);
  ASSERT_TRUE(again && again->Wait());
  EXPECT_EQ(again->code(), sdk::Code::kExists) << again->text();
  for (const std::string chain : kChains) {
    auto same = other.StorePruned({.block_count = kBlocks, .variant = chain, .scores = sidecar},
                                  BlockSpans(two.cache, kBlockTokens, 0, kBlocks));
    ASSERT_TRUE(same && same->Wait()) << same.text();
    EXPECT_EQ(same->code(), sdk::Code::kExists) << chain << ": " << same->text();
  }
}

}  // namespace
}  // namespace kedge
