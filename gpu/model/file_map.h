// A file mapped into memory, read-only. The runner reads checkpoints through it: weights are
// converted straight from the page cache.
//
// The file must not be truncated while mapped (the kernel would answer a read with SIGBUS):
// checkpoints are written once and renamed into place, as their publishers do.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "absl/status/statusor.h"

namespace kedge {

class FileMap {
 public:
  // NotFound, PermissionDenied or InvalidArgument (not a regular file), naming the path.
  static absl::StatusOr<FileMap> Open(const std::string& path);
  ~FileMap();
  FileMap(FileMap&& other) noexcept { *this = std::move(other); }
  FileMap& operator=(FileMap&& other) noexcept;

  std::span<const uint8_t> bytes() const { return {data_, size_}; }

 private:
  FileMap() = default;

  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace kedge
