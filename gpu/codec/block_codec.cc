#include "gpu/codec/block_codec.h"

#include <utility>

#include "absl/base/internal/raw_logging.h"
#include "absl/strings/str_cat.h"
#include "gpu/kernels/rope_scaling_text.h"

namespace kedge::codec {

absl::StatusOr<KeyRotation> KeyRotation::Of(double theta, std::string_view scaling,
                                            int64_t head_size) {
  KeyRotation rotation;
  if (theta == 0) return rotation;
  if (head_size % 2 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("head_size: ", head_size, " is odd, and RoPE turns pairs"));
  }
  const absl::StatusOr<kernels::RopeScaling> parsed = kernels::ParseRopeScaling(scaling);
  if (!parsed.ok()) return parsed.status();
  rotation.frequencies_ = kernels::RopeFrequencies(head_size, static_cast<float>(theta), *parsed);
  return rotation;
}

std::optional<kernels::RopeTable> KeyRotation::Table(int64_t first_position, int64_t tokens) const {
  if (none()) return std::nullopt;
  return kernels::MakeRopeTable(frequencies_, first_position, tokens);
}

PartPlace PlaceOfPart(const KvShape& shape, uint32_t part) {
  const uint32_t in_layer = shape.components_per_layer();
  PartPlace place{shape.layer_begin + part / in_layer, Component::kK};
  uint32_t skip = part % in_layer;
  for (int value = 1; value <= kComponentCount; ++value) {
    if ((shape.components >> (value - 1) & 1) == 0) continue;
    place.component = static_cast<Component>(value);
    if (skip-- == 0) break;
  }
  return place;
}

BlockEncoder::BlockEncoder(CodecChain chain, const BlockHeader& raw, const kernels::RopeTable* rope)
    : chain_(std::move(chain)), header_(raw), rope_(rope), parts_(raw.shape.part_count()) {
  header_.variant = *Variant::Parse(chain_.name());
  header_.fidelity = chain_.fidelity();
  if (chain_.fidelity() != Fidelity::kLossless && header_.rope == RopeState::kRotated) {
    header_.rope = RopeState::kUnrotated;
    header_.rope_base_position = 0;
  }
}

absl::Status BlockEncoder::Add(uint32_t part, std::span<const uint8_t> raw) {
  const KvShape& shape = header_.shape;
  const PartPlace place = PlaceOfPart(shape, part);
  const bool sequence_start = header_.chain_depth == 0;
  const absl::StatusOr<uint64_t> most = chain_.MaxPartBytes(shape, place.component, sequence_start);
  if (!most.ok()) return most.status();
  std::vector<uint8_t>& bytes = parts_[part];
  bytes.resize(*most);
  const absl::StatusOr<uint64_t> size =
      chain_.EncodePart({shape, place.layer, place.component, rope_}, sequence_start, raw, bytes);
  if (!size.ok()) return size.status();
  bytes.resize(*size);
  header_.parts[part] = {static_cast<uint32_t>(*size),
                         PartDigest(header_.key, header_.variant, part, bytes)};
  return absl::OkStatus();
}

EncodedBlock BlockEncoder::Finish() {
  EncodedBlock block;
  block.payload.reserve(header_.payload_bytes());
  for (const std::vector<uint8_t>& part : parts_) {
    block.payload.insert(block.payload.end(), part.begin(), part.end());
  }
  ABSL_RAW_CHECK(block.payload.size() == header_.payload_bytes(), "a part was not added");
  parts_.clear();
  block.header = std::move(header_);
  return block;
}

absl::StatusOr<EncodedBlock> RecodeBlock(const CodecChain& from, const BlockHeader& header,
                                         std::span<const uint8_t> payload, const CodecChain& to,
                                         const KeyRotation& rotation) {
  const KvShape& shape = header.shape;
  if (shape.opaque()) {
    return absl::FailedPreconditionError("recode: shape: opaque values have no keys and values");
  }
  const bool raw = from.fidelity() == Fidelity::kLossless;
  if (header.rope == RopeState::kRotated && rotation.none()) {
    return absl::FailedPreconditionError(
        absl::StrCat("recode: model ", header.model.ToHex(),
                     ": its keys are rotated, and nobody knows how: no profile of it is loaded"));
  }
  if (absl::Status status = to.Supports(shape); !status.ok()) return status;
  std::optional<kernels::RopeTable> rope;
  if (header.rope == RopeState::kRotated) {
    rope = rotation.Table(header.rope_base_position, shape.block_tokens);
  }
  BlockEncoder encoder(to, header, rope ? &*rope : nullptr);
  std::vector<uint8_t> decoded(raw ? 0 : shape.raw_part_bytes());
  const std::span<uint8_t> page(decoded);
  uint64_t offset = 0;
  for (uint32_t part = 0; part < header.parts.size(); ++part) {
    std::span<const uint8_t> bytes = payload.subspan(offset, header.parts[part].bytes);
    offset += bytes.size();
    if (!raw) {
      const PartPlace place = PlaceOfPart(shape, part);
      const absl::Status status = from.DecodePart({shape, place.layer, place.component}, bytes,
                                                  {{&page, 1}, shape.block_tokens});
      if (!status.ok()) return status;
      bytes = decoded;
    }
    if (absl::Status status = encoder.Add(part, bytes); !status.ok()) return status;
  }
  return encoder.Finish();
}

}  // namespace kedge::codec
