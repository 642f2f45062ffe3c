#include "store/tier/ssd_ballast.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "store/tier/page_buffer.h"

namespace kedge {
namespace {

constexpr uint64_t kPieceBytes = 1 << 20;
constexpr char kName[] = "ballast";

}  // namespace

void SsdBallast::Find() {
  const absl::StatusOr<std::vector<std::string>> names = disk_.List(directory_);
  if (!names.ok() || !std::binary_search(names->begin(), names->end(), kName)) return;
  const absl::StatusOr<std::unique_ptr<File>> file = disk_.Open(path_, /*create=*/false);
  if (file.ok()) {
    const absl::StatusOr<uint64_t> size = (*file)->Size();
    held_ = size.ok() && *size == bytes_ && bytes_ != 0;
  }
  if (!held_) (void)disk_.Remove(path_);  // Keep writes over it
}

void SsdBallast::Keep(uint64_t spare_bytes) {
  if (held_ || bytes_ == 0) return;
  const absl::StatusOr<uint64_t> free_bytes = disk_.FreeBytes(directory_);
  if (!free_bytes.ok() || *free_bytes < 2 * bytes_ + spare_bytes) return;
  held_ = Write().ok();
  if (!held_) (void)disk_.Remove(path_);  // Find takes it away if this does not
}

absl::Status SsdBallast::Write() {
  const absl::StatusOr<std::unique_ptr<File>> file = disk_.Open(path_, /*create=*/true);
  if (!file.ok()) return file.status();
  PageBuffer zeros(std::min(kPieceBytes, bytes_));
  const std::span<uint8_t> piece = zeros.first(std::min(kPieceBytes, bytes_));
  std::fill(piece.begin(), piece.end(), 0);
  for (uint64_t at = 0; at < bytes_; at += piece.size()) {
    const auto bytes = piece.first(std::min<uint64_t>(piece.size(), bytes_ - at));
    if (absl::Status status = (*file)->Write(at, bytes); !status.ok()) return status;
  }
  return (*file)->Sync();
}

bool SsdBallast::Release() {
  if (!held_) return false;
  held_ = false;
  return disk_.Remove(path_).ok();
}

}  // namespace kedge
