#include "gpu/codec/kivi_rans.h"

#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/wire.h"

namespace kedge::codec {
namespace {

constexpr uint16_t kVersion = 1;
constexpr uint64_t kTableBytes = 512;

std::array<RansRun, kKiviStreams> RunsOf(const std::array<KiviStream, kKiviStreams>& streams,
                                         const KiviTables& tables) {
  std::array<RansRun, kKiviStreams> runs;
  for (int i = 0; i < kKiviStreams; ++i) runs[i] = {&tables[i], streams[i].count};
  return runs;
}

}  // namespace

std::array<KiviStream, kKiviStreams> KiviStreamsOf(const KiviLayout& layout) {
  const int64_t groups = layout.groups();
  const int64_t codes_at = layout.codes_at();
  const KiviStream codes = {codes_at, 1, layout.bytes() - codes_at};
  if (layout.two_level()) {
    const int64_t shared = layout.scale_codes_at() / 2;
    return {{{0, 2, shared},
             {1, 2, shared},
             {layout.scale_codes_at(), 1, groups},
             {layout.minimum_codes_at(), 1, groups},
             codes}};
  }
  const int64_t minimums = layout.minimums_at();
  return {
      {{0, 2, groups}, {1, 2, groups}, {minimums, 2, groups}, {minimums + 1, 2, groups}, codes}};
}

void CountKivi(const KiviLayout& layout, std::span<const uint8_t> body,
               std::array<std::array<uint64_t, 256>, kKiviStreams>& counts) {
  const auto streams = KiviStreamsOf(layout);
  for (int s = 0; s < kKiviStreams; ++s) {
    for (int64_t i = 0; i < streams[s].count; ++i)
      ++counts[s][body[streams[s].at + i * streams[s].stride]];
  }
}

std::vector<uint8_t> EncodeKiviTables(const KiviCounts& counts) {
  std::vector<uint8_t> out;
  WireWriter writer(out);
  writer.U16(kVersion);
  writer.U16(static_cast<uint16_t>(counts.size() / 2));
  for (const auto& part : counts) {
    for (const auto& stream : part) {
      for (uint16_t share : RansTable::SharesOf(stream)) writer.U16(share);
    }
  }
  return out;
}

absl::StatusOr<std::vector<KiviTables>> ParseKiviTables(const std::string& name,
                                                        std::span<const uint8_t> section) {
  WireReader reader("profile.section entropy", section);
  const auto wrong = [&](const absl::Status& s) {
    return absl::Status(s.code(), absl::StrCat(name, ": ", s.message()));
  };
  const uint16_t version = reader.U16("version");
  if (reader.ok() && version != kVersion) {
    return absl::UnimplementedError(absl::StrCat("profile.section entropy/", name, ": version: ",
                                                 version, ", this program reads ", kVersion));
  }
  const uint64_t parts = uint64_t{reader.U16("layers")} * 2;
  if (reader.ok() && parts * kKiviStreams * kTableBytes != reader.left()) {
    reader.Fail("layers", absl::StrCat(parts / 2, " have ", parts * kKiviStreams * kTableBytes,
                                       " bytes of tables, ", reader.left(), " are left"));
  }
  if (!reader.ok()) return wrong(reader.Finish());
  std::vector<KiviTables> tables;
  tables.reserve(parts);
  for (uint64_t part = 0; part < parts; ++part) {
    std::vector<RansTable> made;
    for (int s = 0; s < kKiviStreams; ++s) {
      std::array<uint16_t, 256> shares;
      for (uint16_t& share : shares) {
        share = reader.U16("share");
        if (share == 0) reader.Fail("share", "is 0: a byte could not be encoded");
      }
      absl::StatusOr<RansTable> table = RansTable::Make(shares);
      if (!reader.ok()) return wrong(reader.Finish());
      if (!table.ok()) return wrong(table.status());
      made.push_back(*std::move(table));
    }
    tables.push_back({std::move(made[0]), std::move(made[1]), std::move(made[2]),
                      std::move(made[3]), std::move(made[4])});
  }
  return tables;
}

int64_t KiviRansBytesMax(const KiviLayout& layout) { return RansBytesMax(layout.bytes()); }

int64_t KiviRansEncode(const KiviLayout& layout, const KiviTables& tables, const uint8_t* body,
                       std::span<uint8_t> out) {
  const auto streams = KiviStreamsOf(layout);
  std::vector<uint8_t> symbols(layout.bytes());
  uint8_t* to = symbols.data();
  for (const KiviStream& stream : streams) {
    for (int64_t i = 0; i < stream.count; ++i) *to++ = body[stream.at + i * stream.stride];
  }
  return RansEncode(RunsOf(streams, tables), symbols.data(), out);
}

absl::Status KiviRansDecode(const KiviLayout& layout, const KiviTables& tables,
                            std::span<const uint8_t> in, uint8_t* body) {
  const auto streams = KiviStreamsOf(layout);
  std::vector<uint8_t> symbols(layout.bytes());
  const absl::StatusOr<int64_t> read = RansDecode(RunsOf(streams, tables), in, symbols.data());
  if (!read.ok()) return read.status();
  if (*read != static_cast<int64_t>(in.size())) {
    return absl::InvalidArgumentError(
        absl::StrCat("rans: ", in.size() - *read, " bytes are left over"));
  }
  const uint8_t* from = symbols.data();
  for (const KiviStream& stream : streams) {
    if (stream.stride == 1) {
      std::memcpy(body + stream.at, from, stream.count);
    } else {
      for (int64_t i = 0; i < stream.count; ++i) body[stream.at + i * stream.stride] = from[i];
    }
    from += stream.count;
  }
  return absl::OkStatus();
}

}  // namespace kedge::codec
