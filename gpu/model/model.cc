#include "gpu/model/model.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "gpu/kernels/attention.h"
#include "gpu/kernels/cast.h"
#include "gpu/kernels/embedding.h"
#include "gpu/kernels/matmul.h"
#include "gpu/kernels/rmsnorm.h"
#include "gpu/kernels/rope.h"
#include "gpu/kernels/swiglu.h"
#include "gpu/model/twin.h"

namespace kedge {
namespace {

constexpr int64_t kBlockTokensMax = 4096;

absl::Status CheckOptions(const ModelOptions& options) {
  if (options.block_tokens < 32 || options.block_tokens > kBlockTokensMax ||
      options.block_tokens % 32 != 0) {
    return absl::InvalidArgumentError(absl::StrCat("block_tokens: ", options.block_tokens,
                                                   " is not a multiple of 32 in [32, ",
                                                   kBlockTokensMax, "]"));
  }
  if (options.kv_dtype.has_value() && !kernels::IsFloatDType(*options.kv_dtype)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "kv_dtype: ", static_cast<int>(*options.kv_dtype), " is not f32, f16 or bf16"));
  }
  return absl::OkStatus();
}

// Only the geometry of `config`; pointers are the caller's to set.
kernels::AttentionArgs AttentionGeometry(const ModelConfig& config, DType kv_dtype, int64_t first,
                                         int64_t rows) {
  kernels::AttentionArgs args;
  args.q_stride = (config.heads + 2 * config.kv_heads) * config.head_size;
  args.kv_dtype = kv_dtype;
  args.rows = rows;
  args.first_position = first;
  args.heads = config.heads;
  args.kv_heads = config.kv_heads;
  args.head_size = config.head_size;
  args.scale = 1.0f / std::sqrt(static_cast<float>(config.head_size));
  return args;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Model>> Model::Load(const std::string& directory, Device& device,
                                                   const ModelOptions& options) {
  CpuDevice* cpu = dynamic_cast<CpuDevice*>(&device);
  if (cpu == nullptr) {
    return absl::UnimplementedError(
        absl::StrCat("device: the reference runner needs the cpu device, not ", device.name()));
  }
  if (absl::Status status = CheckOptions(options); !status.ok()) return status;
  absl::StatusOr<ModelConfig> config = ReadModelConfig(directory);
  if (!config.ok()) return config.status();
  absl::StatusOr<ModelWeights> weights = LoadWeights(directory, *config, *cpu);
  if (!weights.ok()) return weights.status();
  if (absl::Status s = MakeTwin(*config, options.twin_scale, *weights); !s.ok()) return s;
  ModelOptions complete = options;
  if (!complete.kv_dtype.has_value()) complete.kv_dtype = config->dtype;
  return std::unique_ptr<Model>(new Model(*std::move(config), complete, *cpu, *std::move(weights)));
}

Model::Model(ModelConfig config, ModelOptions options, CpuDevice& device, ModelWeights weights)
    : config_(std::move(config)),
      options_(options),
      device_(device),
      weights_(std::move(weights)),
      rope_frequencies_(
          kernels::RopeFrequencies(config_.head_size, config_.rope_theta, config_.rope_scaling)) {
  const int64_t rows = options_.block_tokens;
  const int64_t q = config_.heads * config_.head_size;
  const int64_t widest = std::max({config_.hidden_size, config_.intermediate_size, q});
  work_.residual.resize(rows * config_.hidden_size);
  work_.normed.resize(rows * config_.hidden_size);
  work_.qkv.resize(rows * (q + 2 * config_.kv_heads * config_.head_size));
  work_.attention.resize(rows * q);
  work_.gate_up.resize(rows * 2 * config_.intermediate_size);
  work_.activation.resize(rows * config_.intermediate_size);
  work_.matmul.resize(kernels::MatMulScratchFloats(rows, widest));
  work_.attend.resize(
      kernels::AttentionScratchFloats(AttentionGeometry(config_, kv_dtype(), 0, rows)));
}

KvShape Model::kv_shape() const {
  return KvShape::KeysAndValues(static_cast<uint16_t>(config_.layers),
                                static_cast<uint16_t>(config_.kv_heads),
                                static_cast<uint16_t>(config_.head_size),
                                static_cast<uint16_t>(options_.block_tokens), kv_dtype());
}

absl::StatusOr<KvCache> Model::NewCache(int64_t max_tokens) const {
  if (max_tokens < 1 || max_tokens > config_.max_positions) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_tokens: ", max_tokens,
                     " is not in [1, max_position_embeddings = ", config_.max_positions, "]"));
  }
  const KvCache::Geometry geometry{config_.layers, config_.kv_heads, config_.head_size, kv_dtype()};
  return KvCache::Create(device_, geometry, max_tokens);
}

absl::StatusOr<KvCache> Model::Fork(const KvCache& cache, int64_t tokens,
                                    int64_t max_tokens) const {
  if (tokens < cache.pruned_tokens() || tokens > cache.length() || tokens > max_tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("tokens: ", tokens, " are not in a cache of ", cache.length(), " (of which ",
                     cache.pruned_tokens(), " were pruned), or not in max_tokens = ", max_tokens));
  }
  if (absl::Status status = CheckCache(cache, tokens); !status.ok()) return status;
  absl::StatusOr<KvCache> fork = NewCache(max_tokens);
  if (!fork.ok()) return fork;
  if (cache.pruned()) {
    std::vector<std::vector<int32_t>> kept;
    for (int64_t layer = 0; layer < config_.layers; ++layer)
      kept.emplace_back(cache.kept(layer).begin(), cache.kept(layer).end());
    absl::Status s = fork->SetPruned(cache.pruned_tokens(), std::move(kept));
    if (!s.ok()) return s;
  }
  for (int64_t layer = 0; layer < config_.layers; ++layer) {
    for (Component component : {Component::kK, Component::kV}) {
      const int64_t rows = cache.RowsFor(layer, tokens);
      const std::span<const uint8_t> from = cache.PartSpan(layer, component, 0, rows);
      std::memcpy(fork->PartSpan(layer, component, 0, rows).data(), from.data(), from.size());
    }
  }
  fork->set_length(tokens);
  return fork;
}

absl::Status Model::CheckCache(const KvCache& cache, int64_t tokens_after) const {
  const KvCache::Geometry& geometry = cache.geometry();
  if (geometry.layers != config_.layers || geometry.kv_heads != config_.kv_heads ||
      geometry.head_size != config_.head_size || geometry.dtype != kv_dtype()) {
    return absl::InvalidArgumentError("cache: its geometry is not the model's");
  }
  if (tokens_after > cache.capacity()) {
    return absl::OutOfRangeError(absl::StrCat(
        "cache: ", tokens_after, " tokens do not fit in a capacity of ", cache.capacity()));
  }
  return absl::OkStatus();
}

absl::Status Model::CheckTokens(std::span<const int32_t> tokens) const {
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= config_.vocabulary) {
      return absl::InvalidArgumentError(
          absl::StrCat("tokens[", i, "]: ", tokens[i], " is not in [0, ", config_.vocabulary, ")"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Logits> Model::Prefill(std::span<const int32_t> tokens, KvCache& cache,
                                      const PrefillOptions& options) {
  const int64_t total = static_cast<int64_t>(tokens.size());
  const int64_t start = cache.length();
  if (start >= total) {
    return absl::InvalidArgumentError(absl::StrCat("tokens: all ", total,
                                                   " are in the cache already (length ", start,
                                                   "); at least one must be computed"));
  }
  if (absl::Status status = CheckCache(cache, total); !status.ok()) return status;
  if (absl::Status status = CheckTokens(tokens); !status.ok()) return status;
  if (options.visible && cache.pruned())
    return absl::InvalidArgumentError("visible: a pruned cache has no key of every token to hide");
  Logits logits{.values = {}, .vocabulary = config_.vocabulary};
  for (int64_t first = start; first < total;) {
    const int64_t border = (first / options_.block_tokens + 1) * options_.block_tokens;
    const int64_t rows = std::min(border, total) - first;
    const bool wait = first == start && start > 0;
    absl::Status status = RunChunk(tokens.subspan(first, rows), first, cache, options, wait);
    if (!status.ok()) return status;
    first += rows;
    if (options.all_logits) {
      AppendLogits(rows, rows, logits);
    } else if (first == total) {
      AppendLogits(rows, 1, logits);
    }
  }
  return logits;
}

absl::StatusOr<Logits> Model::Decode(int32_t token, KvCache& cache) {
  const std::span<const int32_t> one(&token, 1);
  if (absl::Status status = CheckCache(cache, cache.length() + 1); !status.ok()) return status;
  if (absl::Status status = CheckTokens(one); !status.ok()) return status;
  absl::Status status = RunChunk(one, cache.length(), cache, PrefillOptions(), false);
  if (!status.ok()) return status;
  Logits logits{.values = {}, .vocabulary = config_.vocabulary};
  AppendLogits(1, 1, logits);
  return logits;
}

absl::Status Model::RunChunk(std::span<const int32_t> tokens, int64_t first, KvCache& cache,
                             const PrefillOptions& options, bool wait) {
  const int64_t rows = static_cast<int64_t>(tokens.size());
  const kernels::RopeTable rope = kernels::MakeRopeTable(rope_frequencies_, first, rows);
  kernels::Embedding(device_, weights_.embedding.as<float>(), tokens.data(), rows,
                     config_.hidden_size, work_.residual.data());
  work_.visible.clear();
  if (options.visible) {
    for (int64_t token = first; token < first + rows; ++token) {
      for (int64_t key = 0; key < first + rows; ++key)
        work_.visible.push_back(key == token || (key < token && options.visible(token, key)));
    }
  }
  for (int64_t layer = 0; layer < config_.layers; ++layer) {
    if (wait && options.wait_for_layer) {
      if (absl::Status status = options.wait_for_layer(layer); !status.ok()) return status;
    }
    AttentionBlock(layer, first, rows, rope, cache, options);
    if (options.on_layer_done) options.on_layer_done(layer, first, rows);
    MlpBlock(layer, rows);
  }
  cache.set_length(first + rows);
  return absl::OkStatus();
}

void Model::AttentionBlock(int64_t layer, int64_t first, int64_t rows,
                           const kernels::RopeTable& rope, KvCache& cache,
                           const PrefillOptions& options) {
  const LayerWeights& weights = weights_.layers[layer];
  kernels::RmsNorm(device_, work_.residual.data(), weights.attention_norm.as<float>(),
                   config_.rms_norm_epsilon, rows, config_.hidden_size, work_.normed.data());
  Multiply(weights.qkv, work_.normed.data(), nullptr, rows, work_.qkv.data());
  if (options.on_keys) {
    options.on_keys(layer, first, rows, work_.qkv.data() + config_.heads * config_.head_size,
                    weights.qkv.outputs);
  }
  if (options.on_queries)
    options.on_queries(layer, first, rows, work_.qkv.data(), weights.qkv.outputs);
  // Queries and keys stand side by side, so one pass rotates both.
  kernels::Rope(device_, rope, rows, config_.heads + config_.kv_heads, config_.head_size,
                weights.qkv.outputs, work_.qkv.data());
  StoreKv(layer, first, rows, cache);

  // In rows of the layer: behind a pruned context they are fewer than positions, and all of the
  // context's stand before every new token, so that the order of rows is the causal one.
  const int64_t held = cache.RowsFor(layer, first);
  kernels::AttentionArgs args = AttentionGeometry(config_, kv_dtype(), held, rows);
  args.q = work_.qkv.data();
  args.k = cache.PartSpan(layer, Component::kK, 0, held + rows).data();
  args.v = cache.PartSpan(layer, Component::kV, 0, held + rows).data();
  args.out = work_.attention.data();
  args.scratch = work_.attend.data();
  if (!work_.visible.empty()) args.visible = work_.visible.data();
  if (options.on_attention) options.on_attention(layer, args);
  if (options.on_attention_done) {
    work_.log_sum_exp.resize(rows * config_.heads);
    args.log_sum_exp = work_.log_sum_exp.data();
  }
  kernels::Attention(device_, args);
  if (options.on_attention_done) options.on_attention_done(layer, args);
  Multiply(weights.output, work_.attention.data(), work_.residual.data(), rows,
           work_.residual.data());
}

void Model::StoreKv(int64_t layer, int64_t first, int64_t rows, KvCache& cache) {
  const int64_t width = config_.kv_heads * config_.head_size;
  const float* k = work_.qkv.data() + config_.heads * config_.head_size;
  const int64_t stride = (config_.heads + 2 * config_.kv_heads) * config_.head_size;
  const int64_t held = cache.RowsFor(layer, first);
  for (int64_t row = 0; row < rows; ++row) {
    const float* from = k + row * stride;
    kernels::CastFromFloat(kv_dtype(), from, width,
                           cache.PartSpan(layer, Component::kK, held + row, 1).data());
    kernels::CastFromFloat(kv_dtype(), from + width, width,
                           cache.PartSpan(layer, Component::kV, held + row, 1).data());
  }
}

void Model::MlpBlock(int64_t layer, int64_t rows) {
  const LayerWeights& weights = weights_.layers[layer];
  kernels::RmsNorm(device_, work_.residual.data(), weights.mlp_norm.as<float>(),
                   config_.rms_norm_epsilon, rows, config_.hidden_size, work_.normed.data());
  Multiply(weights.gate_up, work_.normed.data(), nullptr, rows, work_.gate_up.data());
  kernels::SwiGlu(device_, work_.gate_up.data(), rows, config_.intermediate_size,
                  work_.activation.data());
  Multiply(weights.down, work_.activation.data(), work_.residual.data(), rows,
           work_.residual.data());
}

void Model::Multiply(const Linear& linear, const float* x, const float* residual, int64_t rows,
                     float* y) {
  kernels::MatMul(device_, {.x = x,
                            .packed = linear.packed.as<float>(),
                            .bias = linear.bias.as<float>(),
                            .residual = residual,
                            .y = y,
                            .scratch = work_.matmul.data(),
                            .rows = rows,
                            .inputs = linear.inputs,
                            .outputs = linear.outputs});
}

void Model::AppendLogits(int64_t chunk_rows, int64_t rows, Logits& logits) {
  const int64_t hidden = config_.hidden_size;
  kernels::RmsNorm(device_, work_.residual.data() + (chunk_rows - rows) * hidden,
                   weights_.final_norm.as<float>(), config_.rms_norm_epsilon, rows, hidden,
                   work_.normed.data());
  const size_t end = logits.values.size();
  logits.values.resize(end + rows * config_.vocabulary);
  Multiply(weights_.logits, work_.normed.data(), nullptr, rows, logits.values.data() + end);
}

}  // namespace kedge
