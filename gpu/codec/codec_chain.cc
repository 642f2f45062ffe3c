#include "gpu/codec/codec_chain.h"

#include <cstring>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "gpu/codec/fp8.h"
#include "gpu/codec/hadamard.h"
#include "gpu/codec/kivi.h"
#include "gpu/codec/part_header.h"
#include "gpu/codec/part_rows.h"
#include "gpu/kernels/cast.h"
#include "proto/wire.h"

namespace kedge::codec {
namespace {

std::string PartName(const PartTask& task) {
  return absl::StrCat("layer ", task.layer, " ", ComponentName(task.component));
}

absl::Status Wrong(const std::string& part, const char* field, int64_t value, int64_t expected) {
  return absl::InvalidArgumentError(
      absl::StrCat("part ", part, ": ", field, ": ", value, ", expected ", expected));
}

GroupAxis AxisOf(Component component) {
  return component == Component::kK ? GroupAxis::kTokens : GroupAxis::kChannels;
}

PartHeader HeaderOf(const KvShape& shape, Component component) {
  return {.component = component,
          .tokens = shape.block_tokens,
          .kv_heads = shape.kv_heads,
          .head_size = shape.head_size,
          .dtype = shape.dtype};
}

absl::Status CheckTask(const PartTask& task, const std::string& part) {
  if (absl::Status s = task.shape.PartIndex(task.layer, task.component).status(); !s.ok()) return s;
  if (task.rope == nullptr || task.component != Component::kK) return absl::OkStatus();
  if (task.shape.head_size % 2 != 0)
    return Wrong(part, "head_size with rope", task.shape.head_size, task.shape.head_size + 1);
  const int64_t angles = int64_t{task.shape.block_tokens} * task.shape.head_size / 2;
  const auto cos = static_cast<int64_t>(task.rope->cos.size());
  const auto sin = static_cast<int64_t>(task.rope->sin.size());
  if (cos != angles) return Wrong(part, "rope.cos", cos, angles);
  if (sin != angles) return Wrong(part, "rope.sin", sin, angles);
  return absl::OkStatus();
}

// Token t's row, or an error when the pages are not exactly the block.
absl::StatusOr<std::vector<uint8_t*>> RowsOf(const PartTask& task, const std::string& part,
                                             const PartPages& pages) {
  const int64_t tokens = task.shape.block_tokens;
  const int64_t row_bytes = static_cast<int64_t>(task.shape.raw_part_bytes()) / tokens;
  if (pages.page_tokens <= 0 || tokens % pages.page_tokens != 0)
    return Wrong(part, "page_tokens", pages.page_tokens, tokens);
  const auto count = static_cast<int64_t>(pages.pages.size());
  if (count != tokens / pages.page_tokens)
    return Wrong(part, "pages", count, tokens / pages.page_tokens);
  std::vector<uint8_t*> rows;
  rows.reserve(tokens);
  for (const std::span<uint8_t>& page : pages.pages) {
    const auto bytes = static_cast<int64_t>(page.size());
    if (bytes != pages.page_tokens * row_bytes)
      return Wrong(part, "page bytes", bytes, pages.page_tokens * row_bytes);
    for (int64_t t = 0; t < pages.page_tokens; ++t) rows.push_back(page.data() + t * row_bytes);
  }
  return rows;
}

absl::Status BadValue(const PartTask& task, const std::string& part, const SourceRows& source) {
  const int64_t token =
      FirstBadToken(source, task.shape.block_tokens, task.shape.kv_heads, task.shape.head_size);
  return absl::InvalidArgumentError(
      absl::StrCat("part ", part, ": token ", token,
                   ": a value is NaN, infinite or above 65504: it cannot be quantized"));
}

// The part un-rotated and transformed, as f32.
std::vector<float> TransformedRows(const KvShape& shape, const SourceRows& source) {
  const int64_t width = int64_t{shape.kv_heads} * shape.head_size;
  std::vector<float> rows(shape.block_tokens * width);
  for (int64_t t = source.skip; t < shape.block_tokens; ++t)
    ReadRow(source, t, shape.kv_heads, shape.head_size, rows.data() + t * width);
  Hadamard(int64_t{shape.block_tokens} * shape.kv_heads, shape.head_size, rows.data());
  return rows;
}

// Quantized values back from their transform, turned and written.
void DecodeTransformed(const KiviLayout& layout, const uint8_t* in, const TargetRows& target) {
  const int64_t width = layout.channels();
  std::vector<float> values(layout.tokens * width);
  std::vector<uint8_t*> rows(layout.tokens);
  for (int64_t t = 0; t < layout.tokens; ++t)
    rows[t] = reinterpret_cast<uint8_t*>(values.data() + t * width);
  KiviDecode(layout, in, {.dtype = DType::kF32, .rows = rows.data(), .skip = target.skip});
  Hadamard(layout.tokens * layout.heads, layout.head_size, values.data());
  for (int64_t t = target.skip; t < layout.tokens; ++t)
    WriteRow(target, t, layout.heads, layout.head_size, values.data() + t * width);
}

}  // namespace

absl::StatusOr<CodecChain> CodecChain::Parse(std::string_view name) {
  CodecChain chain;
  if (name == "raw") return chain;
  chain.method_ = Kind::kFp8;
  chain.bits_ = 8;
  if (name == "fp8") return chain;
  chain.method_ = Kind::kKivi;
  for (bool hadamard : {false, true}) {
    for (int bits : {2, 4, 8}) {
      for (int64_t group : {32, 64, 128}) {
        chain.hadamard_ = hadamard;
        chain.bits_ = bits;
        chain.group_ = group;
        if (name == chain.name()) return chain;
      }
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat("variant: \"", absl::CHexEscape(std::string(name.substr(0, 64))),
                   "\" is none of raw, fp8, kivi{2,4,8}g{32,64,128}, had+kivi{2,4,8}g{32,64,128}"));
}

std::string CodecChain::name() const {
  if (method_ == Kind::kRaw) return "raw";
  if (method_ == Kind::kFp8) return "fp8";
  return absl::StrCat(hadamard_ ? "had+" : "", "kivi", bits_, "g", group_);
}

absl::Status CodecChain::Supports(const KvShape& shape) const {
  if (absl::Status s = shape.Validate(); !s.ok()) return s;
  if (method_ == Kind::kRaw) return absl::OkStatus();
  const std::string variant = absl::StrCat("variant ", name(), ": ");
  if (shape.opaque()) {
    return absl::InvalidArgumentError(
        absl::StrCat(variant, "shape: opaque bytes cannot be quantized"));
  }
  if (!kernels::IsFloatDType(shape.dtype)) {
    return absl::InvalidArgumentError(
        absl::StrCat(variant, "dtype: ", DTypeName(shape.dtype), " is none of f32, f16, bf16"));
  }
  for (int i = 1; i <= kComponentCount; ++i) {
    const auto component = static_cast<Component>(i);
    if ((shape.components >> (i - 1) & 1) == 0) continue;
    if (component != Component::kK && component != Component::kV) {
      return absl::InvalidArgumentError(
          absl::StrCat(variant, "component: ", ComponentName(component), " is neither k nor v"));
    }
    if (method_ != Kind::kKivi) continue;
    const absl::Status layout = MakeKiviLayout(bits_, group_, AxisOf(component), shape.block_tokens,
                                               shape.kv_heads, shape.head_size)
                                    .status();
    if (!layout.ok()) return absl::InvalidArgumentError(absl::StrCat(variant, layout.message()));
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> CodecChain::PartBytes(const KvShape& shape, Component component,
                                               bool sequence_start) const {
  if (absl::Status s = Supports(shape); !s.ok()) return s;
  if (method_ == Kind::kRaw) return shape.raw_part_bytes();
  const uint64_t row_bytes = shape.raw_part_bytes() / shape.block_tokens;
  const uint64_t around = kPartHeaderBytes + (sequence_start ? kRawTokens * row_bytes : 0);
  const uint64_t values = uint64_t{shape.block_tokens} * shape.kv_heads * shape.head_size;
  if (method_ == Kind::kFp8) return around + values;
  const KiviLayout layout{bits_,          group_,         AxisOf(component), shape.block_tokens,
                          shape.kv_heads, shape.head_size};
  return around + static_cast<uint64_t>(layout.bytes());
}

absl::Status CodecChain::EncodePart(const PartTask& task, bool sequence_start,
                                    std::span<const uint8_t> raw, std::span<uint8_t> out) const {
  const KvShape& shape = task.shape;
  const std::string part = PartName(task);
  const absl::StatusOr<uint64_t> bytes = PartBytes(shape, task.component, sequence_start);
  if (!bytes.ok()) return bytes.status();
  if (raw.size() != shape.raw_part_bytes())
    return Wrong(part, "raw bytes", raw.size(), shape.raw_part_bytes());
  if (out.size() != *bytes) return Wrong(part, "encoded bytes", out.size(), *bytes);
  if (method_ == Kind::kRaw) {
    if (!raw.empty()) std::memcpy(out.data(), raw.data(), raw.size());
    return absl::OkStatus();
  }
  if (absl::Status s = CheckTask(task, part); !s.ok()) return s;

  const SourceRows source{.dtype = shape.dtype,
                          .data = raw.data(),
                          .rope = task.component == Component::kK ? task.rope : nullptr,
                          .skip = sequence_start ? kRawTokens : 0};
  PartHeader header = HeaderOf(shape, task.component);
  header.raw_tokens = sequence_start;
  header.hadamard = hadamard_;
  header.bits = static_cast<uint8_t>(bits_);
  uint8_t* body = out.data() + kPartHeaderBytes;
  bool fits = false;
  if (method_ == Kind::kFp8) {
    header.method = Method::kFp8;
    float scale = 0.0f;
    fits = Fp8Encode({shape.block_tokens, shape.kv_heads, shape.head_size}, source, &scale, body);
    std::memcpy(&header.detail, &scale, sizeof scale);
  } else {
    const KiviLayout layout{
        bits_, group_, AxisOf(task.component), shape.block_tokens, shape.kv_heads, shape.head_size};
    header.detail = static_cast<uint32_t>(group_);
    if (hadamard_) {
      const std::vector<float> rows = TransformedRows(shape, source);
      const SourceRows transformed{.dtype = DType::kF32,
                                   .data = reinterpret_cast<const uint8_t*>(rows.data()),
                                   .skip = source.skip};
      fits = KiviEncode(layout, transformed, body);
      if (!fits) return BadValue(task, part, transformed);
    } else {
      fits = KiviEncode(layout, source, body);
    }
  }
  if (!fits) return BadValue(task, part, source);
  EncodePartHeader(header, out.first<kPartHeaderBytes>());
  if (sequence_start) {
    const uint64_t raw_bytes = kRawTokens * (raw.size() / shape.block_tokens);
    std::memcpy(out.data() + out.size() - raw_bytes, raw.data(), raw_bytes);
  }
  return absl::OkStatus();
}

absl::Status CodecChain::DecodePart(const PartTask& task, std::span<const uint8_t> encoded,
                                    const PartPages& pages) const {
  const KvShape& shape = task.shape;
  const std::string part = PartName(task);
  if (absl::Status s = Supports(shape); !s.ok()) return s;
  if (shape.opaque()) return absl::InvalidArgumentError("shape: opaque bytes have no pages");
  if (absl::Status s = CheckTask(task, part); !s.ok()) return s;
  PartHeader header = HeaderOf(shape, task.component);
  if (method_ != Kind::kRaw) {
    header.method = method_ == Kind::kFp8 ? Method::kFp8 : Method::kKivi;
    header.hadamard = hadamard_;
    header.bits = static_cast<uint8_t>(bits_);
    header.detail = static_cast<uint32_t>(group_);
    if (absl::Status s = DecodePartHeader(part, encoded, header); !s.ok()) return s;
  }
  const absl::StatusOr<uint64_t> bytes = PartBytes(shape, task.component, header.raw_tokens);
  if (!bytes.ok()) return bytes.status();
  if (encoded.size() != *bytes) return Wrong(part, "encoded bytes", encoded.size(), *bytes);
  const absl::StatusOr<std::vector<uint8_t*>> rows = RowsOf(task, part, pages);
  if (!rows.ok()) return rows.status();
  const uint64_t row_bytes = shape.raw_part_bytes() / shape.block_tokens;
  if (method_ == Kind::kRaw) {
    for (size_t t = 0; t < rows->size(); ++t)
      std::memcpy((*rows)[t], encoded.data() + t * row_bytes, row_bytes);
    return absl::OkStatus();
  }

  const TargetRows target{.dtype = shape.dtype,
                          .rows = rows->data(),
                          .rope = task.component == Component::kK ? task.rope : nullptr,
                          .skip = header.raw_tokens ? kRawTokens : 0};
  const uint8_t* body = encoded.data() + kPartHeaderBytes;
  if (method_ == Kind::kFp8) {
    const Fp8Layout layout{shape.block_tokens, shape.kv_heads, shape.head_size};
    float scale;
    std::memcpy(&scale, &header.detail, sizeof scale);
    if (absl::Status s = Fp8Check(layout, part, scale, body); !s.ok()) return s;
    Fp8Decode(layout, scale, body, target);
  } else {
    const KiviLayout layout{
        bits_, group_, AxisOf(task.component), shape.block_tokens, shape.kv_heads, shape.head_size};
    if (absl::Status s = KiviCheck(layout, part, body); !s.ok()) return s;
    if (hadamard_) {
      DecodeTransformed(layout, body, target);
    } else {
      KiviDecode(layout, body, target);
    }
  }
  const uint8_t* raw = encoded.data() + encoded.size() - target.skip * row_bytes;
  for (int64_t t = 0; t < target.skip; ++t) std::memcpy((*rows)[t], raw + t * row_bytes, row_bytes);
  return absl::OkStatus();
}

}  // namespace kedge::codec
