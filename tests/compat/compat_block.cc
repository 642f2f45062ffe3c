#include "tests/compat/compat_block.h"

#include <cstring>

#include "gpu/codec/codec_chain.h"
#include "gpu/kernels/cast.h"

namespace kedge::compat {
namespace {

using codec::CodecChain;

constexpr Component kComponents[] = {Component::kK, Component::kV};

KvShape Shape() { return KvShape::KeysAndValues(2, 2, 64, 64, DType::kF16); }

// Angles whose cosine and sine are exact: of the triangle 3, 4, 5.
kernels::RopeTable Angles(const KvShape& shape) {
  const size_t count = size_t{shape.block_tokens} * shape.head_size / 2;
  return {std::vector<float>(count, 0.6f), std::vector<float>(count, 0.8f)};
}

// Values between -4 and 4, some channels ten times that, some groups of one value (xorshift64).
std::vector<uint8_t> RawPart(const KvShape& shape, uint64_t seed) {
  const int64_t width = int64_t{shape.kv_heads} * shape.head_size;
  std::vector<float> values(shape.block_tokens * width);
  uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
  for (size_t i = 0; i < values.size(); ++i) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    const auto channel = static_cast<int64_t>(i) % width;
    values[i] = static_cast<float>(state >> 40) * 0x1p-21f - 4.0f;
    if (channel % 29 == 3) values[i] *= 10.0f;
    if (channel / 32 == 1 && static_cast<int64_t>(i) / width % 8 == 5) values[i] = 1.25f;
  }
  std::vector<uint8_t> raw(shape.raw_part_bytes());
  kernels::CastFromFloat(DType::kF16, values.data(), static_cast<int64_t>(values.size()),
                         raw.data());
  return raw;
}

}  // namespace

absl::StatusOr<std::vector<uint8_t>> MakeBlock(const std::string& name, bool sequence_start,
                                               const ModelProfile* profile) {
  const absl::StatusOr<CodecChain> chain = CodecChain::Parse(name, profile);
  if (!chain.ok()) return chain.status();
  const absl::StatusOr<Variant> variant = Variant::Parse(name);
  if (!variant.ok()) return variant.status();
  BlockHeader header;
  std::memset(header.key.bytes.data(), sequence_start ? 0x11 : 0x22, header.key.bytes.size());
  header.keyspace = Keyspace::kPrefix;
  header.chain_depth = sequence_start ? 0 : 1;
  if (!sequence_start) header.parent.bytes.fill(0x11);
  header.variant = *variant;
  header.fidelity = chain->fidelity();
  const bool raw = header.fidelity == Fidelity::kLossless;
  header.rope = raw ? RopeState::kRotated : RopeState::kUnrotated;
  header.shape = Shape();
  const kernels::RopeTable angles = Angles(header.shape);
  std::vector<uint8_t> payload;
  for (uint32_t part = 0; part < header.shape.part_count(); ++part) {
    const codec::PartTask task{header.shape, part / 2, kComponents[part % 2], &angles};
    const absl::StatusOr<uint64_t> most =
        chain->MaxPartBytes(header.shape, task.component, sequence_start);
    if (!most.ok()) return most.status();
    std::vector<uint8_t> bytes(*most);
    const absl::StatusOr<uint64_t> used =
        chain->EncodePart(task, sequence_start, RawPart(header.shape, part + 1), bytes);
    if (!used.ok()) return used.status();
    bytes.resize(*used);
    header.parts.push_back(
        {static_cast<uint32_t>(*used), PartDigest(header.key, header.variant, part, bytes)});
    payload.insert(payload.end(), bytes.begin(), bytes.end());
  }
  absl::StatusOr<std::vector<uint8_t>> block = EncodeBlockHeader(header);
  if (!block.ok()) return block.status();
  block->insert(block->end(), payload.begin(), payload.end());
  return block;
}

absl::StatusOr<std::vector<uint8_t>> PagesOf(std::span<const uint8_t> block,
                                             const ModelProfile* profile) {
  const absl::StatusOr<BlockHeader> header = DecodeBlockHeader(block);
  if (!header.ok()) return header.status();
  const absl::StatusOr<CodecChain> chain = CodecChain::Parse(header->variant.view(), profile);
  if (!chain.ok()) return chain.status();
  const std::span<const uint8_t> payload = block.subspan(header->encoded_bytes());
  if (absl::Status s = VerifyPayload(*header, payload); !s.ok()) return s;
  const kernels::RopeTable angles = Angles(header->shape);
  const uint64_t part_bytes = header->shape.raw_part_bytes();
  std::vector<uint8_t> pages(header->shape.raw_block_bytes());
  for (uint32_t part = 0; part < header->shape.part_count(); ++part) {
    const codec::PartTask task{header->shape, part / 2, kComponents[part % 2], &angles};
    const std::span<uint8_t> page =
        std::span<uint8_t>(pages).subspan(part * part_bytes, part_bytes);
    const absl::Status s = chain->DecodeFetchedPart(
        *header, task, payload.subspan(header->part_offset(part), header->parts[part].bytes),
        {{&page, 1}, header->shape.block_tokens});
    if (!s.ok()) return s;
  }
  return pages;
}

std::string DigestOfPages(std::span<const uint8_t> pages) {
  return PartDigest(BlockKey{}, Variant::Raw(), 0, pages).ToHex();
}

}  // namespace kedge::compat
