#include "tools/demonstration/scratch_directory.h"

#include <stdlib.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace kedge {

absl::StatusOr<std::unique_ptr<ScratchDirectory>> ScratchDirectory::Create(
    const std::string& parent, uint64_t bytes) {
  std::error_code error;
  const std::filesystem::space_info space = std::filesystem::space(parent, error);
  if (error) return absl::NotFoundError(absl::StrCat("--scratch: ", parent, ": ", error.message()));
  if (space.available < bytes)
    return absl::ResourceExhaustedError(
        absl::StrCat("--scratch: ", parent, " has ", space.available >> 20, " MiB free, ",
                     bytes >> 20, " MiB are needed; name another directory"));
  std::string path = parent + "/kedge_demo_XXXXXX";
  if (mkdtemp(path.data()) == nullptr)
    return absl::PermissionDeniedError(
        absl::StrCat("--scratch: ", parent, ": ", std::strerror(errno)));
  return std::unique_ptr<ScratchDirectory>(new ScratchDirectory(path));
}

ScratchDirectory::~ScratchDirectory() {
  std::error_code ignored;  // there is nobody to tell, and nothing to be done
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace kedge
