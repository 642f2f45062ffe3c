#include "tests/quality/attention_error.h"

#include <cmath>
#include <span>

#include "gpu/kernels/attention.h"

namespace kedge::quality {
namespace {

template <typename T>
void Append(std::vector<T>& to, std::span<const T> from) {
  to.insert(to.end(), from.begin(), from.end());
}

}  // namespace

absl::StatusOr<AttentionProbe> AttentionProbe::Record(Model& model, KvCache& dense,
                                                      const EvalContext& context,
                                                      const EvalQuestion& question) {
  const ModelConfig& config = model.config();
  const int64_t length = dense.length();
  std::vector<int32_t> sequence = context.tokens;
  sequence.insert(sequence.end(), question.tokens.begin(), question.tokens.end());
  sequence.insert(sequence.end(), question.answer.begin(), question.answer.end() - 1);

  AttentionProbe probe;
  probe.layers_.resize(config.layers);
  probe.rows_ = static_cast<int64_t>(sequence.size()) - length;
  PrefillOptions options;
  options.on_attention = [&](int64_t layer, const kernels::AttentionArgs& args) {
    const auto width = static_cast<size_t>(args.heads * args.head_size);
    for (int64_t r = 0; r < args.rows; ++r)
      Append<float>(probe.layers_[layer].queries, {args.q + r * args.q_stride, width});
  };
  if (absl::Status s = model.Prefill(sequence, dense, options).status(); !s.ok()) return s;
  for (size_t l = 0; l < probe.layers_.size(); ++l) {
    Layer& layer = probe.layers_[l];
    const auto index = static_cast<int64_t>(l);
    Append<uint8_t>(layer.keys, dense.PartSpan(index, Component::kK, length, probe.rows_));
    Append<uint8_t>(layer.values, dense.PartSpan(index, Component::kV, length, probe.rows_));
  }
  dense.set_length(length);
  for (size_t l = 0; l < probe.layers_.size(); ++l)
    probe.layers_[l].outputs = probe.OutputsOf(model, dense, l);
  return probe;
}

std::vector<float> AttentionProbe::OutputsOf(Model& model, const KvCache& cache,
                                             size_t index) const {
  const ModelConfig& config = model.config();
  const Layer& layer = layers_[index];
  const auto l = static_cast<int64_t>(index);
  const int64_t kept = cache.rows(l);
  std::vector<uint8_t> keys;
  std::vector<uint8_t> values;
  Append<uint8_t>(keys, cache.PartSpan(l, Component::kK, 0, kept));
  Append<uint8_t>(keys, layer.keys);
  Append<uint8_t>(values, cache.PartSpan(l, Component::kV, 0, kept));
  Append<uint8_t>(values, layer.values);
  std::vector<float> outputs(layer.queries.size());
  kernels::AttentionArgs args{.q = layer.queries.data(),
                              .q_stride = config.heads * config.head_size,
                              .k = keys.data(),
                              .v = values.data(),
                              .kv_dtype = model.kv_dtype(),
                              .out = outputs.data(),
                              .rows = rows_,
                              .first_position = kept,
                              .heads = config.heads,
                              .kv_heads = config.kv_heads,
                              .head_size = config.head_size,
                              .scale = 1.0f / std::sqrt(static_cast<float>(config.head_size))};
  std::vector<float> scratch(kernels::AttentionScratchFloats(args));
  args.scratch = scratch.data();
  kernels::Attention(model.device(), args);
  return outputs;
}

std::vector<double> AttentionProbe::ErrorsOf(Model& model, const KvCache& cache) const {
  const auto size = static_cast<size_t>(model.config().head_size);
  std::vector<double> errors;
  for (size_t l = 0; l < layers_.size(); ++l) {
    const std::vector<float>& dense = layers_[l].outputs;
    const std::vector<float> outputs = OutputsOf(model, cache, l);
    double sum = 0.0;
    for (size_t head = 0; head < dense.size(); head += size) {
      double error = 0.0;
      double norm = 0.0;
      for (size_t i = head; i < head + size; ++i) {
        error += (outputs[i] - dense[i]) * (outputs[i] - dense[i]);
        norm += dense[i] * dense[i];
      }
      if (norm > 0.0) sum += std::sqrt(error / norm);
    }
    errors.push_back(sum / static_cast<double>(dense.size() / size));
  }
  return errors;
}

}  // namespace kedge::quality
