#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "store/tier/ssd_segments.h"
#include "store/world/limits.h"

namespace kedge {

absl::Status SegmentTier::Read(SsdLocation location, uint32_t page_offset,
                               std::span<uint8_t> bytes) {
  if (bytes.size() % kDiskPageBytes != 0 || page_offset > location.pages ||
      bytes.size() / kDiskPageBytes > location.pages - page_offset) {
    return absl::InvalidArgumentError(absl::StrCat("ssd read: bytes=", bytes.size(), " from page ",
                                                   page_offset, " of an image of ", location.pages,
                                                   " pages"));
  }
  if (reinterpret_cast<uintptr_t>(bytes.data()) % kDiskPageBytes != 0) {
    return absl::InvalidArgumentError("ssd read: memory is not page-aligned");
  }
  absl::StatusOr<std::shared_ptr<File>> file = FileOf(location.segment);
  absl::Status status = file.status();
  if (status.ok()) {
    status = (*file)->Read((uint64_t{location.page} + page_offset) * kDiskPageBytes, bytes);
  }
  std::lock_guard<std::mutex> guard(mutex_);
  ++counters_.reads;
  if (status.ok()) {
    counters_.read_bytes += bytes.size();
  } else if (!absl::IsNotFound(status)) {
    ++counters_.failed_reads;
  }
  return status;
}

// The file of a segment, opened when it is not. It stays readable for its holder when the segment
// is dropped meanwhile.
absl::StatusOr<std::shared_ptr<File>> SegmentTier::FileOf(uint32_t number) {
  const auto gone = [&] {
    return absl::NotFoundError(absl::StrCat("ssd read: segment ", number, " was dropped"));
  };
  {
    std::lock_guard<std::mutex> guard(mutex_);
    const auto found = segments_.find(number);
    if (found == segments_.end()) return gone();
    found->second.last_use = ++uses_;
    if (found->second.file != nullptr) return found->second.file;
  }
  absl::StatusOr<std::unique_ptr<File>> opened = disk_.Open(PathOf(number), /*create=*/false);
  std::shared_ptr<File> closed;  // outside of the lock
  std::lock_guard<std::mutex> guard(mutex_);
  const auto found = segments_.find(number);
  if (found == segments_.end()) return gone();
  if (!opened.ok()) return opened.status();
  if (found->second.file != nullptr) return found->second.file;  // another reader was faster
  if (open_files_ >= kSsdOpenFilesMax) {
    auto oldest = segments_.end();
    for (auto it = segments_.begin(); it != segments_.end(); ++it) {
      if (it->second.file == nullptr) continue;
      if (oldest == segments_.end() || it->second.last_use < oldest->second.last_use) oldest = it;
    }
    closed = std::move(oldest->second.file);
    oldest->second.file = nullptr;
    --open_files_;
  }
  found->second.file = *std::move(opened);
  ++open_files_;
  return found->second.file;
}

}  // namespace kedge
