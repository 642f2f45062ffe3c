#include "gpu/profile/kv_samples.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gpu/codec/part_header.h"
#include "gpu/codec/part_rows.h"
#include "gpu/kernels/cast.h"
#include "gpu/model/safetensors.h"

namespace kedge::profile {
namespace {

constexpr int kDraws = 4;  // keys that a query is counted with

double NextShare(uint64_t& state) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return static_cast<double>(state >> 11) * 0x1p-53;
}

// m += weight x x^T
void AddOuter(const float* x, int64_t n, double weight, double* m) {
  for (int64_t i = 0; i < n; ++i) {
    const double scaled = weight * x[i];
    for (int64_t j = 0; j < n; ++j) m[i * n + j] += scaled * x[j];
  }
}

}  // namespace

absl::StatusOr<OutputProjections> ReadOutputProjections(const std::string& directory,
                                                        const ModelConfig& config) {
  absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(directory);
  if (!checkpoint.ok()) return checkpoint.status();
  const int64_t inputs = config.heads * config.head_size;
  OutputProjections projections;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    std::vector<float>& matrix = projections.emplace_back(config.hidden_size * inputs);
    const absl::Status s =
        checkpoint->Read(absl::StrCat("model.layers.", layer, ".self_attn.o_proj.weight"),
                         {config.hidden_size, inputs}, matrix.data());
    if (!s.ok()) return s;
  }
  return projections;
}

KvSampler::KvSampler(Model& model, const OutputProjections& projections, int64_t tokens_max)
    : model_(model), projections_(projections), tokens_max_(tokens_max) {
  const ModelConfig& config = model.config();
  samples_.layers = config.layers;
  samples_.kv_heads = config.kv_heads;
  samples_.head_size = config.head_size;
  samples_.parts.resize(config.layers * 2);
  for (PartSamples& part : samples_.parts)
    part.metric.resize(config.kv_heads * config.head_size * config.head_size);
  attention_squared_.resize(config.layers * config.heads);
}

absl::Status KvSampler::Add(std::span<const int32_t> context,
                            std::span<const std::vector<int32_t>> continuations) {
  size_t longest = 0;
  for (const std::vector<int32_t>& tokens : continuations)
    longest = std::max(longest, tokens.size());
  const auto length = static_cast<int64_t>(context.size());
  const int64_t most = length + static_cast<int64_t>(longest);
  const int64_t half = samples_.head_size / 2;
  if (static_cast<int64_t>(rope_.cos.size()) < most * half) rope_ = model_.RopeTableAt(0, most);
  absl::StatusOr<KvCache> cache = model_.NewCache(most);
  if (!cache.ok()) return cache.status();
  PrefillOptions options;
  options.on_attention = [this](int64_t layer, const kernels::AttentionArgs& attention) {
    Observe(layer, attention);
  };
  if (absl::Status s = model_.Prefill(context, *cache, options).status(); !s.ok()) return s;
  TakeRows(*cache, length);
  std::vector<int32_t> all;
  for (const std::vector<int32_t>& tokens : continuations) {
    if (tokens.empty()) continue;
    all.assign(context.begin(), context.end());
    all.insert(all.end(), tokens.begin(), tokens.end());
    if (absl::Status s = model_.Prefill(all, *cache, options).status(); !s.ok()) return s;
    cache->set_length(length);
  }
  return absl::OkStatus();
}

void KvSampler::TakeRows(const KvCache& cache, int64_t tokens) {
  const int64_t first = codec::kRawTokens;
  const int64_t count = std::min(tokens - first, tokens_max_ - samples_.tokens);
  if (count <= 0) return;
  const kernels::RopeTable rope = model_.RopeTableAt(0, tokens);
  for (int64_t layer = 0; layer < samples_.layers; ++layer) {
    for (const Component component : {Component::kK, Component::kV}) {
      const std::span<const uint8_t> part = cache.PartSpan(layer, component, 0, tokens);
      const codec::SourceRows source{.dtype = model_.kv_dtype(),
                                     .data = part.data(),
                                     .rope = component == Component::kK ? &rope : nullptr};
      std::vector<float>& rows = samples_.part(layer, component).rows;
      const size_t at = rows.size();
      rows.resize(at + count * samples_.width());
      for (int64_t t = 0; t < count; ++t) {
        codec::ReadRow(source, first + t, samples_.kv_heads, samples_.head_size,
                       rows.data() + at + t * samples_.width());
      }
    }
  }
  samples_.tokens += count;
}

void KvSampler::Observe(int64_t layer, const kernels::AttentionArgs& attention) {
  const int64_t keys = attention.first_position + attention.rows;
  keys_.resize(keys * samples_.width());
  values_.resize(keys * samples_.width());
  kernels::CastToFloat(attention.kv_dtype, attention.k, keys * samples_.width(), keys_.data());
  kernels::CastToFloat(attention.kv_dtype, attention.v, keys * samples_.width(), values_.data());
  scale_ = attention.scale;
  for (int64_t row = 0; row < attention.rows; ++row) {
    for (int64_t head = 0; head < attention.heads; ++head) {
      ObserveHead(layer, head, attention.q + row * attention.q_stride + head * samples_.head_size,
                  attention.first_position + row + 1);
    }
  }
}

void KvSampler::ObserveHead(int64_t layer, int64_t head, const float* query, int64_t keys) {
  const int64_t size = samples_.head_size;
  const int64_t heads = model_.config().heads;
  const int64_t kv_head = head / (heads / samples_.kv_heads);
  const int64_t at = kv_head * size;
  std::vector<float> weight(keys);
  float largest = -1e30f;
  for (int64_t j = 0; j < keys; ++j) {
    const float* key = keys_.data() + j * samples_.width() + at;
    float dot = 0.0f;
    for (int64_t i = 0; i < size; ++i) dot += query[i] * key[i];
    weight[j] = dot * scale_;
    largest = std::max(largest, weight[j]);
  }
  double sum = 0;
  for (float& w : weight) sum += w = std::exp(w - largest);
  std::vector<float> out(size);
  double squared = 0;
  for (int64_t j = 0; j < keys; ++j) {
    weight[j] = static_cast<float>(weight[j] / sum);
    const float* value = values_.data() + j * samples_.width() + at;
    for (int64_t i = 0; i < size; ++i) out[i] += weight[j] * value[i];
    if (j >= codec::kRawTokens) squared += weight[j] * weight[j];
  }
  attention_squared_[layer * heads + head] += squared;

  // From attention to how much an error of each logit matters.
  double total = 0;
  for (int64_t j = 0; j < keys; ++j) {
    const float* value = values_.data() + j * samples_.width() + at;
    double distance = 0;
    for (int64_t i = 0; i < size; ++i) distance += (value[i] - out[i]) * (value[i] - out[i]);
    weight[j] = j < codec::kRawTokens ? 0.0f : static_cast<float>(weight[j] * weight[j] * distance);
    total += weight[j];
  }
  if (!(total > 0)) return;
  double* metric = samples_.part(layer, Component::kK).metric.data() + kv_head * size * size;
  const int64_t half = size / 2;
  std::vector<float> turned(size);
  for (int draw = 0; draw < kDraws; ++draw) {
    double left = NextShare(random_) * total;
    int64_t j = codec::kRawTokens;
    while (j + 1 < keys && (left -= weight[j]) > 0) ++j;
    for (int64_t i = 0; i < half; ++i) {
      const float cos = rope_.cos[j * half + i];
      const float sin = rope_.sin[j * half + i];
      turned[i] = query[i] * cos + query[i + half] * sin;
      turned[i + half] = query[i + half] * cos - query[i] * sin;
    }
    AddOuter(turned.data(), size, total / kDraws, metric);
  }
}

KvSamples KvSampler::Take() {
  const ModelConfig& config = model_.config();
  const int64_t size = config.head_size;
  const int64_t inputs = config.heads * size;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    std::vector<double>& metric = samples_.part(layer, Component::kV).metric;
    for (int64_t head = 0; head < config.heads; ++head) {
      double* m = metric.data() + head / (config.heads / config.kv_heads) * size * size;
      for (int64_t row = 0; row < config.hidden_size; ++row) {
        AddOuter(projections_[layer].data() + row * inputs + head * size, size,
                 attention_squared_[layer * config.heads + head], m);
      }
    }
  }
  return std::exchange(samples_, {});
}

}  // namespace kedge::profile
