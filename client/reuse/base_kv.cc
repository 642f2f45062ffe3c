#include "client/reuse/base_kv.h"

#include <utility>

#include "gpu/kernels/cast.h"
#include "gpu/kernels/rope.h"

namespace kedge {

offset::KvRows RowsOf(const KvSpan& span) {
  const KvCache::Geometry& geometry = span.geometry;
  offset::KvRows rows =
      offset::KvRows::Of(geometry.layers, span.tokens, geometry.kv_heads * geometry.head_size);
  const auto count = static_cast<int64_t>(rows.keys.size());
  kernels::CastToFloat(geometry.dtype, span.keys.data(), count, rows.keys.data());
  kernels::CastToFloat(geometry.dtype, span.values.data(), count, rows.values.data());
  return rows;
}

void PlaceRows(const Model& model, offset::KvRows& rows, int64_t first, int64_t skip,
               KvCache& cache) {
  const int64_t tokens = rows.tokens - skip;
  if (tokens <= 0) return;
  const KvCache::Geometry& geometry = cache.geometry();
  const kernels::RopeTable table = model.RopeTableAt(first + skip, tokens);
  for (int64_t layer = 0; layer < rows.layers; ++layer) {
    float* keys = rows.Key(layer, skip).data();
    kernels::Rope(model.device(), table, tokens, geometry.kv_heads, geometry.head_size, rows.width,
                  keys);
    kernels::CastFromFloat(geometry.dtype, keys, tokens * rows.width,
                           cache.PartSpan(layer, Component::kK, first + skip, tokens).data());
    kernels::CastFromFloat(geometry.dtype, rows.Value(layer, skip).data(), tokens * rows.width,
                           cache.PartSpan(layer, Component::kV, first + skip, tokens).data());
  }
}

BaseCache::Key BaseCache::KeyOf(std::span<const int32_t> lead, std::span<const int32_t> tokens) {
  Key key(lead.begin(), lead.end());
  key.push_back(static_cast<int32_t>(lead.size()));
  key.insert(key.end(), tokens.begin(), tokens.end());
  return key;
}

int64_t BaseCache::BytesOf(const KvSpan& span) {
  return static_cast<int64_t>(span.keys.size() + span.values.size());
}

std::shared_ptr<const KvSpan> BaseCache::Find(std::span<const int32_t> lead,
                                              std::span<const int32_t> tokens) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = by_key_.find(KeyOf(lead, tokens));
  if (found == by_key_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, found->second);
  return found->second->span;
}

absl::StatusOr<std::shared_ptr<const KvSpan>> BaseCache::Get(Model& model,
                                                             std::span<const int32_t> lead,
                                                             std::span<const int32_t> tokens) {
  if (std::shared_ptr<const KvSpan> kept = Find(lead, tokens)) return kept;
  absl::StatusOr<KvSpan> computed = ComputeAlone(model, lead, tokens);
  if (!computed.ok()) return computed.status();
  auto span = std::make_shared<const KvSpan>(*std::move(computed));
  const int64_t bytes = BytesOf(*span);
  if (bytes > max_bytes_) return span;
  const std::lock_guard<std::mutex> lock(mutex_);
  Key key = KeyOf(lead, tokens);
  if (by_key_.contains(key)) return span;
  entries_.push_front({key, span});
  by_key_.emplace(std::move(key), entries_.begin());
  bytes_ += bytes;
  while (bytes_ > max_bytes_) {
    bytes_ -= BytesOf(*entries_.back().span);
    by_key_.erase(entries_.back().key);
    entries_.pop_back();
  }
  return span;
}

void BaseCache::Forget(std::span<const int32_t> lead, std::span<const int32_t> tokens) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = by_key_.find(KeyOf(lead, tokens));
  if (found == by_key_.end()) return;
  bytes_ -= BytesOf(*found->second->span);
  entries_.erase(found->second);
  by_key_.erase(found);
}

int64_t BaseCache::bytes() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return bytes_;
}

}  // namespace kedge
