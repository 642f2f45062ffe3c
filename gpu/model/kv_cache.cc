#include "gpu/model/kv_cache.h"

#include <utility>

#include "absl/base/internal/raw_logging.h"
#include "absl/strings/str_cat.h"
#include "gpu/kernels/cast.h"

namespace kedge {

absl::StatusOr<KvCache> KvCache::Create(Device& device, const Geometry& geometry,
                                        int64_t capacity) {
  if (geometry.layers <= 0 || geometry.kv_heads <= 0 || geometry.head_size <= 0 ||
      !kernels::IsFloatDType(geometry.dtype)) {
    return absl::InvalidArgumentError(
        absl::StrCat("kv cache: layers=", geometry.layers, " kv_heads=", geometry.kv_heads,
                     " head_size=", geometry.head_size, " dtype=", static_cast<int>(geometry.dtype),
                     " is not a geometry of f32, f16 or bf16 keys and values"));
  }
  if (capacity <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("kv cache: capacity: ", capacity, " tokens is not positive"));
  }
  KvCache cache;
  cache.geometry_ = geometry;
  cache.capacity_ = capacity;
  int64_t bytes = geometry.kv_heads;
  if (__builtin_mul_overflow(bytes, geometry.head_size, &bytes) ||
      __builtin_mul_overflow(bytes, kernels::FloatBytes(geometry.dtype), &cache.token_bytes_) ||
      __builtin_mul_overflow(cache.token_bytes_, capacity, &bytes) ||
      __builtin_mul_overflow(bytes, 2 * geometry.layers, &bytes)) {
    return absl::ResourceExhaustedError(
        absl::StrCat("kv cache: capacity: ", capacity, " tokens does not fit in memory"));
  }
  absl::StatusOr<DeviceBuffer> memory = DeviceBuffer::Create(device, bytes);
  if (!memory.ok()) return memory.status();
  cache.memory_ = *std::move(memory);
  return cache;
}

void KvCache::set_length(int64_t length) {
  ABSL_RAW_CHECK(length >= 0 && length <= capacity_, "KvCache length outside its capacity");
  ABSL_RAW_CHECK(length >= pruned_tokens_, "KvCache length inside what was pruned");
  length_ = length;
}

absl::Status KvCache::SetPruned(int64_t tokens, std::vector<std::vector<int32_t>> kept) {
  if (tokens < 1 || tokens > capacity_) {
    return absl::OutOfRangeError(
        absl::StrCat("kv cache: tokens: ", tokens, " are not in [1, capacity = ", capacity_, "]"));
  }
  if (static_cast<int64_t>(kept.size()) != geometry_.layers) {
    return absl::InvalidArgumentError(absl::StrCat(
        "kv cache: kept: ", kept.size(), " lists, the cache has ", geometry_.layers, " layers"));
  }
  for (size_t layer = 0; layer < kept.size(); ++layer) {
    int64_t last = -1;
    for (const int32_t position : kept[layer]) {
      if (position <= last || position >= tokens) {
        return absl::InvalidArgumentError(absl::StrCat("kv cache: layer ", layer, ": position ",
                                                       position, " after ", last,
                                                       " does not ascend inside ", tokens));
      }
      last = position;
    }
  }
  pruned_tokens_ = tokens;
  kept_ = std::move(kept);
  length_ = tokens;
  return absl::OkStatus();
}

int64_t KvCache::Offset(int64_t layer, Component component, int64_t first_token,
                        int64_t tokens) const {
  ABSL_RAW_CHECK(layer >= 0 && layer < geometry_.layers, "KvCache layer out of range");
  ABSL_RAW_CHECK(component == Component::kK || component == Component::kV,
                 "KvCache holds keys and values only");
  ABSL_RAW_CHECK(first_token >= 0 && tokens >= 0 && first_token <= capacity_ - tokens,
                 "KvCache tokens out of range");
  const int64_t array = 2 * layer + (component == Component::kV ? 1 : 0);
  return (array * capacity_ + first_token) * token_bytes_;
}

std::span<uint8_t> KvCache::PartSpan(int64_t layer, Component component, int64_t first_token,
                                     int64_t tokens) {
  const int64_t offset = Offset(layer, component, first_token, tokens);
  return {memory_.as<uint8_t>() + offset, static_cast<size_t>(tokens * token_bytes_)};
}

std::span<const uint8_t> KvCache::PartSpan(int64_t layer, Component component, int64_t first_token,
                                           int64_t tokens) const {
  const int64_t offset = Offset(layer, component, first_token, tokens);
  return {memory_.as<const uint8_t>() + offset, static_cast<size_t>(tokens * token_bytes_)};
}

}  // namespace kedge
