// Files as an argument. The real disk uses O_DIRECT where the file system allows; the simulated one
// forgets what was not synced when its power is cut, and tears the last write.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace kedge {

// Offsets, lengths and memory of reads and writes are multiples of this.
inline constexpr uint32_t kDiskPageBytes = 4096;

// One open file. Reads and writes of different ranges may run on several threads at once. Closing
// is destruction. Unlinking an open file leaves it readable until it is closed.
class File {
 public:
  virtual ~File() = default;
  // Writes all of `bytes` at `offset`; page-aligned memory, offset and length. RESOURCE_EXHAUSTED
  // when full, PERMISSION_DENIED when read-only, DATA_LOSS on I/O errors; the text names path,
  // offset and errno.
  virtual absl::Status Write(uint64_t offset, std::span<const uint8_t> bytes) = 0;
  // The pieces one after the other from `offset` on, in as few calls as the system allows. Each is
  // aligned as for Write. On an error any part of them may have been written.
  virtual absl::Status WriteGather(uint64_t offset,
                                   std::span<const std::span<const uint8_t>> pieces) = 0;
  // Fills all of `bytes`; OUT_OF_RANGE when the file ends first. Same alignment.
  virtual absl::Status Read(uint64_t offset, std::span<uint8_t> bytes) = 0;
  // What was written before the call survives a power cut after it. (fdatasync)
  virtual absl::Status Sync() = 0;
  virtual absl::StatusOr<uint64_t> Size() = 0;
};

class Disk {
 public:
  virtual ~Disk() = default;
  // Makes the directory and its parents. Errors name the path.
  virtual absl::Status MakeDirectory(const std::string& path) = 0;
  // Opens for reading and writing; creates (and syncs the directory entry) when `create`.
  virtual absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path, bool create) = 0;
  // Names (not paths) in the directory, sorted.
  virtual absl::StatusOr<std::vector<std::string>> List(const std::string& directory) = 0;
  virtual absl::Status Remove(const std::string& path) = 0;  // and syncs the directory
  virtual absl::StatusOr<uint64_t> FreeBytes(const std::string& path) = 0;
  // Holds the directory for this process until the result is destroyed; ALREADY_EXISTS when another
  // one has it.
  virtual absl::StatusOr<std::unique_ptr<File>> Lock(const std::string& directory) = 0;
};

std::unique_ptr<Disk> MakeRealDisk();

}  // namespace kedge
