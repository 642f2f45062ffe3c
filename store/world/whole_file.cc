#include "store/world/whole_file.h"

#include <fstream>

#include "absl/strings/str_cat.h"

namespace kedge {

absl::StatusOr<std::vector<uint8_t>> ReadWholeFile(const std::string& path, uint64_t bytes_max) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  const std::streamoff size = file ? static_cast<std::streamoff>(file.tellg()) : -1;
  if (size < 0) return absl::NotFoundError(absl::StrCat(path, ": cannot be read"));
  if (static_cast<uint64_t>(size) > bytes_max) {
    return absl::ResourceExhaustedError(
        absl::StrCat(path, ": ", size, " bytes are more than ", bytes_max));
  }
  std::vector<uint8_t> bytes(static_cast<size_t>(size));
  file.seekg(0);
  file.read(reinterpret_cast<char*>(bytes.data()), size);
  if (!file) return absl::NotFoundError(absl::StrCat(path, ": cannot be read"));
  return bytes;
}

}  // namespace kedge
