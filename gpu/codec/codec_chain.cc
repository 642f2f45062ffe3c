#include "gpu/codec/codec_chain.h"

#include <cstring>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "gpu/kernels/cast.h"

namespace kedge::codec {
namespace {

absl::Status Wrong(const std::string& part, const char* field, int64_t value, int64_t expected,
                   const char* relation = "") {
  return absl::InvalidArgumentError(
      absl::StrCat("part ", part, ": ", field, ": ", value, ", expected ", relation, expected));
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

}  // namespace

absl::StatusOr<CodecChain> CodecChain::Parse(std::string_view name, const ModelProfile* profile) {
  if (name == "raw") return CodecChain(nullptr);
  std::string grammar = "raw";
  for (const PartCodecFamily& family : PartCodecFamilies()) {
    absl::StatusOr<PartCodecPtr> codec = family.make(name, profile);
    if (!codec.ok()) return codec.status();
    if (*codec != nullptr) return CodecChain(*std::move(codec));
    absl::StrAppend(&grammar, ", ", family.grammar);
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "variant: \"", absl::CHexEscape(std::string(name.substr(0, 64))), "\" is none of ", grammar));
}

absl::Status CodecChain::Supports(const KvShape& shape) const {
  if (absl::Status s = shape.Validate(); !s.ok()) return s;
  if (codec_ == nullptr) return absl::OkStatus();
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
    const absl::Status s = codec_->Supports(shape, component);
    if (!s.ok()) return absl::Status(s.code(), absl::StrCat(variant, s.message()));
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> CodecChain::MaxPartBytes(const KvShape& shape, Component component,
                                                  bool sequence_start) const {
  if (absl::Status s = Supports(shape); !s.ok()) return s;
  if (codec_ == nullptr) return shape.raw_part_bytes();
  const uint64_t row_bytes = shape.raw_part_bytes() / shape.block_tokens;
  return kPartHeaderBytes + codec_->MaxBodyBytes(shape, component) +
         (sequence_start ? kRawTokens * row_bytes : 0);
}

absl::StatusOr<uint64_t> CodecChain::EncodePart(const PartTask& task, bool sequence_start,
                                                std::span<const uint8_t> raw,
                                                std::span<uint8_t> out) const {
  const KvShape& shape = task.shape;
  const std::string part = PartName(task);
  const absl::StatusOr<uint64_t> most = MaxPartBytes(shape, task.component, sequence_start);
  if (!most.ok()) return most.status();
  if (raw.size() != shape.raw_part_bytes())
    return Wrong(part, "raw bytes", raw.size(), shape.raw_part_bytes());
  if (out.size() != *most) return Wrong(part, "encoded bytes", out.size(), *most);
  if (codec_ == nullptr) {
    if (!raw.empty()) std::memcpy(out.data(), raw.data(), raw.size());
    return raw.size();
  }
  if (absl::Status s = CheckTask(task, part); !s.ok()) return s;

  const SourceRows source{.dtype = shape.dtype,
                          .data = raw.data(),
                          .rope = task.component == Component::kK ? task.rope : nullptr,
                          .skip = sequence_start ? kRawTokens : 0};
  PartHeader header = HeaderOf(shape, task.component);
  header.raw_tokens = sequence_start;
  codec_->Describe(header);
  const std::span<uint8_t> body = out.subspan(kPartHeaderBytes);
  const absl::StatusOr<uint64_t> used =
      codec_->Encode(task, source, header, body.first(codec_->MaxBodyBytes(shape, task.component)));
  if (!used.ok()) return used.status();
  EncodePartHeader(header, out.first<kPartHeaderBytes>());
  const uint64_t raw_bytes = source.skip * (raw.size() / shape.block_tokens);
  if (raw_bytes > 0) std::memcpy(body.data() + *used, raw.data(), raw_bytes);
  return kPartHeaderBytes + *used + raw_bytes;
}

absl::Status CodecChain::DecodePart(const PartTask& task, std::span<const uint8_t> encoded,
                                    const PartPages& pages) const {
  const KvShape& shape = task.shape;
  const std::string part = PartName(task);
  if (absl::Status s = Supports(shape); !s.ok()) return s;
  if (shape.opaque()) return absl::InvalidArgumentError("shape: opaque bytes have no pages");
  if (absl::Status s = CheckTask(task, part); !s.ok()) return s;
  PartHeader header = HeaderOf(shape, task.component);
  if (codec_ != nullptr) {
    codec_->Describe(header);
    if (absl::Status s = DecodePartHeader(part, encoded, header); !s.ok()) return s;
  }
  const absl::StatusOr<uint64_t> most = MaxPartBytes(shape, task.component, header.raw_tokens);
  if (!most.ok()) return most.status();
  if (fixed_size() && encoded.size() != *most)
    return Wrong(part, "encoded bytes", encoded.size(), *most);
  if (encoded.size() > *most)
    return Wrong(part, "encoded bytes", encoded.size(), *most, "at most ");
  const absl::StatusOr<std::vector<uint8_t*>> rows = RowsOf(task, part, pages);
  if (!rows.ok()) return rows.status();
  const uint64_t row_bytes = shape.raw_part_bytes() / shape.block_tokens;
  if (codec_ == nullptr) {
    for (size_t t = 0; t < rows->size(); ++t)
      std::memcpy((*rows)[t], encoded.data() + t * row_bytes, row_bytes);
    return absl::OkStatus();
  }

  const TargetRows target{.dtype = shape.dtype,
                          .rows = rows->data(),
                          .rope = task.component == Component::kK ? task.rope : nullptr,
                          .skip = header.raw_tokens ? kRawTokens : 0};
  const uint64_t raw_bytes = target.skip * row_bytes;
  const std::span<const uint8_t> behind = encoded.subspan(kPartHeaderBytes);
  if (behind.size() < raw_bytes)
    return Wrong(part, "bytes of raw tokens", behind.size(), raw_bytes);
  const std::span<const uint8_t> body = behind.first(behind.size() - raw_bytes);
  if (absl::Status s = codec_->Decode(task, header, body, target); !s.ok()) return s;
  const uint8_t* raw = behind.data() + body.size();
  for (int64_t t = 0; t < target.skip; ++t) std::memcpy((*rows)[t], raw + t * row_bytes, row_bytes);
  return absl::OkStatus();
}

absl::Status CodecChain::DecodeFetchedPart(const BlockHeader& header, const PartTask& task,
                                           std::span<const uint8_t> encoded,
                                           const PartPages& pages) const {
  if (header.variant.view() != name()) {
    return absl::InvalidArgumentError(
        absl::StrCat("block ", header.key.ToHex(),
                     ": variant: ", std::string(header.variant.view()), ", expected ", name()));
  }
  if (header.shape != task.shape) {
    return absl::InvalidArgumentError(absl::StrCat("block ", header.key.ToHex(),
                                                   ": shape: ", header.shape.ToString(),
                                                   ", expected ", task.shape.ToString()));
  }
  const absl::StatusOr<uint32_t> index = task.shape.PartIndex(task.layer, task.component);
  if (!index.ok()) return index.status();
  if (absl::Status s = VerifyPart(header, *index, encoded); !s.ok()) return s;
  return DecodePart(task, encoded, pages);
}

}  // namespace kedge::codec
