#include "gpu/codec/archive.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "gpu/kernels/cast.h"
#include "proto/crc32c.h"
#include "proto/wire.h"

namespace kedge::codec {
namespace {

constexpr uint16_t kVersion = 1;
constexpr uint16_t kClassesMax = 256;

void WriteF16(std::span<const float> values, WireWriter& writer) {
  std::vector<uint16_t> bits(values.size());
  kernels::CastFromFloat(DType::kF16, values.data(), static_cast<int64_t>(values.size()),
                         bits.data());
  writer.Bytes({reinterpret_cast<const uint8_t*>(bits.data()), bits.size() * 2});
}

// Fails where a value is not finite.
void ReadF16(const char* field, WireReader& reader, std::span<float> values) {
  std::vector<uint16_t> bits(values.size());
  reader.Bytes(field, {reinterpret_cast<uint8_t*>(bits.data()), bits.size() * 2});
  if (!reader.ok()) return;
  kernels::CastToFloat(DType::kF16, bits.data(), static_cast<int64_t>(values.size()),
                       values.data());
  for (float value : values) {
    if (std::isfinite(value)) continue;
    reader.Fail(field, "a value is not finite");
    return;
  }
}

float ReadF32(const char* field, WireReader& reader) {
  return std::bit_cast<float>(reader.U32(field));
}

absl::Status CheckVersion(WireReader& reader, const char* section) {
  const uint16_t version = reader.U16("version");
  if (reader.ok() && version != kVersion) {
    return absl::UnimplementedError(absl::StrCat(
        "profile.section ", section, ": version: ", version, ", this program reads ", kVersion));
  }
  return absl::OkStatus();
}

void ReadClass(WireReader& reader, ArchiveClass& c) {
  uint32_t sum = 0;
  for (uint16_t& share : c.shares) {
    share = reader.U16("share");
    sum += share;
  }
  ReadF16("points", reader, c.points);
  if (!reader.ok()) return;
  if (sum != kRansTotal) {
    reader.Fail("share", absl::StrCat("sum ", sum, ", expected ", kRansTotal));
  } else if (std::find(c.shares.begin(), c.shares.end(), 0) != c.shares.end()) {
    reader.Fail("share", "is 0: a code could not be encoded");
  }
}

void ReadKept(WireReader& reader, const ArchivePoint& point, std::vector<ArchiveComponent>& kept) {
  const uint16_t count = reader.U16("kept");
  if (count > point.width)
    reader.Fail("kept", absl::StrCat("count ", count, " passes the width ", point.width));
  if (!reader.ok()) return;
  kept.resize(count);
  int last = -1;
  for (ArchiveComponent& c : kept) {
    c.component = reader.U16("component");
    c.of_class = reader.U8("class");
    c.step = ReadF32("step", reader);
    if (!reader.ok()) return;
    if (c.component <= last || c.component >= point.width) {
      reader.Fail("component",
                  absl::StrCat(c.component, " behind ", last, ", width ", point.width));
    } else if (c.of_class >= point.classes.size()) {
      reader.Fail("class", absl::StrCat(c.of_class, " of ", point.classes.size()));
    } else if (!(c.step >= 1e-20f && c.step <= 1e20f)) {
      reader.Fail("step", absl::StrCat(c.step, " is not in [1e-20, 1e20]"));
    }
    last = c.component;
  }
}

}  // namespace

std::vector<uint8_t> ArchiveBases::Encode() const {
  std::vector<uint8_t> out;
  WireWriter writer(out);
  for (uint16_t field : {kVersion, layers, kv_heads, head_size}) writer.U16(field);
  for (const ArchiveBasis& basis : parts) {
    writer.U16(static_cast<uint16_t>(basis.rank()));
    WriteF16(basis.mean, writer);
    WriteF16(basis.analysis, writer);
    WriteF16(basis.synthesis, writer);
  }
  return out;
}

absl::StatusOr<ArchiveBases> ArchiveBases::Parse(std::span<const uint8_t> section) {
  WireReader reader("profile.section pca", section);
  if (absl::Status s = CheckVersion(reader, kPcaSection); !s.ok()) return s;
  ArchiveBases bases;
  bases.layers = reader.U16("layers");
  bases.kv_heads = reader.U16("kv_heads");
  bases.head_size = reader.U16("head_size");
  const uint64_t width = uint64_t{bases.kv_heads} * bases.head_size;
  if (width == 0 || width > 65535) reader.Fail("head_size", absl::StrCat("width ", width));
  for (uint32_t i = 0; i < uint32_t{bases.layers} * 2 && reader.ok(); ++i) {
    const uint16_t rank = reader.U16("rank");
    if (rank > width) reader.Fail("rank", absl::StrCat(rank, " passes the width ", width));
    // Before memory is taken for it.
    if ((1 + 2 * uint64_t{rank}) * width * 2 > reader.left())
      reader.Fail("rank", absl::StrCat(rank, ": ", reader.left(), " bytes are left"));
    if (!reader.ok()) break;
    ArchiveBasis basis;
    basis.mean.resize(width);
    basis.analysis.resize(rank * width);
    basis.synthesis.resize(rank * width);
    ReadF16("mean", reader, basis.mean);
    ReadF16("analysis", reader, basis.analysis);
    ReadF16("synthesis", reader, basis.synthesis);
    bases.parts.push_back(std::move(basis));
  }
  if (absl::Status s = reader.Finish(); !s.ok()) return s;
  return bases;
}

std::vector<uint8_t> ArchivePoint::Encode() const {
  std::vector<uint8_t> out;
  WireWriter writer(out);
  for (uint16_t field : {kVersion, layers, width, static_cast<uint16_t>(classes.size())})
    writer.U16(field);
  writer.U32(std::bit_cast<uint32_t>(rounding));
  for (const ArchiveClass& c : classes) {
    for (uint16_t share : c.shares) writer.U16(share);
    WriteF16(c.points, writer);
  }
  for (const std::vector<ArchiveComponent>& kept : parts) {
    writer.U16(static_cast<uint16_t>(kept.size()));
    for (const ArchiveComponent& c : kept) {
      writer.U16(c.component);
      writer.U8(c.of_class);
      writer.U32(std::bit_cast<uint32_t>(c.step));
    }
  }
  return out;
}

absl::StatusOr<ArchivePoint> ArchivePoint::Parse(std::span<const uint8_t> section) {
  WireReader reader("profile.section entropy/archive", section);
  if (absl::Status s = CheckVersion(reader, "entropy/archive"); !s.ok()) return s;
  ArchivePoint point;
  point.layers = reader.U16("layers");
  point.width = reader.U16("width");
  const uint16_t classes = reader.U16("classes");
  if (classes == 0 || classes > kClassesMax)
    reader.Fail("classes", absl::StrCat(classes, " is not 1 to ", kClassesMax));
  point.rounding = ReadF32("rounding", reader);
  if (!(point.rounding > 0.0f && point.rounding <= 0.5f))
    reader.Fail("rounding", absl::StrCat(point.rounding, " is not in (0, 0.5]"));
  for (uint16_t i = 0; i < classes && reader.ok(); ++i)
    ReadClass(reader, point.classes.emplace_back());
  for (uint32_t i = 0; i < uint32_t{point.layers} * 2 && reader.ok(); ++i)
    ReadKept(reader, point, point.parts.emplace_back());
  if (absl::Status s = reader.Finish(); !s.ok()) return s;
  return point;
}

uint32_t ArchiveId(std::span<const uint8_t> pca, std::span<const uint8_t> point) {
  return ExtendCrc32c(Crc32c(pca), point);
}

}  // namespace kedge::codec
