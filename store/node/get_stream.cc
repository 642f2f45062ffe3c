#include "store/node/get_stream.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "proto/wire.h"

namespace kedge {

void GetSender::Add(uint32_t stream, uint64_t bytes) {
  (bytes <= kSmallBytes ? small_ : bulk_).push_back(stream);
}

uint32_t GetSender::PopFront(std::vector<uint32_t>& lane) {
  const uint32_t stream = lane.front();
  lane.erase(lane.begin());  // a session has at most some hundred requests
  return stream;
}

uint32_t GetSender::Take() {
  const bool bulk_may = !bulk_.empty() && bytes_under_way < kWindowBytes;
  const bool small_may = !small_.empty() && bytes_under_way < 2 * kWindowBytes;
  if (small_may && (!bulk_may || small_turns_ < kSmallTurns)) {
    ++small_turns_;
    return PopFront(small_);
  }
  small_turns_ = 0;
  return bulk_may ? PopFront(bulk_) : kNoIndex;
}

void GetSender::Remove(uint32_t stream) {
  std::erase(small_, stream);
  std::erase(bulk_, stream);
}

absl::Status PartRange(std::span<const uint8_t> encoded_header, uint16_t first, uint16_t count,
                       uint64_t* begin, uint64_t* end) {
  const size_t directory = PartDirectoryOffset(encoded_header);
  const size_t parts = (encoded_header.size() - directory) / kPartEntryBytes;
  if (first >= parts) {
    return absl::InvalidArgumentError(
        absl::StrCat("get.part_begin: ", first, ", the block has ", parts, " parts"));
  }
  if (count > parts - first) {
    return absl::InvalidArgumentError(absl::StrCat("get.part_count: ", count, " from part ", first,
                                                   ", the block has ", parts, " parts"));
  }
  const size_t last = count == 0 ? parts : size_t{first} + count;
  uint64_t offset = 0;
  for (size_t part = 0; part < last; ++part) {
    if (part == first) *begin = offset;
    offset += LoadLe<uint32_t>(encoded_header.data() + directory + part * kPartEntryBytes);
  }
  *end = offset;
  return absl::OkStatus();
}

}  // namespace kedge
