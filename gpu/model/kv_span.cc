#include "gpu/model/kv_span.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "gpu/kernels/cast.h"
#include "gpu/kernels/rope.h"

namespace kedge {
namespace {

// Rotates keys [rows][kv_heads * head_size] by `table` on their way from one array to another.
void TurnKeys(const Model& model, const KvCache::Geometry& geometry,
              const kernels::RopeTable& table, int64_t rows, std::span<const uint8_t> from,
              std::span<uint8_t> to) {
  const int64_t width = geometry.kv_heads * geometry.head_size;
  std::vector<float> keys(rows * width);
  kernels::CastToFloat(geometry.dtype, from.data(), rows * width, keys.data());
  kernels::Rope(model.device(), table, rows, geometry.kv_heads, geometry.head_size, width,
                keys.data());
  kernels::CastFromFloat(geometry.dtype, keys.data(), rows * width, to.data());
}

bool SameGeometry(const KvCache::Geometry& a, const KvCache::Geometry& b) {
  return a.layers == b.layers && a.kv_heads == b.kv_heads && a.head_size == b.head_size &&
         a.dtype == b.dtype;
}

}  // namespace

int64_t KvSpan::token_bytes() const {
  return geometry.kv_heads * geometry.head_size * kernels::FloatBytes(geometry.dtype);
}

std::span<uint8_t> KvSpan::Layer(std::vector<uint8_t>& array, int64_t layer) const {
  const int64_t bytes = tokens * token_bytes();
  return {array.data() + layer * bytes, static_cast<size_t>(bytes)};
}

std::span<const uint8_t> KvSpan::Layer(const std::vector<uint8_t>& array, int64_t layer) const {
  const int64_t bytes = tokens * token_bytes();
  return {array.data() + layer * bytes, static_cast<size_t>(bytes)};
}

KvSpan MakeSpan(const Model& model, int64_t tokens) {
  KvSpan span;
  span.geometry = {model.config().layers, model.config().kv_heads, model.config().head_size,
                   model.kv_dtype()};
  span.tokens = tokens;
  span.keys.resize(span.geometry.layers * tokens * span.token_bytes());
  span.values.resize(span.keys.size());
  return span;
}

absl::StatusOr<KvSpan> ComputeAlone(Model& model, std::span<const int32_t> lead,
                                    std::span<const int32_t> tokens) {
  const int64_t dropped = static_cast<int64_t>(lead.size());
  const int64_t count = static_cast<int64_t>(tokens.size());
  KvSpan span = MakeSpan(model, count);
  if (count == 0) return span;
  std::vector<int32_t> sequence(lead.begin(), lead.end());
  sequence.insert(sequence.end(), tokens.begin(), tokens.end());
  absl::StatusOr<KvCache> cache = model.NewCache(dropped + count);
  if (!cache.ok()) return cache.status();
  const int64_t width = span.geometry.kv_heads * span.geometry.head_size;
  PrefillOptions options;
  options.on_keys = [&](int64_t layer, int64_t first, int64_t rows, const float* keys,
                        int64_t stride) {
    const std::span<uint8_t> target = span.Layer(span.keys, layer);
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t token = first + row - dropped;
      if (token < 0) continue;
      kernels::CastFromFloat(span.geometry.dtype, keys + row * stride, width,
                             target.data() + token * span.token_bytes());
    }
  };
  if (absl::Status s = model.Prefill(sequence, *cache, options).status(); !s.ok()) return s;
  for (int64_t layer = 0; layer < span.geometry.layers; ++layer) {
    const std::span<const uint8_t> from = cache->PartSpan(layer, Component::kV, dropped, count);
    std::memcpy(span.Layer(span.values, layer).data(), from.data(), from.size());
  }
  return span;
}

absl::StatusOr<KvSpan> LiftSpan(const Model& model, const KvCache& cache, int64_t first,
                                int64_t count) {
  KvSpan span = MakeSpan(model, 0);
  if (!SameGeometry(span.geometry, cache.geometry()))
    return absl::InvalidArgumentError("cache: its geometry is not the model's");
  if (cache.pruned())
    return absl::InvalidArgumentError("cache: it was pruned, and has no row of every token");
  if (first < 0 || count < 0 || first > cache.length() - count) {
    return absl::InvalidArgumentError(absl::StrCat("span: tokens [", first, ", ", first + count,
                                                   ") are not in a cache of ", cache.length()));
  }
  span = MakeSpan(model, count);
  const kernels::RopeTable back = kernels::Inverse(model.RopeTableAt(first, count));
  for (int64_t layer = 0; layer < span.geometry.layers; ++layer) {
    TurnKeys(model, span.geometry, back, count, cache.PartSpan(layer, Component::kK, first, count),
             span.Layer(span.keys, layer));
    const std::span<const uint8_t> from = cache.PartSpan(layer, Component::kV, first, count);
    std::memcpy(span.Layer(span.values, layer).data(), from.data(), from.size());
  }
  return span;
}

absl::Status PlaceSpan(const Model& model, const KvSpan& span, int64_t first, KvCache& cache) {
  if (!SameGeometry(span.geometry, cache.geometry()))
    return absl::InvalidArgumentError("span: its geometry is not the cache's");
  if (cache.pruned())
    return absl::InvalidArgumentError("span: the cache was pruned, and has no row of every token");
  if (first < 0 || first > cache.capacity() - span.tokens) {
    return absl::InvalidArgumentError(absl::StrCat("span: ", span.tokens, " tokens at ", first,
                                                   " do not fit in a capacity of ",
                                                   cache.capacity()));
  }
  const kernels::RopeTable table = model.RopeTableAt(first, span.tokens);
  for (int64_t layer = 0; layer < span.geometry.layers; ++layer) {
    TurnKeys(model, span.geometry, table, span.tokens, span.Layer(span.keys, layer),
             cache.PartSpan(layer, Component::kK, first, span.tokens));
    const std::span<const uint8_t> values = span.Layer(span.values, layer);
    std::memcpy(cache.PartSpan(layer, Component::kV, first, span.tokens).data(), values.data(),
                values.size());
  }
  return absl::OkStatus();
}

}  // namespace kedge
