// Room on the disk that is kept for a bad day: a file of zeros in the SSD tier's directory.
//
// A file system may be full although the tier keeps to its capacity: others write to it too. Then
// the index, which has to write before it can be read, cannot be opened (RocksDB as Debian builds
// it ends the process when a write fails, so it must not be tried). Giving the ballast up makes
// room for that; it is laid down again when there is plenty. One thread at a time.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "store/world/disk.h"

namespace kedge {

class SsdBallast {
 public:
  // The file `ballast` in `directory`, of `bytes` (whole pages; 0: there is none). `disk` must
  // outlive this.
  SsdBallast(Disk& disk, const std::string& directory, uint64_t bytes)
      : disk_(disk), directory_(directory), path_(directory + "/ballast"), bytes_(bytes) {}

  // Looks whether it is there; one that was not finished, or has another size, goes.
  void Find();
  // Lays it down if it is not there and twice its size and `spare_bytes` are free. What fails
  // leaves nothing behind and is tried again by the next call.
  void Keep(uint64_t spare_bytes);
  // True when that made room.
  bool Release();
  uint64_t held_bytes() const { return held_ ? bytes_ : 0; }

 private:
  absl::Status Write();

  Disk& disk_;
  const std::string directory_;
  const std::string path_;
  const uint64_t bytes_;
  bool held_ = false;
};

}  // namespace kedge
