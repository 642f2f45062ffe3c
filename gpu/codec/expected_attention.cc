#include "gpu/codec/expected_attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/base/internal/raw_logging.h"
#include "absl/strings/str_cat.h"
#include "gpu/kernels/cast.h"
#include "proto/wire.h"

namespace kedge::codec {
namespace {

constexpr uint16_t kVersion = 1;
constexpr uint64_t kHeaderBytes = 16;

absl::Status Bad(const char* field, uint64_t value, const char* why) {
  return absl::InvalidArgumentError(
      absl::StrCat("profile section query_stats: ", field, ": ", value, " ", why));
}

// The mean rotation of some positions: pair i becomes (a cos - b sin, b cos + a sin).
struct MeanTurn {
  explicit MeanTurn(const kernels::RopeTable& table, int64_t pairs) : cos(pairs), sin(pairs) {
    const auto rows = static_cast<int64_t>(table.cos.size()) / pairs;
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t i = 0; i < pairs; ++i) {
        cos[i] += table.cos[row * pairs + i] / static_cast<double>(rows);
        sin[i] += table.sin[row * pairs + i] / static_cast<double>(rows);
      }
    }
  }
  // Elements i and i + pairs of x, `stride` apart.
  void Apply(double* x, int64_t stride) const {
    const auto pairs = static_cast<int64_t>(cos.size());
    for (int64_t i = 0; i < pairs; ++i) {
      double& low = x[i * stride];
      double& high = x[(i + pairs) * stride];
      const double a = low;
      const double b = high;
      low = a * cos[i] - b * sin[i];
      high = b * cos[i] + a * sin[i];
    }
  }
  std::vector<double> cos;
  std::vector<double> sin;
};

// mu' and S' of one head, scaled by 1 / sqrt(d) and 1 / (2 d).
struct TurnedQueries {
  TurnedQueries(const QueryStats& stats, int64_t layer, int64_t head, const MeanTurn& turn)
      : size(stats.head_size), mean(size), covariance(size * size) {
    const float* from = stats.mean_of(layer, head);
    std::copy(from, from + size, mean.begin());
    const float* triangle = stats.covariance_of(layer, head);
    for (int64_t i = 0; i < size; ++i) {
      for (int64_t j = 0; j <= i; ++j)
        covariance[i * size + j] = covariance[j * size + i] = *triangle++;
    }
    turn.Apply(mean.data(), 1);
    for (int64_t i = 0; i < size; ++i) turn.Apply(covariance.data() + i * size, 1);
    for (int64_t j = 0; j < size; ++j) turn.Apply(covariance.data() + j, size);
    const auto d = static_cast<double>(size);
    for (double& value : mean) value /= std::sqrt(d);
    for (double& value : covariance) value /= 2.0 * d;
  }
  double LogWeight(const float* key) const {
    double sum = 0.0;
    for (int64_t i = 0; i < size; ++i) {
      const double* row = covariance.data() + i * size;
      double dot = mean[i];
      for (int64_t j = 0; j < size; ++j) dot += row[j] * key[j];
      sum += dot * key[i];
    }
    return sum;
  }
  int64_t size;
  std::vector<double> mean;
  std::vector<double> covariance;
};

std::vector<float> Floats(DType dtype, std::span<const uint8_t> bytes, int64_t count) {
  ABSL_RAW_CHECK(static_cast<int64_t>(bytes.size()) == count * kernels::FloatBytes(dtype),
                 "a layer is [tokens][kv_heads][head_size]");
  std::vector<float> values(count);
  kernels::CastToFloat(dtype, bytes.data(), count, values.data());
  return values;
}

double Norm(const float* x, int64_t size) {
  double sum = 0.0;
  for (int64_t i = 0; i < size; ++i) sum += double{x[i]} * x[i];
  return std::sqrt(sum);
}

}  // namespace

QueryStatsBuilder::QueryStatsBuilder(int64_t layers, int64_t heads, int64_t head_size)
    : layers_(layers),
      heads_(heads),
      head_size_(head_size),
      queries_(layers),
      sums_(layers * heads * head_size),
      products_(layers * heads * (head_size * (head_size + 1) / 2)) {}

void QueryStatsBuilder::Add(int64_t layer, const float* queries, int64_t rows, int64_t stride) {
  queries_[layer] += static_cast<uint64_t>(rows);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t head = 0; head < heads_; ++head) {
      const float* q = queries + row * stride + head * head_size_;
      double* sum = sums_.data() + (layer * heads_ + head) * head_size_;
      double* product =
          products_.data() + (layer * heads_ + head) * (head_size_ * (head_size_ + 1) / 2);
      for (int64_t i = 0; i < head_size_; ++i) {
        sum[i] += q[i];
        for (int64_t j = 0; j <= i; ++j) *product++ += double{q[i]} * q[j];
      }
    }
  }
}

absl::StatusOr<QueryStats> QueryStatsBuilder::Build() const {
  QueryStats stats{.layers = static_cast<uint16_t>(layers_),
                   .heads = static_cast<uint16_t>(heads_),
                   .head_size = static_cast<uint16_t>(head_size_),
                   .queries = *std::min_element(queries_.begin(), queries_.end())};
  if (stats.queries == 0)
    return absl::FailedPreconditionError("query_stats: a layer saw no queries");
  for (int64_t i = 0; i < layers_ * heads_; ++i) {
    const auto n = static_cast<double>(queries_[i / heads_]);
    const double* sum = sums_.data() + i * head_size_;
    const double* product = products_.data() + i * stats.triangle();
    for (int64_t c = 0; c < head_size_; ++c) stats.mean.push_back(static_cast<float>(sum[c] / n));
    for (int64_t c = 0; c < head_size_; ++c) {
      for (int64_t e = 0; e <= c; ++e)
        stats.covariance.push_back(static_cast<float>(*product++ / n - sum[c] * sum[e] / (n * n)));
    }
  }
  return stats;
}

std::vector<uint8_t> EncodeQueryStats(const QueryStats& stats) {
  std::vector<uint8_t> bytes;
  WireWriter writer(bytes);
  writer.U16(kVersion);
  writer.U16(stats.layers);
  writer.U16(stats.heads);
  writer.U16(stats.head_size);
  writer.U64(stats.queries);
  for (const std::vector<float>* floats : {&stats.mean, &stats.covariance}) {
    writer.Bytes(
        {reinterpret_cast<const uint8_t*>(floats->data()), floats->size() * sizeof(float)});
  }
  return bytes;
}

absl::StatusOr<QueryStats> DecodeQueryStats(std::span<const uint8_t> bytes) {
  if (bytes.size() < kHeaderBytes) return Bad("bytes", bytes.size(), "are fewer than a header's");
  const uint8_t* from = bytes.data();
  const auto version = LoadLe<uint16_t>(from);
  if (version != kVersion) {
    return absl::UnimplementedError(absl::StrCat("profile section query_stats: version: ", version,
                                                 ", this program reads ", kVersion));
  }
  QueryStats stats{.layers = LoadLe<uint16_t>(from + 2),
                   .heads = LoadLe<uint16_t>(from + 4),
                   .head_size = LoadLe<uint16_t>(from + 6),
                   .queries = LoadLe<uint64_t>(from + 8)};
  if (stats.layers == 0) return Bad("layers", 0, "is not positive");
  if (stats.heads == 0) return Bad("heads", 0, "is not positive");
  if (stats.head_size == 0 || stats.head_size % 2 != 0)
    return Bad("head_size", stats.head_size, "is not even and positive");
  const uint64_t all = uint64_t{stats.layers} * stats.heads;
  const uint64_t floats = all * (stats.head_size + static_cast<uint64_t>(stats.triangle()));
  if ((bytes.size() - kHeaderBytes) / sizeof(float) != floats || bytes.size() % sizeof(float) != 0)
    return Bad("bytes", bytes.size(), "are not what layers, heads and head_size make");
  stats.mean.resize(all * stats.head_size);
  stats.covariance.resize(all * stats.triangle());
  from += kHeaderBytes;
  std::memcpy(stats.mean.data(), from, stats.mean.size() * sizeof(float));
  std::memcpy(stats.covariance.data(), from + stats.mean.size() * sizeof(float),
              stats.covariance.size() * sizeof(float));
  for (size_t i = 0; i < stats.mean.size(); ++i)
    if (!std::isfinite(stats.mean[i])) return Bad("mean", i, "is not finite");
  for (size_t i = 0; i < stats.covariance.size(); ++i)
    if (!std::isfinite(stats.covariance[i])) return Bad("covariance", i, "is not finite");
  return stats;
}

void ExpectedAttentionScores(const QueryStats& stats, int64_t stats_layer, DType dtype,
                             std::span<const uint8_t> keys, std::span<const uint8_t> values,
                             int64_t kv_heads, const kernels::RopeTable& ahead, int64_t layer,
                             TokenScores& scores) {
  const int64_t size = stats.head_size;
  ABSL_RAW_CHECK(scores.heads == stats.heads && stats.heads % kv_heads == 0 &&
                     stats_layer < stats.layers && !ahead.cos.empty() &&
                     static_cast<int64_t>(ahead.cos.size()) % (size / 2) == 0,
                 "ExpectedAttentionScores: another geometry");
  const int64_t count = scores.tokens * kv_heads * size;
  const std::vector<float> k = Floats(dtype, keys, count);
  const std::vector<float> v = Floats(dtype, values, count);
  const MeanTurn turn(ahead, size / 2);
  for (int64_t head = 0; head < scores.heads; ++head) {
    const int64_t kv_head = head / (stats.heads / kv_heads);
    const TurnedQueries queries(stats, stats_layer, head, turn);
    std::vector<double> weights(scores.tokens);
    for (int64_t t = 0; t < scores.tokens; ++t)
      weights[t] = queries.LogWeight(k.data() + (t * kv_heads + kv_head) * size);
    const double largest = *std::max_element(weights.begin(), weights.end());
    double total = 0.0;
    for (double& weight : weights) total += weight = std::exp(weight - largest);
    const std::span<float> out = scores.of(layer, head);
    for (int64_t t = 0; t < scores.tokens; ++t) {
      const double norm = Norm(v.data() + (t * kv_heads + kv_head) * size, size);
      out[t] = static_cast<float>(weights[t] / total * norm);
    }
  }
}

}  // namespace kedge::codec
