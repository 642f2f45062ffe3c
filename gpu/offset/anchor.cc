#include "gpu/offset/anchor.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/base/internal/raw_logging.h"
#include "absl/strings/str_cat.h"
#include "gpu/kernels/cast.h"
#include "proto/wire.h"

namespace kedge::offset {
namespace {

constexpr uint32_t kMagic = 0x434e414b;  // "KANC"
constexpr uint16_t kVersion = 1;
// What no model exceeds; products of them stay far from 2^63.
constexpr uint32_t kMaxLayers = 1024;
constexpr uint32_t kMaxWidth = 1 << 16;
constexpr uint32_t kMaxTokens = 1 << 20;
constexpr uint16_t kMaxName = 256;

void Append(const std::vector<float>& array, int64_t skip, DType dtype, std::vector<uint8_t>& out) {
  const int64_t count = static_cast<int64_t>(array.size()) - skip;
  const size_t at = out.size();
  out.resize(at + count * kernels::FloatBytes(dtype));
  kernels::CastFromFloat(dtype, array.data() + skip, count, out.data() + at);
}

void AppendRows(const KvRows& rows, DType dtype, std::vector<uint8_t>& out) {
  Append(rows.keys, rows.tokens * rows.width, dtype, out);
  Append(rows.values, rows.tokens * rows.width, dtype, out);
}

// Takes an array from the front of `from`; false when a number is not finite.
bool Take(DType dtype, std::span<const uint8_t>& from, std::span<float> to) {
  const int64_t bytes = static_cast<int64_t>(to.size()) * kernels::FloatBytes(dtype);
  kernels::CastToFloat(dtype, from.data(), static_cast<int64_t>(to.size()), to.data());
  from = from.subspan(bytes);
  return std::all_of(to.begin(), to.end(), [](float value) { return std::isfinite(value); });
}

bool TakeRows(DType dtype, std::span<const uint8_t>& from, KvRows& rows) {
  const int64_t skip = rows.tokens * rows.width;
  return Take(dtype, from, std::span(rows.keys).subspan(skip)) &&
         Take(dtype, from, std::span(rows.values).subspan(skip));
}

// u16 length and bytes of the consumer, likewise of the placeholder.
std::vector<uint8_t> PoolBytes(const PoolName& pool) {
  std::vector<uint8_t> bytes;
  WireWriter writer(bytes);
  writer.Text(pool.consumer, kMaxName);
  writer.Text(pool.placeholder, kMaxName);
  return bytes;
}

}  // namespace

const char* BaseKindName(BaseKind kind) {
  return kind == BaseKind::kCanonical ? "canonical" : "produced";
}

BlockKey AnchorKey(const TenantSalt& salt, const Fingerprint& model, const PoolName& pool,
                   std::span<const int32_t> filling, std::span<const uint8_t> producer) {
  std::vector<uint8_t> name = PoolBytes(pool);
  WireWriter writer(name);
  writer.U8(static_cast<uint8_t>(pool.kind) + 1);  // a pool's own name has a zero here
  writer.Blob(producer, kMaxName);
  for (const int32_t token : filling) writer.U32(static_cast<uint32_t>(token));
  return AnchorNameKey(salt, model, name);
}

BlockKey PoolKey(const TenantSalt& salt, const Fingerprint& model, const PoolName& pool) {
  std::vector<uint8_t> name = PoolBytes(pool);
  name.push_back(0);
  name.push_back(static_cast<uint8_t>(static_cast<uint8_t>(pool.kind) + 1));
  return AnchorNameKey(salt, model, name);
}

uint64_t AnchorPlacement(const TenantSalt& salt, const Fingerprint& model, const PoolName& pool) {
  std::vector<uint8_t> name = PoolBytes(pool);
  name.push_back(0);
  return PlacementOf(AnchorNameKey(salt, model, name));
}

uint64_t TokensDigest(std::span<const int32_t> tokens) {
  uint64_t hash = 0xcbf29ce484222325ull ^ tokens.size();  // FNV-1a, by token
  for (const int32_t token : tokens) {
    for (int shift = 0; shift < 32; shift += 8)
      hash = (hash ^ ((static_cast<uint32_t>(token) >> shift) & 0xff)) * 0x100000001b3ull;
  }
  return hash;
}

std::vector<uint8_t> EncodeAnchor(const Anchor& anchor, DType dtype) {
  const KvRows& rows = anchor.filling;
  ABSL_RAW_CHECK(kernels::IsFloatDType(dtype), "offsets are f32, f16 or bf16");
  ABSL_RAW_CHECK(rows.layers >= 1 && anchor.prefix.layers == rows.layers &&
                     anchor.prefix.width == rows.width && anchor.sketch.tokens == rows.tokens,
                 "an anchor's parts are of one shape");
  std::vector<uint8_t> out;
  WireWriter writer(out);
  writer.U32(kMagic);
  writer.U16(kVersion);
  writer.U8(static_cast<uint8_t>(dtype));
  writer.U8(static_cast<uint8_t>(anchor.kind));
  writer.U32(static_cast<uint32_t>(rows.layers));
  writer.U32(static_cast<uint32_t>(rows.width));
  writer.U32(static_cast<uint32_t>(rows.tokens));
  writer.U32(static_cast<uint32_t>(anchor.prefix.tokens));
  writer.U64(anchor.prefix_digest);
  writer.U64(anchor.context_digest);
  Append(anchor.sketch.values, 0, DType::kF32, out);
  AppendRows(rows, dtype, out);
  AppendRows(anchor.prefix, dtype, out);
  return out;
}

uint64_t EncodedAnchorBytes(const Anchor& anchor, DType dtype) {
  const int64_t rows = (anchor.filling.layers - 1) *
                       (anchor.filling.tokens + anchor.prefix.tokens) * anchor.filling.width;
  return static_cast<uint64_t>(40 + anchor.sketch.tokens * kSketchSize * 4 +
                               2 * rows * kernels::FloatBytes(dtype));
}

absl::StatusOr<Anchor> ParseAnchor(const BlockKey& key, std::span<const uint8_t> bytes) {
  WireReader reader("anchor", bytes);
  if (reader.U32("magic") != kMagic) reader.Fail("magic", "not an anchor");
  const uint16_t version = reader.U16("version");
  if (version != kVersion) reader.Fail("version", std::to_string(version) + ", only 1 is read");
  const auto dtype = static_cast<DType>(reader.U8("dtype"));
  if (!kernels::IsFloatDType(dtype))
    reader.Fail("dtype", std::to_string(static_cast<int>(dtype)) + ", not f32, f16 or bf16");
  const uint8_t kind = reader.Enum("base_kind", 1);
  const auto within = [&](const char* field, uint32_t least, uint32_t most) {
    const uint32_t value = reader.U32(field);
    if (value < least || value > most) reader.Fail(field, std::to_string(value));
    return int64_t{value};
  };
  // Without a second layer there are no offsets, and no bytes that tokens and width are bound by.
  const int64_t layers = within("layers", 2, kMaxLayers);
  const int64_t width = within("width", 1, kMaxWidth);
  const int64_t tokens = within("tokens", 1, kMaxTokens);
  const int64_t prefix_tokens = within("prefix_tokens", 0, kMaxTokens);
  const uint64_t prefix_digest = reader.U64("prefix_digest");
  const uint64_t context_digest = reader.U64("context_digest");
  if (!reader.ok()) return reader.Finish();
  const int64_t offset_bytes =
      2 * (layers - 1) * width * kernels::FloatBytes(dtype) * (tokens + prefix_tokens);
  const int64_t expected = tokens * kSketchSize * 4 + offset_bytes;
  if (static_cast<int64_t>(reader.left()) != expected) {
    return absl::InvalidArgumentError(absl::StrCat(
        "anchor.length: ", reader.left(), " bytes behind the header, ", expected, " expected"));
  }
  Anchor anchor{.key = key,
                .kind = static_cast<BaseKind>(kind),
                .prefix_digest = prefix_digest,
                .context_digest = context_digest};
  anchor.sketch.tokens = tokens;
  anchor.sketch.values.resize(tokens * kSketchSize);
  anchor.filling = KvRows::Of(layers, tokens, width);
  anchor.prefix = KvRows::Of(layers, prefix_tokens, width);
  std::span<const uint8_t> rest = bytes.last(reader.left());
  if (!Take(DType::kF32, rest, anchor.sketch.values))
    return absl::InvalidArgumentError("anchor.sketch: a number is not finite");
  if (!TakeRows(dtype, rest, anchor.filling) || !TakeRows(dtype, rest, anchor.prefix))
    return absl::InvalidArgumentError("anchor.offsets: a number is not finite");
  return anchor;
}

}  // namespace kedge::offset
