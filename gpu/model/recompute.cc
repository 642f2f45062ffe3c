#include "gpu/model/recompute.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/base/internal/raw_logging.h"
#include "absl/strings/str_cat.h"
#include "gpu/kernels/cast.h"
#include "gpu/kernels/column_mass.h"
#include "gpu/kernels/embedding.h"
#include "gpu/kernels/rmsnorm.h"
#include "gpu/kernels/value_deviation.h"

namespace kedge {
namespace {

// Operations of one row in a layer's products, and of one row for one key.
struct RowOperations {
  explicit RowOperations(const ModelConfig& config)
      : project(2.0 * static_cast<double>(config.hidden_size) *
                static_cast<double>((config.heads + 2 * config.kv_heads) * config.head_size)),
        finish(2.0 * static_cast<double>(config.hidden_size) *
               static_cast<double>(config.heads * config.head_size + 3 * config.intermediate_size)),
        key(4.0 * static_cast<double>(config.heads * config.head_size)) {}
  double project;
  double finish;
  double key;
};

kernels::RopeTable TableOf(const Model& model, std::span<const int32_t> positions) {
  kernels::RopeTable table;
  for (const int32_t position : positions) {
    const kernels::RopeTable row = model.RopeTableAt(position, 1);
    table.cos.insert(table.cos.end(), row.cos.begin(), row.cos.end());
    table.sin.insert(table.sin.end(), row.sin.begin(), row.sin.end());
  }
  return table;
}

}  // namespace

double DenseOperations(const ModelConfig& config, int64_t tokens) {
  const RowOperations row(config);
  const auto n = static_cast<double>(tokens);
  return static_cast<double>(config.layers) *
         (n * (row.project + row.finish) + row.key * n * (n + 1) / 2);
}

Recomputation::Recomputation(Model& model, std::span<const int32_t> positions, KvCache& cache,
                             LayerHook wait_for_layer)
    : model_(&model),
      cache_(&cache),
      wait_for_layer_(std::move(wait_for_layer)),
      positions_(positions.begin(), positions.end()),
      rope_(TableOf(model, positions)),
      residual_(positions.size() * model.config().hidden_size) {}

absl::Status Recomputation::Check(const Model& model, std::span<const int32_t> positions,
                                  const KvCache& cache) {
  if (absl::Status s = model.CheckCache(cache, cache.length()); !s.ok()) return s;
  if (cache.pruned())
    return absl::InvalidArgumentError("cache: it was pruned, and has no row of every token");
  for (size_t i = 0; i < positions.size(); ++i) {
    if (positions[i] < 0 || positions[i] >= cache.length() ||
        (i > 0 && positions[i] <= positions[i - 1])) {
      return absl::InvalidArgumentError(absl::StrCat("positions[", i, "]: ", positions[i],
                                                     " does not ascend inside [0, ", cache.length(),
                                                     ")"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Recomputation> Recomputation::Start(Model& model, std::span<const int32_t> tokens,
                                                   std::span<const int32_t> positions,
                                                   KvCache& cache, LayerHook wait_for_layer) {
  if (static_cast<int64_t>(tokens.size()) != cache.length()) {
    return absl::InvalidArgumentError(
        absl::StrCat("tokens: ", tokens.size(), " for a cache of ", cache.length()));
  }
  if (absl::Status s = Check(model, positions, cache); !s.ok()) return s;
  std::vector<int32_t> chosen;
  for (const int32_t position : positions) chosen.push_back(tokens[position]);
  if (absl::Status s = model.CheckTokens(chosen); !s.ok()) return s;
  Recomputation run(model, positions, cache, std::move(wait_for_layer));
  kernels::Embedding(model.device_, model.weights_.embedding.as<float>(), chosen.data(), run.rows(),
                     model.config_.hidden_size, run.residual_.data());
  return run;
}

absl::StatusOr<Recomputation> Recomputation::StartFrom(Model& model, const From& from,
                                                       std::span<const int32_t> positions,
                                                       KvCache& cache, LayerHook wait_for_layer) {
  if (absl::Status s = Check(model, positions, cache); !s.ok()) return s;
  if (from.layer < 0 || from.layer > model.config().layers) {
    return absl::InvalidArgumentError(
        absl::StrCat("from.layer: ", from.layer, " is not in [0, ", model.config().layers, "]"));
  }
  Recomputation run(model, positions, cache, std::move(wait_for_layer));
  if (from.hidden.size() != run.residual_.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("from.hidden: ", from.hidden.size(), " values, not ", run.residual_.size()));
  }
  run.layer_ = from.layer;
  std::copy(from.hidden.begin(), from.hidden.end(), run.residual_.begin());
  return run;
}

void Recomputation::Expect(Step step, const char* call) const {
  if (step_ != step || done()) ABSL_RAW_LOG(FATAL, "Recomputation::%s: not its turn", call);
}

absl::Status Recomputation::Project() {
  Expect(Step::kBetween, "Project");
  Model& model = *model_;
  const ModelConfig& config = model.config_;
  const LayerWeights& weights = model.weights_.layers[layer_];
  const int64_t width = weights.qkv.outputs;
  qkv_.resize(rows() * width);
  for (int64_t first = 0; first < rows(); first += model.block_tokens()) {
    const int64_t count = std::min(model.block_tokens(), rows() - first);
    kernels::RmsNorm(model.device_, residual_.data() + first * config.hidden_size,
                     weights.attention_norm.as<float>(), config.rms_norm_epsilon, count,
                     config.hidden_size, model.work_.normed.data());
    model.Multiply(weights.qkv, model.work_.normed.data(), nullptr, count,
                   qkv_.data() + first * width);
  }
  kernels::Rope(model.device_, rope_, rows(), config.heads + config.kv_heads, config.head_size,
                width, qkv_.data());
  operations_ += static_cast<double>(rows()) * RowOperations(config).project;
  if (wait_for_layer_) {
    if (absl::Status s = wait_for_layer_(layer_); !s.ok()) return s;
  }
  step_ = Step::kProjected;
  return absl::OkStatus();
}

std::vector<float> Recomputation::ValueDeviation() const {
  Expect(Step::kProjected, "ValueDeviation");
  const ModelConfig& config = model_->config_;
  const int64_t width = config.kv_heads * config.head_size;
  const int64_t stride = (config.heads + 2 * config.kv_heads) * config.head_size;
  std::vector<float> deviation(rows());
  if (deviation.empty()) return deviation;
  kernels::ValueDeviation(
      {.dtype = model_->kv_dtype(),
       .fresh = qkv_.data() + stride - width,
       .fresh_stride = stride,
       .cached = cache_->PartSpan(layer_, Component::kV, 0, cache_->length()).data(),
       .positions = positions_.data(),
       .rows = rows(),
       .width = width,
       .deviation = deviation.data()});
  return deviation;
}

void Recomputation::WriteKv() {
  Expect(Step::kProjected, "WriteKv");
  const ModelConfig& config = model_->config_;
  const DType dtype = model_->kv_dtype();
  const int64_t width = config.kv_heads * config.head_size;
  const int64_t stride = (config.heads + 2 * config.kv_heads) * config.head_size;
  for (int64_t row = 0; row < rows(); ++row) {
    const float* values = qkv_.data() + (row + 1) * stride - width;
    const int64_t token = positions_[row];
    kernels::CastFromFloat(dtype, values - width, width,
                           cache_->PartSpan(layer_, Component::kK, token, 1).data());
    kernels::CastFromFloat(dtype, values, width,
                           cache_->PartSpan(layer_, Component::kV, token, 1).data());
  }
  step_ = Step::kWritten;
}

std::vector<float> Recomputation::AttentionOfLast(int64_t queries) {
  Expect(Step::kWritten, "AttentionOfLast");
  const int64_t length = cache_->length();
  ABSL_RAW_CHECK(queries > 0 && queries <= rows() && positions_.back() == length - 1 &&
                     positions_[rows() - queries] == length - queries,
                 "AttentionOfLast: the queries are not the sequence's last rows");
  const ModelConfig& config = model_->config_;
  kernels::AttentionArgs args;
  args.q_stride = (config.heads + 2 * config.kv_heads) * config.head_size;
  args.q = qkv_.data() + (rows() - queries) * args.q_stride;
  args.k = cache_->PartSpan(layer_, Component::kK, 0, length).data();
  args.v = cache_->PartSpan(layer_, Component::kV, 0, length).data();
  args.kv_dtype = model_->kv_dtype();
  args.rows = queries;
  args.first_position = length - queries;
  args.heads = config.heads;
  args.kv_heads = config.kv_heads;
  args.head_size = config.head_size;
  args.scale = 1.0f / std::sqrt(static_cast<float>(config.head_size));
  std::vector<float> out(queries * config.heads * config.head_size);
  std::vector<float> scratch(kernels::AttentionScratchFloats(args));
  std::vector<float> log_sum_exp(queries * config.heads);
  std::vector<float> mass(config.heads * length);
  args.out = out.data();
  args.scratch = scratch.data();
  args.log_sum_exp = log_sum_exp.data();
  kernels::Attention(model_->device_, args);
  kernels::ColumnMass(model_->device_, args, 0, length, mass.data());
  std::vector<float> mean(length);
  const float share = 1.0f / static_cast<float>(queries * config.heads);
  for (int64_t head = 0; head < config.heads; ++head) {
    for (int64_t token = 0; token < length; ++token)
      mean[token] += mass[head * length + token] * share;
  }
  operations_ += RowOperations(config).key * static_cast<double>(queries * length) / 2;
  return mean;
}

absl::Status Recomputation::Keep(std::span<const int32_t> positions) {
  Expect(Step::kWritten, "Keep");
  std::vector<int64_t> from;
  size_t row = 0;
  for (const int32_t position : positions) {
    while (row < positions_.size() && positions_[row] < position) ++row;
    if (row == positions_.size() || positions_[row] != position) {
      return absl::InvalidArgumentError(
          absl::StrCat("positions: ", position, " is not among the rows, or does not ascend"));
    }
    from.push_back(static_cast<int64_t>(row++));
  }
  // Rows only move forward, so in ascending order none is overwritten before it has moved.
  const auto gather = [&](std::vector<float>& array, int64_t width) {
    for (size_t to = 0; to < from.size(); ++to) {
      std::memmove(array.data() + static_cast<int64_t>(to) * width, array.data() + from[to] * width,
                   width * sizeof(float));
    }
    array.resize(from.size() * width);
  };
  const ModelConfig& config = model_->config_;
  gather(residual_, config.hidden_size);
  gather(qkv_, (config.heads + 2 * config.kv_heads) * config.head_size);
  gather(rope_.cos, config.head_size / 2);
  gather(rope_.sin, config.head_size / 2);
  positions_.assign(positions.begin(), positions.end());
  return absl::OkStatus();
}

void Recomputation::Finish() {
  Expect(Step::kWritten, "Finish");
  for (int64_t first = 0; first < rows(); first += model_->block_tokens())
    FinishRows(first, std::min(model_->block_tokens(), rows() - first));
  const RowOperations row(model_->config_);
  operations_ += static_cast<double>(rows()) * row.finish;
  for (const int32_t position : positions_) operations_ += row.key * (position + 1.0);
  ++layer_;
  step_ = Step::kBetween;
}

void Recomputation::FinishRows(int64_t first, int64_t rows) {
  Model& model = *model_;
  const ModelConfig& config = model.config_;
  const LayerWeights& weights = model.weights_.layers[layer_];
  const int64_t keys = positions_[first + rows - 1] + 1;
  kernels::AttentionArgs args;
  args.q_stride = weights.qkv.outputs;
  args.q = qkv_.data() + first * args.q_stride;
  args.k = cache_->PartSpan(layer_, Component::kK, 0, keys).data();
  args.v = cache_->PartSpan(layer_, Component::kV, 0, keys).data();
  args.kv_dtype = model.kv_dtype();
  args.out = model.work_.attention.data();
  args.scratch = model.work_.attend.data();
  args.rows = rows;
  args.positions = positions_.data() + first;
  args.heads = config.heads;
  args.kv_heads = config.kv_heads;
  args.head_size = config.head_size;
  args.scale = 1.0f / std::sqrt(static_cast<float>(config.head_size));
  kernels::Attention(model.device_, args);
  float* residual = residual_.data() + first * config.hidden_size;
  model.Multiply(weights.output, model.work_.attention.data(), residual, rows, residual);
  std::memcpy(model.work_.residual.data(), residual, rows * config.hidden_size * sizeof(float));
  model.MlpBlock(layer_, rows);
  std::memcpy(residual, model.work_.residual.data(), rows * config.hidden_size * sizeof(float));
}

absl::Status Recomputation::RunToEnd() {
  while (!done()) {
    if (absl::Status s = Project(); !s.ok()) return s;
    WriteKv();
    Finish();
  }
  return absl::OkStatus();
}

absl::StatusOr<Logits> Recomputation::LastLogits() {
  ABSL_RAW_CHECK(done(), "Recomputation::LastLogits: not its turn");
  if (positions_.empty()) return absl::InvalidArgumentError("positions: no row was computed");
  const int64_t hidden = model_->config_.hidden_size;
  std::memcpy(model_->work_.residual.data(), residual_.data() + (rows() - 1) * hidden,
              hidden * sizeof(float));
  Logits logits{.values = {}, .vocabulary = model_->config_.vocabulary};
  model_->AppendLogits(1, 1, logits);
  return logits;
}

}  // namespace kedge
