// A directory for the files of one demonstration, removed with everything in it at the end.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace kedge {

class ScratchDirectory {
 public:
  // `parent/kedge_demo_XXXXXX`, for this user only. Errors name the flag --scratch, the path and,
  // when `bytes` are not free there, both sizes (RESOURCE_EXHAUSTED).
  static absl::StatusOr<std::unique_ptr<ScratchDirectory>> Create(const std::string& parent,
                                                                  uint64_t bytes);
  ~ScratchDirectory();
  ScratchDirectory(const ScratchDirectory&) = delete;
  ScratchDirectory& operator=(const ScratchDirectory&) = delete;

  const std::string& path() const { return path_; }

 private:
  explicit ScratchDirectory(std::string path) : path_(std::move(path)) {}
  const std::string path_;
};

}  // namespace kedge
