#include "proto/kv_shape.h"

#include <cstdlib>

#include "absl/base/internal/raw_logging.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "proto/wire.h"

namespace kedge {
namespace {

constexpr uint8_t kComponentBits = (1u << kComponentCount) - 1;

absl::Status Wrong(const char* field, uint64_t value, const char* why) {
  return absl::InvalidArgumentError(absl::StrCat("shape.", field, ": ", value, " ", why));
}

bool IsDType(DType dtype) { return dtype >= DType::kF32 && dtype <= DType::kU8; }

}  // namespace

uint32_t DTypeBytes(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return 4;
    case DType::kF16:
      return 2;
    case DType::kBf16:
      return 2;
    case DType::kF8E4m3:
      return 1;
    case DType::kU8:
      return 1;
  }
  ABSL_RAW_LOG(FATAL, "%d is not a DType", static_cast<int>(dtype));
  std::abort();
}

const char* DTypeName(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "f32";
    case DType::kF16:
      return "f16";
    case DType::kBf16:
      return "bf16";
    case DType::kF8E4m3:
      return "f8e4m3";
    case DType::kU8:
      return "u8";
  }
  return "unknown";
}

absl::StatusOr<DType> ParseDType(std::string_view name) {
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBf16, DType::kF8E4m3, DType::kU8}) {
    if (name == DTypeName(dtype)) return dtype;
  }
  return absl::InvalidArgumentError(absl::StrCat("dtype: \"",
                                                 absl::CHexEscape(std::string(name.substr(0, 64))),
                                                 "\" is none of f32, f16, bf16, f8e4m3, u8"));
}

const char* ComponentName(Component component) {
  switch (component) {
    case Component::kK:
      return "k";
    case Component::kV:
      return "v";
    case Component::kLatent:
      return "latent";
    case Component::kState:
      return "state";
    case Component::kIndex:
      return "index";
  }
  return "unknown";
}

KvShape KvShape::KeysAndValues(uint16_t layers, uint16_t kv_heads, uint16_t head_size,
                               uint16_t block_tokens, DType dtype) {
  KvShape shape;
  shape.layer_count = layers;
  shape.kv_heads = kv_heads;
  shape.head_size = head_size;
  shape.block_tokens = block_tokens;
  shape.dtype = dtype;
  shape.components = 0b11;
  return shape;
}

uint64_t KvShape::raw_part_bytes() const {
  if (opaque()) return 0;
  return uint64_t{block_tokens} * kv_heads * head_size * DTypeBytes(dtype);
}

absl::StatusOr<uint32_t> KvShape::PartIndex(uint32_t layer, Component component) const {
  const auto value = static_cast<uint32_t>(component);
  if (value < 1 || value > kComponentCount || (components >> (value - 1) & 1) == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("component: ", ComponentName(component), " is not in ", ToString()));
  }
  if (layer < layer_begin || layer - layer_begin >= layer_count) {
    return absl::InvalidArgumentError(absl::StrCat("layer: ", layer, " is not in ", ToString()));
  }
  const uint32_t before = components & ((1u << (value - 1)) - 1);
  return (layer - layer_begin) * components_per_layer() +
         static_cast<uint32_t>(__builtin_popcount(before));
}

absl::Status KvShape::Validate() const {
  if (!IsDType(dtype)) return Wrong("dtype", static_cast<uint64_t>(dtype), "is not a known type");
  if ((components & ~kComponentBits) != 0)
    return Wrong("components", components, "has unknown bits");
  if (opaque()) {
    if (*this == Opaque()) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("shape.components: 0 (opaque), but other fields are set: layers ", layer_begin,
                     "+", layer_count, ", kv_heads ", kv_head_begin, "+", kv_heads, ", head_size ",
                     head_size, ", block_tokens ", block_tokens, ", dtype ", DTypeName(dtype)));
  }
  if (layer_count == 0) return Wrong("layer_count", 0, "is zero");
  if (layer_begin + layer_count > 65535)
    return Wrong("layer_begin", layer_begin, "puts layers past 65535");
  if (kv_heads == 0) return Wrong("kv_heads", 0, "is zero");
  if (kv_head_begin + kv_heads > 65535)
    return Wrong("kv_head_begin", kv_head_begin, "puts heads past 65535");
  if (head_size == 0) return Wrong("head_size", 0, "is zero");
  if (block_tokens == 0 || block_tokens % 32 != 0) {
    return Wrong("block_tokens", block_tokens, "is not a positive multiple of 32");
  }
  if (part_count() > kPartCountMax)
    return Wrong("layer_count", layer_count, "makes more than 2048 parts");
  // The part is checked alone first: the product of both stays far below 2^64 then.
  if (raw_part_bytes() > kBlockBytesMax || raw_block_bytes() > kBlockBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("shape: ", ToString(), " has ", part_count(), " parts of ", raw_part_bytes(),
                     " bytes, the limit of a block is ", kBlockBytesMax));
  }
  return absl::OkStatus();
}

std::string KvShape::ToString() const {
  if (opaque()) return "opaque";
  std::string names;
  for (int i = 0; i < kComponentCount; ++i) {
    if ((components >> i & 1) == 0) continue;
    absl::StrAppend(&names, names.empty() ? "" : "+", ComponentName(static_cast<Component>(i + 1)));
  }
  return absl::StrCat(names, " ", DTypeName(dtype), ", layers ", layer_begin, "..",
                      layer_begin + layer_count - 1, ", heads ", kv_head_begin, "..",
                      kv_head_begin + kv_heads - 1, " of ", head_size, ", ", block_tokens,
                      " tokens");
}

void EncodeKvShape(const KvShape& shape, std::span<uint8_t, KvShape::kEncodedBytes> out) {
  uint8_t* to = out.data();
  StoreLe(to + 0, shape.layer_begin);
  StoreLe(to + 2, shape.layer_count);
  StoreLe(to + 4, shape.kv_head_begin);
  StoreLe(to + 6, shape.kv_heads);
  StoreLe(to + 8, shape.head_size);
  StoreLe(to + 10, shape.block_tokens);
  to[12] = static_cast<uint8_t>(shape.dtype);
  to[13] = shape.components;
  StoreLe(to + 14, uint16_t{0});
}

absl::StatusOr<KvShape> DecodeKvShape(std::span<const uint8_t> bytes) {
  if (bytes.size() != KvShape::kEncodedBytes)
    return Wrong("bytes", bytes.size(), "where 16 are due");
  const uint8_t* from = bytes.data();
  KvShape shape;
  shape.layer_begin = LoadLe<uint16_t>(from + 0);
  shape.layer_count = LoadLe<uint16_t>(from + 2);
  shape.kv_head_begin = LoadLe<uint16_t>(from + 4);
  shape.kv_heads = LoadLe<uint16_t>(from + 6);
  shape.head_size = LoadLe<uint16_t>(from + 8);
  shape.block_tokens = LoadLe<uint16_t>(from + 10);
  shape.dtype = static_cast<DType>(from[12]);
  shape.components = from[13];
  const auto reserved = LoadLe<uint16_t>(from + 14);
  if (reserved != 0) return Wrong("reserved", reserved, "where zero is reserved");
  if (absl::Status status = shape.Validate(); !status.ok()) return status;
  return shape;
}

}  // namespace kedge
