#include "gpu/model/model.h"

#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <tuple>
#include <vector>

#include <gtest/gtest.h>

#include "gpu/model/byte_tokenizer.h"
#include "gpu/model/generate.h"
#include "gpu/model/random_checkpoint.h"

namespace kedge {
namespace {

ModelConfig TinyConfig(Architecture architecture, DType dtype) {
  ModelConfig config;
  config.architecture = architecture;
  config.hidden_size = 64;
  config.intermediate_size = 176;
  config.layers = 3;
  config.heads = 4;
  config.kv_heads = 2;
  config.head_size = 16;
  config.vocabulary = ByteTokenizer::kVocabulary;
  config.max_positions = 1024;
  config.qkv_bias = architecture == Architecture::kQwen2;
  config.tied_embeddings = architecture == Architecture::kQwen2;
  config.dtype = dtype;
  return config;
}

std::string TempDirectory(const std::string& name) {
  const char* root = std::getenv("TEST_TMPDIR");
  return std::string(root == nullptr ? "/tmp" : root) + "/" + name;
}

std::unique_ptr<Model> MakeModel(const ModelConfig& config, Device& device,
                                 ModelOptions options = {}) {
  const std::string directory = TempDirectory("checkpoint");
  absl::Status status = WriteRandomCheckpoint(directory, config, 7);
  EXPECT_TRUE(status.ok()) << status;
  absl::StatusOr<std::unique_ptr<Model>> model = Model::Load(directory, device, options);
  EXPECT_TRUE(model.ok()) << model.status();
  return *std::move(model);
}

std::vector<int32_t> Prompt(int64_t tokens) {
  std::vector<int32_t> prompt(tokens);
  uint32_t state = 12345;
  for (int32_t& token : prompt) {
    state = state * 1664525u + 1013904223u;
    token = static_cast<int32_t>(state >> 16) % ByteTokenizer::kVocabulary;
  }
  return prompt;
}

// Equal bit for bit, also where NaN or -0 would compare differently.
void ExpectSameBits(const std::vector<float>& a, const std::vector<float>& b) {
  ASSERT_EQ(a.size(), b.size());
  EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)), 0);
}

void CopyTokens(const KvCache& from, int64_t first, int64_t tokens, KvCache& to) {
  for (int64_t layer = 0; layer < from.geometry().layers; ++layer) {
    for (Component component : {Component::kK, Component::kV}) {
      const auto source = from.PartSpan(layer, component, first, tokens);
      const auto target = to.PartSpan(layer, component, first, tokens);
      std::memcpy(target.data(), source.data(), source.size());
    }
  }
}

class Exactness : public testing::TestWithParam<std::tuple<Architecture, DType>> {
 protected:
  void SetUp() override {
    const auto [architecture, dtype] = GetParam();
    model_ = MakeModel(TinyConfig(architecture, DType::kF32), device_,
                       {.block_tokens = 64, .kv_dtype = dtype});
  }

  // The logits of the prompt and of 8 tokens decoded after it.
  std::vector<float> DecodeFrom(Logits logits, KvCache& cache) {
    std::vector<float> all = logits.values;
    for (int i = 0; i < 8; ++i) {
      absl::StatusOr<Logits> next = model_->Decode(kernels::ArgMax(logits.row(0)), cache);
      EXPECT_TRUE(next.ok()) << next.status();
      logits = *std::move(next);
      all.insert(all.end(), logits.values.begin(), logits.values.end());
    }
    return all;
  }

  CpuDevice device_{2};
  std::unique_ptr<Model> model_;
};

TEST_P(Exactness, ResumedPrefillAndDecodeHaveTheBitsOfDenseOnes) {
  const std::vector<int32_t> prompt = Prompt(210);
  absl::StatusOr<KvCache> dense = model_->NewCache(300);
  ASSERT_TRUE(dense.ok());
  absl::StatusOr<Logits> logits = model_->Prefill(prompt, *dense);
  ASSERT_TRUE(logits.ok()) << logits.status();
  EXPECT_EQ(dense->length(), 210);
  const std::vector<float> expected = DecodeFrom(*logits, *dense);

  // 100 and 209 are no block borders: the kernels alone keep the bits there.
  for (int64_t cached : {64, 128, 192, 100, 209}) {
    absl::StatusOr<KvCache> resumed = model_->NewCache(300);
    ASSERT_TRUE(resumed.ok());
    CopyTokens(*dense, 0, cached, *resumed);
    resumed->set_length(cached);
    absl::StatusOr<Logits> again = model_->Prefill(prompt, *resumed);
    ASSERT_TRUE(again.ok()) << again.status();
    ExpectSameBits(DecodeFrom(*again, *resumed), expected);
    for (int64_t layer = 0; layer < 3; ++layer) {
      const auto a = dense->PartSpan(layer, Component::kV, 0, 218);
      const auto b = resumed->PartSpan(layer, Component::kV, 0, 218);
      EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size()), 0) << "cached " << cached;
    }
  }
}

TEST_P(Exactness, ChangedKvChangesTheLogits) {
  const std::vector<int32_t> prompt = Prompt(100);
  absl::StatusOr<KvCache> dense = model_->NewCache(128);
  absl::StatusOr<Logits> logits = model_->Prefill(prompt, *dense);
  ASSERT_TRUE(logits.ok());
  dense->set_length(64);
  const auto part = dense->PartSpan(1, Component::kV, 10, 1);
  for (uint8_t& byte : part) byte ^= 0x04;
  absl::StatusOr<Logits> other = model_->Prefill(prompt, *dense);
  ASSERT_TRUE(other.ok());
  EXPECT_NE(other->values, logits->values);
}

TEST_P(Exactness, DecodeHasTheBitsOfPrefill) {
  const std::vector<int32_t> tokens = Prompt(140);
  absl::StatusOr<KvCache> whole = model_->NewCache(140);
  absl::StatusOr<Logits> all = model_->Prefill(tokens, *whole, {.all_logits = true});
  ASSERT_TRUE(all.ok());
  ASSERT_EQ(all->rows(), 140);

  absl::StatusOr<KvCache> stepped = model_->NewCache(140);
  absl::StatusOr<Logits> row = model_->Prefill(std::span(tokens).first(1), *stepped);
  for (int64_t i = 0; i < 140; ++i) {
    if (i > 0) row = model_->Decode(tokens[i], *stepped);
    ASSERT_TRUE(row.ok());
    const auto expected = all->row(i);
    ExpectSameBits(row->values, {expected.begin(), expected.end()});
  }
}

TEST_P(Exactness, ThreadsDoNotChangeBits) {
  CpuDevice three(3);
  const auto [architecture, dtype] = GetParam();
  const auto other = MakeModel(TinyConfig(architecture, DType::kF32), three,
                               {.block_tokens = 64, .kv_dtype = dtype});
  const std::vector<int32_t> prompt = Prompt(130);
  absl::StatusOr<KvCache> a = model_->NewCache(130);
  absl::StatusOr<KvCache> b = other->NewCache(130);
  ExpectSameBits(model_->Prefill(prompt, *a)->values, other->Prefill(prompt, *b)->values);
}

// Keeps, of the first `tokens` tokens, those that `keep` says for each layer.
KvCache Pruned(const Model& model, const KvCache& dense, int64_t tokens,
               const std::function<bool(int64_t layer, int64_t token)>& keep) {
  absl::StatusOr<KvCache> cache = model.NewCache(300);
  EXPECT_TRUE(cache.ok());
  std::vector<std::vector<int32_t>> kept(model.config().layers);
  for (int64_t layer = 0; layer < model.config().layers; ++layer) {
    for (int64_t token = 0; token < tokens; ++token) {
      if (keep(layer, token)) kept[layer].push_back(static_cast<int32_t>(token));
    }
  }
  const absl::Status set = cache->SetPruned(tokens, kept);
  EXPECT_TRUE(set.ok()) << set;
  for (int64_t layer = 0; layer < model.config().layers; ++layer) {
    for (Component component : {Component::kK, Component::kV}) {
      for (size_t row = 0; row < kept[layer].size(); ++row) {
        const auto from = dense.PartSpan(layer, component, kept[layer][row], 1);
        const auto to = cache->PartSpan(layer, component, static_cast<int64_t>(row), 1);
        std::memcpy(to.data(), from.data(), from.size());
      }
    }
  }
  return *std::move(cache);
}

TEST_P(Exactness, WhatKeepsEverythingHasTheBitsOfDense) {
  const std::vector<int32_t> prompt = Prompt(210);
  absl::StatusOr<KvCache> dense = model_->NewCache(300);
  absl::StatusOr<Logits> logits = model_->Prefill(prompt, *dense);
  ASSERT_TRUE(logits.ok());
  KvCache pruned = Pruned(*model_, *dense, 128, [](int64_t, int64_t) { return true; });
  const std::vector<float> expected = DecodeFrom(*logits, *dense);
  absl::StatusOr<Logits> again = model_->Prefill(prompt, pruned);
  ASSERT_TRUE(again.ok()) << again.status();
  ExpectSameBits(DecodeFrom(*again, pruned), expected);
}

// Ragged layers: a new token attends to the rows that the layer kept, each turned to its true
// position, and to nothing else.
TEST_P(Exactness, BehindAPrunedContextDroppedTokensAreAsIfHidden) {
  const std::vector<int32_t> prompt = Prompt(150);
  absl::StatusOr<KvCache> dense = model_->NewCache(300);
  ASSERT_TRUE(model_->Prefill(std::span(prompt).first(128), *dense).ok());
  const auto keep = [](int64_t, int64_t token) { return token < 4 || token % 3 == 0; };
  KvCache pruned = Pruned(*model_, *dense, 128, keep);
  absl::StatusOr<Logits> logits = model_->Prefill(prompt, pruned, {.all_logits = true});
  ASSERT_TRUE(logits.ok()) << logits.status();
  EXPECT_EQ(pruned.length(), 150);
  PrefillOptions hiding{.all_logits = true};
  hiding.visible = [&](int64_t, int64_t key) { return key >= 128 || keep(0, key); };
  EXPECT_EQ(model_->Prefill(prompt, pruned, hiding).status().code(),
            absl::StatusCode::kInvalidArgument);
  absl::StatusOr<Logits> hidden = model_->Prefill(prompt, *dense, hiding);
  ASSERT_TRUE(hidden.ok());
  const float tolerance = std::get<1>(GetParam()) == DType::kF32 ? 1e-4f : 5e-2f;
  for (size_t i = 0; i < logits->values.size(); ++i)
    ASSERT_NEAR(logits->values[i], hidden->values[i], tolerance);
}

TEST_P(Exactness, RaggedLayersAreRowInvariantToo) {
  const std::vector<int32_t> prompt = Prompt(200);
  absl::StatusOr<KvCache> dense = model_->NewCache(300);
  ASSERT_TRUE(model_->Prefill(std::span(prompt).first(128), *dense).ok());
  const auto keep = [](int64_t layer, int64_t token) {
    return token < 4 || token == 127 || (token * 7 + layer) % (2 + layer) == 0;
  };
  KvCache whole = Pruned(*model_, *dense, 128, keep);
  EXPECT_NE(whole.rows(0), whole.rows(1));
  KvCache stepped = Pruned(*model_, *dense, 128, keep);
  absl::StatusOr<KvCache> fork = model_->Fork(stepped, 128, 300);
  ASSERT_TRUE(fork.ok()) << fork.status();
  EXPECT_FALSE(model_->Fork(stepped, 127, 300).ok());
  absl::StatusOr<Logits> all = model_->Prefill(prompt, whole, {.all_logits = true});
  ASSERT_TRUE(all.ok()) << all.status();
  for (KvCache* cache : {&stepped, &*fork}) {
    for (int64_t i = 128; i < 200; ++i) {
      const absl::StatusOr<Logits> row = model_->Decode(prompt[i], *cache);
      ASSERT_TRUE(row.ok());
      const auto expected = all->row(i - 128);
      ExpectSameBits(row->values, {expected.begin(), expected.end()});
    }
  }
  whole.set_length(140);
  absl::StatusOr<Logits> resumed = model_->Prefill(prompt, whole);
  ASSERT_TRUE(resumed.ok());
  const auto last = all->row(71);
  ExpectSameBits(resumed->values, {last.begin(), last.end()});
}

INSTANTIATE_TEST_SUITE_P(Models, Exactness,
                         testing::Combine(testing::Values(Architecture::kLlama,
                                                          Architecture::kQwen2),
                                          testing::Values(DType::kF32, DType::kBf16, DType::kF16)),
                         [](const testing::TestParamInfo<std::tuple<Architecture, DType>>& info) {
                           const char* dtype = std::get<1>(info.param) == DType::kF32    ? "F32"
                                               : std::get<1>(info.param) == DType::kBf16 ? "Bf16"
                                                                                         : "F16";
                           return std::string(ArchitectureName(std::get<0>(info.param))) + dtype;
                         });

TEST(Model, HooksSeeEveryLayerOfEveryChunkInOrder) {
  CpuDevice device(2);
  const auto model = MakeModel(TinyConfig(Architecture::kLlama, DType::kBf16), device);
  EXPECT_EQ(model->kv_dtype(), DType::kBf16);
  const std::vector<int32_t> prompt = Prompt(150);
  absl::StatusOr<KvCache> dense = model->NewCache(150);
  std::vector<std::string> calls;
  const PrefillOptions options{.wait_for_layer =
                                   [&](int64_t layer) {
                                     calls.push_back("wait " + std::to_string(layer));
                                     return absl::OkStatus();
                                   },
                               .on_layer_done =
                                   [&](int64_t layer, int64_t first, int64_t tokens) {
                                     calls.push_back(std::to_string(layer) + " " +
                                                     std::to_string(first) + " " +
                                                     std::to_string(tokens));
                                   }};
  absl::StatusOr<Logits> expected = model->Prefill(prompt, *dense, options);
  ASSERT_TRUE(expected.ok());
  EXPECT_EQ(calls, (std::vector<std::string>{"0 0 64", "1 0 64", "2 0 64", "0 64 64", "1 64 64",
                                             "2 64 64", "0 128 22", "1 128 22", "2 128 22"}));

  // KV that arrives layer by layer, in the hook.
  calls.clear();
  absl::StatusOr<KvCache> resumed = model->NewCache(150);
  resumed->set_length(64);
  PrefillOptions arriving = options;
  arriving.wait_for_layer = [&](int64_t layer) {
    calls.push_back("wait " + std::to_string(layer));
    for (Component component : {Component::kK, Component::kV}) {
      const auto source = dense->PartSpan(layer, component, 0, 64);
      std::memcpy(resumed->PartSpan(layer, component, 0, 64).data(), source.data(), source.size());
    }
    return absl::OkStatus();
  };
  absl::StatusOr<Logits> logits = model->Prefill(prompt, *resumed, arriving);
  ASSERT_TRUE(logits.ok());
  EXPECT_EQ(calls, (std::vector<std::string>{"wait 0", "0 64 64", "wait 1", "1 64 64", "wait 2",
                                             "2 64 64", "0 128 22", "1 128 22", "2 128 22"}));
  ExpectSameBits(logits->values, expected->values);
}

TEST(Model, AFailedWaitLeavesTheLengthAndADensePrefillWorks) {
  CpuDevice device(2);
  const auto model = MakeModel(TinyConfig(Architecture::kLlama, DType::kF32), device);
  const std::vector<int32_t> prompt = Prompt(100);
  absl::StatusOr<KvCache> cache = model->NewCache(100);
  absl::StatusOr<Logits> expected = model->Prefill(prompt, *cache);
  cache->set_length(64);
  const PrefillOptions failing{.wait_for_layer = [](int64_t layer) {
    return layer == 1 ? absl::UnavailableError("lost") : absl::OkStatus();
  }};
  EXPECT_EQ(model->Prefill(prompt, *cache, failing).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(cache->length(), 64);
  cache->set_length(0);
  ExpectSameBits(model->Prefill(prompt, *cache)->values, expected->values);
}

TEST(Model, RefusesBadCallsByName) {
  CpuDevice device(1);
  const auto model = MakeModel(TinyConfig(Architecture::kLlama, DType::kF32), device);
  absl::StatusOr<KvCache> cache = model->NewCache(64);
  ASSERT_TRUE(cache.ok());
  const std::vector<int32_t> bad = {1, 2, 260};
  EXPECT_EQ(model->Prefill(bad, *cache).status().message(), "tokens[2]: 260 is not in [0, 260)");
  EXPECT_EQ(model->Decode(-1, *cache).status().message(), "tokens[0]: -1 is not in [0, 260)");
  EXPECT_EQ(model->Prefill(Prompt(65), *cache).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(model->Prefill({}, *cache).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(model->NewCache(1025).status().message(),
            "max_tokens: 1025 is not in [1, max_position_embeddings = 1024]");
  absl::StatusOr<KvCache> other =
      KvCache::Create(device, {.layers = 2, .kv_heads = 2, .head_size = 16}, 64);
  ASSERT_TRUE(other.ok());
  EXPECT_EQ(model->Decode(1, *other).status().message(), "cache: its geometry is not the model's");
  EXPECT_EQ(Model::Load("/nonexistent", device).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(
      Model::Load(TempDirectory("checkpoint"), device, {.block_tokens = 48}).status().message(),
      "block_tokens: 48 is not a multiple of 32 in [32, 4096]");
}

TEST(Generate, StopsAndReplays) {
  CpuDevice device(2);
  const auto model = MakeModel(TinyConfig(Architecture::kQwen2, DType::kF32), device);
  const std::vector<int32_t> prompt = Prompt(40);
  GenerateOptions options{
      .max_tokens = 20, .sampling = {.temperature = 1.0f, .top_p = 0.9f}, .seed = 3};
  const auto run = [&] {
    absl::StatusOr<KvCache> cache = model->NewCache(100);
    absl::StatusOr<Logits> logits = model->Prefill(prompt, *cache);
    absl::StatusOr<std::vector<int32_t>> tokens = Generate(*model, *cache, *logits, options);
    EXPECT_TRUE(tokens.ok()) << tokens.status();
    EXPECT_EQ(cache->length(), 40 + static_cast<int64_t>(tokens->size()) - (tokens->size() == 20));
    return *tokens;
  };
  const std::vector<int32_t> tokens = run();
  EXPECT_EQ(tokens.size(), 20u);
  EXPECT_EQ(run(), tokens);
  options.seed = 4;
  EXPECT_NE(run(), tokens);
  options.seed = 3;
  options.stop_tokens = {tokens[5]};
  const std::vector<int32_t> stopped = run();
  EXPECT_LE(stopped.size(), 5u);
  EXPECT_TRUE(std::equal(stopped.begin(), stopped.end(), tokens.begin()));
}

}  // namespace
}  // namespace kedge
