// MeasureReuseRates of reuse_runner.h.
#include <algorithm>
#include <chrono>

#include "client/reuse/reuse_runner.h"
#include "gpu/offset/mixture.h"

namespace kedge {
namespace {

constexpr int kTries = 2;
constexpr int64_t kShort = 32;
constexpr int64_t kLong = 256;
constexpr int64_t kAnchorsTimed = 4;
constexpr double kAnchorsTypical = 20;

// Seconds of the fastest of some tries.
template <typename Work>
absl::StatusOr<double> Fastest(const Work& work) {
  double best = 0;
  for (int i = 0; i < kTries; ++i) {
    const auto start = std::chrono::steady_clock::now();
    if (absl::Status s = work(); !s.ok()) return s;
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    best = i == 0 ? took.count() : std::min(best, took.count());
  }
  return best;
}

absl::StatusOr<double> PrefillSeconds(Model& model, int64_t tokens) {
  std::vector<int32_t> prompt(tokens);
  for (int64_t i = 0; i < tokens; ++i)
    prompt[i] = static_cast<int32_t>((i * 7 + 1) % model.config().vocabulary);
  absl::StatusOr<KvCache> cache = model.NewCache(tokens);
  if (!cache.ok()) return cache.status();
  return Fastest([&] {
    cache->set_length(0);
    return model.Prefill(prompt, *cache).status();
  });
}

}  // namespace

absl::StatusOr<ReuseRates> MeasureReuseRates(Model& model) {
  const ModelConfig& config = model.config();
  const int64_t longest = std::min(kLong, config.max_positions);
  const int64_t few = std::min(kShort, longest);
  ReuseRates rates;
  rates.layers = config.layers;
  const auto project = static_cast<double>((config.heads + 2 * config.kv_heads) * config.head_size);
  const auto finish =
      static_cast<double>(config.heads * config.head_size + 3 * config.intermediate_size);
  rates.projection_share = project / (project + finish);

  const absl::StatusOr<double> one = PrefillSeconds(model, 1);
  const absl::StatusOr<double> some = PrefillSeconds(model, few);
  const absl::StatusOr<double> many = PrefillSeconds(model, longest);
  if (!one.ok()) return one.status();
  if (!some.ok()) return some.status();
  if (!many.ok()) return many.status();
  // Attention by its share of the operations: two prefills cannot tell it from the products where
  // it is little, and a wrong sign would be worse than a guess.
  const auto n = static_cast<double>(longest);
  const double products = 2.0 * static_cast<double>(config.hidden_size) * (project + finish);
  const double key = 4.0 * static_cast<double>(config.heads * config.head_size);
  const double share = products / (products + key * (n + 1) / 2);
  const double grown = std::max(*many - *some, 0.5 * *many * (n - static_cast<double>(few)) / n);
  const double each = grown / (n - static_cast<double>(few) + (longest == few ? 1.0 : 0.0));
  rates.token = share * each;
  rates.token_key = (1.0 - share) * each / ((n + 1) / 2);
  rates.start = std::max(0.0, *one - rates.token);

  const KvSpan span = MakeSpan(model, longest);
  absl::StatusOr<KvCache> cache = model.NewCache(longest);
  if (!cache.ok()) return cache.status();
  const absl::StatusOr<double> placed = Fastest([&] {
    offset::KvRows rows = RowsOf(span);
    PlaceRows(model, rows, 0, 0, *cache);
    return absl::OkStatus();
  });
  const offset::KvRows rows = RowsOf(span);
  const absl::StatusOr<double> mixed = Fastest([&] {
    offset::Mix mix(rows.layers, rows.tokens, 0, rows.width);
    const offset::KvRows none = offset::KvRows::Of(rows.layers, 0, rows.width);
    const offset::Sketch sketch = offset::SketchOf(rows);
    for (int64_t i = 0; i < kAnchorsTimed; ++i) mix.Add({}, sketch, sketch, rows, none);
    return absl::OkStatus();
  });
  if (!placed.ok()) return placed.status();
  if (!mixed.ok()) return mixed.status();
  rates.place = *placed / n;
  rates.correct = rates.place + *mixed / n * kAnchorsTypical / static_cast<double>(kAnchorsTimed);
  return rates;
}

}  // namespace kedge
