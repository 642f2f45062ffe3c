#include "store/world/memory.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <fstream>

#include "absl/strings/str_cat.h"

namespace kedge {
namespace {

// The number in a one-line file; 0 when there is none ("max", no such file).
uint64_t NumberIn(const std::string& path) {
  std::ifstream file(path);
  uint64_t value = 0;
  if (!(file >> value)) return 0;
  return value;
}

void Consider(const std::string& path, MemoryLimit& limit) {
  const uint64_t bytes = NumberIn(path);
  if (bytes != 0 && bytes < limit.bytes) limit = MemoryLimit{bytes, path};
}

// Limits of this process's cgroup and of all above it. A line of /proc/self/cgroup is "0::/a/b"
// (v2) or "4:memory:/a/b" (v1).
void ConsiderCgroups(MemoryLimit& limit) {
  std::ifstream groups("/proc/self/cgroup");
  std::string line;
  while (std::getline(groups, line)) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool v2 = controllers.empty();
    if (!v2 && controllers != "memory") continue;
    const std::string root = v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
    const std::string file = v2 ? "/memory.max" : "/memory.limit_in_bytes";
    // In a container the path may name a group outside of what is mounted: the root's file is then
    // the container's own.
    std::string group = line.substr(second + 1);
    while (!group.empty() && group != "/") {
      Consider(root + group + file, limit);
      group.resize(group.rfind('/') == std::string::npos ? 0 : group.rfind('/'));
    }
    Consider(root + file, limit);
  }
}

}  // namespace

MemoryLimit MemoryLimitOfProcess() {
  MemoryLimit limit;
  limit.bytes =
      static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  limit.source = "machine";
  ConsiderCgroups(limit);
  return limit;
}

absl::StatusOr<std::unique_ptr<MemoryArena>> MemoryArena::Create(const std::string& name,
                                                                 uint64_t bytes) {
  const auto failed = [&](const char* call) {
    const int error = errno;
    return absl::ResourceExhaustedError(
        absl::StrCat("arena ", name, ": ", call, " of ", bytes, " bytes: ", strerror(error)));
  };
  const int fd = memfd_create(name.c_str(), MFD_CLOEXEC);
  if (fd < 0) return failed("memfd_create");
  if (ftruncate(fd, static_cast<off_t>(bytes)) != 0) {
    const absl::Status status = failed("ftruncate");
    close(fd);
    return status;
  }
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
  const absl::Status status = data == MAP_FAILED ? failed("mmap") : absl::OkStatus();
  close(fd);  // the mapping keeps the memory
  if (!status.ok()) return status;
  madvise(data, bytes, MADV_DONTDUMP);
  madvise(data, bytes,
          MADV_HUGEPAGE);  // fewer TLB misses where the kernel allows it; refusal is no error
  return std::unique_ptr<MemoryArena>(new MemoryArena(static_cast<uint8_t*>(data), bytes));
}

MemoryArena::~MemoryArena() { munmap(data_, bytes_); }

}  // namespace kedge
