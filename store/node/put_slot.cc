#include "store/node/put_slot.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "store/transfer/stream_copy.h"

namespace kedge {

ImageLayout PutSlot::LayoutFor(const PutBeginItem& item) {
  return {kBlockHeaderFixedBytes + kBlockHeaderModelBytes + item.part_count * kPartEntryBytes,
          item.payload_bytes};
}

void PutSlot::Open(const PutBeginItem& item, const Variant& variant, HostSlot host,
                   uint8_t* image) {
  key_ = item.key;
  variant_ = variant;
  placement_ = item.placement;
  part_count_ = item.part_count;
  const bool sizes_add_up = uint64_t{item.part_bytes} * item.part_count == item.payload_bytes;
  part_bytes_ = sizes_add_up ? item.part_bytes : 0;
  layout_ = LayoutFor(item);
  reserved_bytes_ = layout_.image_bytes();
  host_ = host;
  image_ = image;
  ranges_.clear();
  received_ = 0;
  digested_ = 0;
  digests_.clear();
  failed = absl::OkStatus();
  commit_waits = false;
  to_pool = false;
  commit_header.clear();
}

absl::Status PutSlot::Receive(uint64_t offset, std::span<const uint8_t> bytes) {
  if (offset > layout_.payload_bytes || bytes.size() > layout_.payload_bytes - offset) {
    return absl::InvalidArgumentError(absl::StrCat("chunk.offset ", offset, " + ", bytes.size(),
                                                   " bytes: the payload has ",
                                                   layout_.payload_bytes));
  }
  if (bytes.empty()) return absl::OkStatus();
  if (absl::Status status = AddRange(offset, offset + bytes.size()); !status.ok()) return status;
  // In order, as nearly always: digested where they are, in the cache, and copied past it.
  if (part_bytes_ != 0 && offset == digested_) {
    DigestUpTo(offset + bytes.size(), bytes.data(), offset);
  }
  uint8_t* payload = image_ + layout_.payload_offset();
  StreamCopy(payload + offset, bytes.data(), bytes.size());
  received_ += bytes.size();
  if (part_bytes_ != 0 && ranges_.front().first == 0) {
    DigestUpTo(ranges_.front().second, payload, 0);  // what came early and has its turn now
  }
  return absl::OkStatus();
}

absl::Status PutSlot::AddRange(uint64_t begin, uint64_t end) {
  auto next = std::lower_bound(ranges_.begin(), ranges_.end(), std::make_pair(begin, uint64_t{0}));
  const bool has_before = next != ranges_.begin();
  if ((next != ranges_.end() && next->first < end) ||
      (has_before && std::prev(next)->second > begin)) {
    return absl::InvalidArgumentError(
        absl::StrCat("chunk.offset ", begin, ", ", end - begin, " bytes: some came before"));
  }
  const bool joins_before = has_before && std::prev(next)->second == begin;
  const bool joins_next = next != ranges_.end() && next->first == end;
  if (joins_before && joins_next) {
    std::prev(next)->second = next->second;
    ranges_.erase(next);
  } else if (joins_before) {
    std::prev(next)->second = end;
  } else if (joins_next) {
    next->first = begin;
  } else if (ranges_.size() == kRangesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("chunk.offset ", begin, ": more than ", kRangesMax, " pieces apart"));
  } else {
    ranges_.insert(next, {begin, end});
  }
  return absl::OkStatus();
}

// The bytes from digested_ to `end`; `source` begins with the payload's byte `source_offset`.
void PutSlot::DigestUpTo(uint64_t end, const uint8_t* source, uint64_t source_offset) {
  while (digested_ < end) {
    const auto part = static_cast<uint32_t>(digests_.size());
    const uint64_t part_begin = uint64_t{part_bytes_} * part;
    const uint64_t upto = std::min(end, PartEnd(part));
    const std::span<const uint8_t> bytes(source + (digested_ - source_offset), upto - digested_);
    if (digested_ == part_begin && upto == PartEnd(part)) {
      digests_.push_back(PartDigest(key_, variant_, part, bytes));
    } else {
      if (digested_ == part_begin) digester_.Reset(key_, variant_, part);
      digester_.Update(bytes);
      if (upto == PartEnd(part)) digests_.push_back(digester_.Finish());
    }
    digested_ = upto;
  }
}

absl::Status PutSlot::CheckHeader(const BlockHeader& header) const {
  const auto wrong = [](const char* field, const std::string& is, const std::string& was) {
    return absl::InvalidArgumentError(
        absl::StrCat("put_commit.header.", field, ": ", is, ", kPutBegin said ", was));
  };
  if (header.key != key_) return wrong("key", header.key.ToHex(), key_.ToHex());
  if (header.variant != variant_) {
    return wrong("variant", std::string(header.variant.view()), std::string(variant_.view()));
  }
  if (header.placement != placement_) {
    return wrong("placement", std::to_string(header.placement), std::to_string(placement_));
  }
  if (header.parts.size() != part_count_) {
    return wrong("part_count", std::to_string(header.parts.size()), std::to_string(part_count_));
  }
  if (header.payload_bytes() != layout_.payload_bytes) {
    return wrong("payload_bytes", std::to_string(header.payload_bytes()),
                 std::to_string(layout_.payload_bytes));
  }
  return absl::OkStatus();
}

// A header of an older version is shorter, now and then by a page.
void PutSlot::TakeLayout(uint32_t header_bytes) {
  const ImageLayout is{header_bytes, layout_.payload_bytes};
  if (is.payload_offset() != layout_.payload_offset()) {
    std::memmove(image_ + is.payload_offset(), image_ + layout_.payload_offset(),
                 layout_.payload_bytes);
  }
  layout_ = is;
}

absl::Status PutSlot::Seal(std::span<const uint8_t> encoded, BlockHeader* header) {
  absl::StatusOr<BlockHeader> decoded = DecodeBlockHeader(encoded);
  if (!decoded.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("put_commit.header: ", decoded.status().message()));
  }
  *header = *std::move(decoded);
  if (absl::Status status = CheckHeader(*header); !status.ok()) return status;
  if (encoded.size() != header->encoded_bytes()) {
    return absl::InvalidArgumentError(absl::StrCat("put_commit.header: ", encoded.size(),
                                                   " bytes where ", header->encoded_bytes(),
                                                   " were expected"));
  }
  TakeLayout(header->encoded_bytes());
  const std::span<const uint8_t> payload(image_ + layout_.payload_offset(), layout_.payload_bytes);
  // Digests made on the way count when they are of the parts that the header has.
  const bool known = part_bytes_ != 0 && digests_.size() == header->parts.size() &&
                     std::all_of(header->parts.begin(), header->parts.end(),
                                 [&](const PartEntry& part) { return part.bytes == part_bytes_; });
  for (uint32_t part = 0; known && part < digests_.size(); ++part) {
    if (digests_[part] == header->parts[part].digest) continue;
    return VerifyPart(*header, part, payload.subspan(header->part_offset(part), part_bytes_));
  }
  if (!known) {
    if (absl::Status status = VerifyPayload(*header, payload); !status.ok()) return status;
  }
  std::memcpy(image_, encoded.data(), encoded.size());
  std::memset(image_ + encoded.size(), 0, layout_.payload_offset() - encoded.size());
  std::memset(image_ + layout_.payload_offset() + layout_.payload_bytes, 0,
              PageRound(layout_.payload_bytes) - layout_.payload_bytes);
  return absl::OkStatus();
}

}  // namespace kedge
