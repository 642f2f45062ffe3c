// The geometry of one token block: which layers, which KV heads, how many tokens, in which type.
//
// A block is cut into *parts*: one component of one layer. Parts are ordered layer by layer, and
// inside a layer in the order of `Component`'s values, so that a transfer can follow the layers of
// a prefill. A part of `k` or `v` is laid out [block_tokens][kv_heads][head_size], row-major.
//
// An opaque value (a `put` that names no model) has the shape `KvShape::Opaque()`: no components,
// one part of any length.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace kedge {

inline constexpr uint64_t kBlockBytesMax = 64ull << 20;  // payload; one arena extent holds it
inline constexpr uint32_t kPartCountMax = 2048;          // 256 layers of 5 components, rounded up

enum class DType : uint8_t { kF32 = 1, kF16 = 2, kBf16 = 3, kF8E4m3 = 4, kU8 = 5 };

// Bytes of one element. Aborts on a value that is not a DType.
uint32_t DTypeBytes(DType dtype);
// "f32", "f16", "bf16", "f8e4m3", "u8".
const char* DTypeName(DType dtype);
absl::StatusOr<DType> ParseDType(std::string_view name);

// What a part holds. The values are the order of parts inside a layer and the bits of
// `KvShape::components` (bit value-1).
enum class Component : uint8_t { kK = 1, kV = 2, kLatent = 3, kState = 4, kIndex = 5 };
inline constexpr int kComponentCount = 5;
const char* ComponentName(Component component);

struct KvShape {
  uint16_t layer_begin = 0;    // first layer of the shard (pipeline parallel)
  uint16_t layer_count = 0;    // layers in the shard
  uint16_t kv_head_begin = 0;  // first KV head of the shard (tensor parallel)
  uint16_t kv_heads = 0;       // KV heads in the shard; 1 for a latent
  uint16_t head_size = 0;      // elements of one head; of the whole vector for a latent
  uint16_t block_tokens = 0;   // tokens in a block; a multiple of 32
  DType dtype = DType::kU8;
  uint8_t components = 0;  // bit (Component - 1) set where a layer has that part

  static constexpr uint32_t kEncodedBytes = 16;

  static KvShape Opaque() { return KvShape{}; }
  // Keys and values of layers [0, layers): the usual shape of one engine rank.
  static KvShape KeysAndValues(uint16_t layers, uint16_t kv_heads, uint16_t head_size,
                               uint16_t block_tokens, DType dtype);

  bool opaque() const { return components == 0; }
  uint32_t components_per_layer() const {
    return static_cast<uint32_t>(__builtin_popcount(components));
  }
  // 1 for an opaque value.
  uint32_t part_count() const { return opaque() ? 1 : layer_count * components_per_layer(); }
  // Bytes of one part as an engine holds it (codec `raw`). 0 for an opaque value.
  uint64_t raw_part_bytes() const;
  // Meaningful for a shape that passes Validate(); others may wrap around.
  uint64_t raw_block_bytes() const { return raw_part_bytes() * part_count(); }

  // The index of a part inside the block, or InvalidArgument when the layer or the component is not
  // in the shape. `layer` counts from 0 inside the model, not inside the shard.
  absl::StatusOr<uint32_t> PartIndex(uint32_t layer, Component component) const;

  // InvalidArgument naming the field and its value: zero layers, tokens no multiple of 32, an
  // unknown dtype or component bit, a block past `kBlockBytesMax` or `kPartCountMax`. An opaque
  // shape is the default one.
  absl::Status Validate() const;
  std::string ToString() const;

  friend bool operator==(const KvShape&, const KvShape&) = default;
};

// Exactly kEncodedBytes, little endian; proto/README.md has the bytes. Decode validates.
void EncodeKvShape(const KvShape& shape, std::span<uint8_t, KvShape::kEncodedBytes> out);
absl::StatusOr<KvShape> DecodeKvShape(std::span<const uint8_t> bytes);

}  // namespace kedge
