#include "gpu/codec/sequence_part.h"

#include <algorithm>
#include <bit>

#include "absl/strings/str_cat.h"
#include "proto/crc32c.h"
#include "proto/wire.h"

namespace kedge::codec {
namespace {

constexpr uint8_t kMethod = 0x50;
constexpr uint8_t kVersion = 1;
constexpr uint8_t kNoPositions = 0;
constexpr uint8_t kBitmap = 1;
constexpr uint8_t kGaps = 2;

std::string NameOf(Component component, uint32_t layer) {
  return absl::StrCat("layer ", layer, " ", ComponentName(component));
}

absl::Status Bad(const std::string& part, const char* field, uint64_t value, std::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("part ", part, ": ", field, ": ", value, " ",
                                                 absl::string_view(why.data(), why.size())));
}

std::vector<uint8_t> Bitmap(std::span<const int32_t> positions, uint32_t tokens) {
  std::vector<uint8_t> bytes((tokens + 7) / 8);
  for (const int32_t t : positions) bytes[t / 8] |= static_cast<uint8_t>(1 << (t % 8));
  return bytes;
}

std::vector<uint8_t> Gaps(std::span<const int32_t> positions) {
  std::vector<uint8_t> bytes;
  int32_t last = -1;
  for (const int32_t t : positions) {
    auto gap = static_cast<uint32_t>(t - last - 1);
    last = t;
    for (; gap >= 0x80; gap >>= 7) bytes.push_back(static_cast<uint8_t>(gap | 0x80));
    bytes.push_back(static_cast<uint8_t>(gap));
  }
  return bytes;
}

absl::Status ReadBitmap(const std::string& part, std::span<const uint8_t> bytes,
                        SequencePart& read) {
  if (bytes.size() != (uint64_t{read.tokens} + 7) / 8)
    return Bad(part, "positions_bytes", bytes.size(), "are not a bit for each token");
  uint64_t bits = 0;
  for (const uint8_t byte : bytes) bits += std::popcount(byte);
  if (bits != read.rows) return Bad(part, "positions", bits, "bits are set, not one for each row");
  for (uint64_t t = 0; t < 8 * bytes.size(); ++t) {
    if ((bytes[t / 8] >> (t % 8) & 1) == 0) continue;
    if (t >= read.tokens) return Bad(part, "position", t, "is no token of the sequence");
    read.positions.push_back(static_cast<int32_t>(t));
  }
  return absl::OkStatus();
}

absl::Status ReadGaps(const std::string& part, std::span<const uint8_t> bytes, SequencePart& read) {
  if (bytes.size() < read.rows)
    return Bad(part, "positions_bytes", bytes.size(), "are fewer than rows");
  uint64_t next = 0;  // the smallest position that may come
  size_t at = 0;
  for (uint32_t row = 0; row < read.rows; ++row) {
    uint64_t gap = 0;
    for (int shift = 0;; shift += 7) {
      if (at == bytes.size() || shift > 21)
        return Bad(part, "position of row", row, "is cut off or too long");
      const uint8_t byte = bytes[at++];
      gap |= uint64_t{byte & 0x7fu} << shift;
      if ((byte & 0x80) != 0) continue;
      if (byte == 0 && shift > 0) return Bad(part, "position of row", row, "has needless bytes");
      break;
    }
    if (next + gap >= read.tokens)
      return Bad(part, "position", next + gap, "is no token of the sequence");
    read.positions.push_back(static_cast<int32_t>(next + gap));
    next += gap + 1;
  }
  if (at != bytes.size()) return Bad(part, "positions_bytes", bytes.size(), "are more than rows'");
  return absl::OkStatus();
}

}  // namespace

uint32_t PositionsCrc(std::span<const int32_t> positions) {
  return Crc32c({reinterpret_cast<const uint8_t*>(positions.data()), positions.size_bytes()});
}

std::vector<uint8_t> EncodePositions(std::span<const int32_t> positions, uint32_t tokens,
                                     uint8_t* coding) {
  std::vector<uint8_t> bitmap = Bitmap(positions, tokens);
  std::vector<uint8_t> gaps = Gaps(positions);
  *coding = gaps.size() < bitmap.size() ? kGaps : kBitmap;
  return *coding == kGaps ? gaps : bitmap;
}

void AppendSequenceHeader(Component component, uint32_t layer, uint32_t tokens,
                          std::span<const int32_t> positions, std::vector<uint8_t>& out) {
  uint8_t coding = kNoPositions;
  std::vector<uint8_t> coded;
  if (component == Component::kK) coded = EncodePositions(positions, tokens, &coding);
  WireWriter writer(out);
  writer.U8(kMethod);
  writer.U8(kVersion);
  writer.U8(static_cast<uint8_t>(component));
  writer.U8(coding);
  writer.U32(layer);
  writer.U32(tokens);
  writer.U32(static_cast<uint32_t>(positions.size()));
  writer.U32(static_cast<uint32_t>(coded.size()));
  writer.U32(PositionsCrc(positions));
  writer.Bytes(coded);
}

absl::StatusOr<SequencePart> ReadSequencePart(Component component, uint32_t layer, uint32_t tokens,
                                              std::span<const uint8_t> bytes) {
  const std::string part = NameOf(component, layer);
  if (bytes.size() < kSequencePartHeaderBytes)
    return Bad(part, "bytes", bytes.size(), "are fewer than a header's");
  const uint8_t* from = bytes.data();
  if (from[0] != kMethod) return Bad(part, "method", from[0], "is no pruned sequence's");
  if (from[1] != kVersion) {
    return absl::UnimplementedError(
        absl::StrCat("part ", part, ": version: ", from[1], ", this program reads ", kVersion));
  }
  if (from[2] != static_cast<uint8_t>(component))
    return Bad(part, "component", from[2], "is another one");
  SequencePart read{.component = component, .layer = LoadLe<uint32_t>(from + 4)};
  read.tokens = LoadLe<uint32_t>(from + 8);
  read.rows = LoadLe<uint32_t>(from + 12);
  const auto positions_bytes = LoadLe<uint32_t>(from + 16);
  read.positions_crc = LoadLe<uint32_t>(from + 20);
  if (read.layer != layer) return Bad(part, "layer", read.layer, "is another one");
  if (read.tokens != tokens)
    return Bad(part, "tokens", read.tokens, absl::StrCat("are not the sequence's ", tokens));
  if (read.rows == 0 || read.rows > read.tokens)
    return Bad(part, "rows", read.rows, "are none, or more than tokens");
  const std::span<const uint8_t> rest = bytes.subspan(kSequencePartHeaderBytes);
  if (positions_bytes > rest.size())
    return Bad(part, "positions_bytes", positions_bytes, "are more than the part has");
  const std::span<const uint8_t> coded = rest.first(positions_bytes);
  read.segments = rest.subspan(positions_bytes);
  const uint8_t coding = from[3];
  if (component == Component::kV) {
    if (coding != kNoPositions)
      return Bad(part, "coding", coding, "of positions, values have none");
    if (positions_bytes != 0) return Bad(part, "positions_bytes", positions_bytes, "are not 0");
    return read;
  }
  if (coding != kBitmap && coding != kGaps)
    return Bad(part, "coding", coding, "is neither 1 (bitmap) nor 2 (gaps)");
  absl::Status status =
      coding == kBitmap ? ReadBitmap(part, coded, read) : ReadGaps(part, coded, read);
  if (!status.ok()) return status;
  const uint32_t crc = PositionsCrc(read.positions);
  if (crc != read.positions_crc) {
    return absl::DataLossError(absl::StrCat("part ", part, ": positions_crc: ", read.positions_crc,
                                            ", its positions have ", crc));
  }
  return read;
}

}  // namespace kedge::codec
