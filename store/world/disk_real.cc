// The real disk. O_DIRECT, because a store's own host tier is the better cache; buffered I/O and
// fdatasync where the file system refuses it (tmpfs, some network file systems).
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/base/internal/raw_logging.h"
#include "absl/strings/str_cat.h"
#include "store/world/disk.h"

namespace kedge {
namespace {

absl::StatusCode CodeOf(int error) {
  switch (error) {
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
    case ENFILE:
    case ENOMEM:
      return absl::StatusCode::kResourceExhausted;
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::StatusCode::kPermissionDenied;
    case ENOENT:
      return absl::StatusCode::kNotFound;
    case ENOTDIR:
    case EISDIR:
    case ENAMETOOLONG:
    case ELOOP:
    case EEXIST:
    case EINVAL:
      return absl::StatusCode::kInvalidArgument;
    default:
      return absl::StatusCode::kDataLoss;
  }
}

absl::Status ErrnoStatus(std::string_view call, const std::string& path, int error) {
  return absl::Status(CodeOf(error), absl::StrCat(std::string(call), " ", path, ": ",
                                                  strerror(error), " (errno ", error, ")"));
}

absl::Status ErrnoStatus(std::string_view call, const std::string& path, uint64_t offset,
                         uint64_t bytes, int error) {
  return absl::Status(CodeOf(error),
                      absl::StrCat(std::string(call), " ", path, ", offset ", offset, ", ", bytes,
                                   " bytes: ", strerror(error), " (errno ", error, ")"));
}

std::string DirectoryOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

absl::Status SyncDirectory(const std::string& directory) {
  const int fd = open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus("open", directory, errno);
  // Some file systems cannot sync a directory, and say EINVAL: their entries are synced with the
  // file.
  const int error = fsync(fd) == 0 || errno == EINVAL ? 0 : errno;
  close(fd);
  return error == 0 ? absl::OkStatus() : ErrnoStatus("fsync of directory", directory, error);
}

bool Aligned(uint64_t value) { return value % kDiskPageBytes == 0; }
bool Aligned(const void* pointer) { return Aligned(reinterpret_cast<uintptr_t>(pointer)); }

class RealFile final : public File {
 public:
  RealFile(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  ~RealFile() override { close(fd_); }

  absl::Status Write(uint64_t offset, std::span<const uint8_t> bytes) override {
    return WriteGather(offset, std::span<const std::span<const uint8_t>>(&bytes, 1));
  }

  absl::Status WriteGather(uint64_t offset,
                           std::span<const std::span<const uint8_t>> pieces) override {
    ABSL_RAW_CHECK(Aligned(offset), "write at an offset that is not aligned");
    iovec vectors[IOV_MAX];
    while (!pieces.empty()) {
      const size_t count = std::min<size_t>(pieces.size(), IOV_MAX);
      uint64_t total = 0;
      for (size_t i = 0; i < count; ++i) {
        ABSL_RAW_CHECK(Aligned(pieces[i].data()) && Aligned(pieces[i].size()),
                       "write of memory that is not aligned");
        vectors[i] = {const_cast<uint8_t*>(pieces[i].data()), pieces[i].size()};
        total += pieces[i].size();
      }
      if (absl::Status status = WriteVectors(offset, vectors, count, total); !status.ok()) {
        return status;
      }
      offset += total;
      pieces = pieces.subspan(count);
    }
    return absl::OkStatus();
  }

  absl::Status Read(uint64_t offset, std::span<uint8_t> bytes) override {
    ABSL_RAW_CHECK(Aligned(offset) && Aligned(bytes.data()) && Aligned(bytes.size()),
                   "read that is not aligned");
    while (!bytes.empty()) {
      const ssize_t got = pread(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0 && errno == EINVAL && LeaveDirect()) continue;
      if (got < 0) return ErrnoStatus("read", path_, offset, bytes.size(), errno);
      // A file ends within a page when something cut it: the next direct read could not start
      // there.
      const uint64_t whole = static_cast<uint64_t>(got) / kDiskPageBytes * kDiskPageBytes;
      if (whole == 0) {
        return absl::OutOfRangeError(absl::StrCat("read ", path_, ", offset ", offset, ", ",
                                                  bytes.size(), " bytes: the file ends first"));
      }
      offset += whole;
      bytes = bytes.subspan(whole);
    }
    return absl::OkStatus();
  }

  absl::Status Sync() override {
    if (fdatasync(fd_) == 0) return absl::OkStatus();
    return ErrnoStatus("fdatasync", path_, errno);
  }

  absl::StatusOr<uint64_t> Size() override {
    struct stat info;
    if (fstat(fd_, &info) != 0) return ErrnoStatus("stat", path_, errno);
    return static_cast<uint64_t>(info.st_size);
  }

 private:
  absl::Status WriteVectors(uint64_t offset, iovec* vectors, size_t count, uint64_t total) {
    while (total > 0) {
      const ssize_t put =
          pwritev(fd_, vectors, static_cast<int>(count), static_cast<off_t>(offset));
      if (put < 0 && errno == EINTR) continue;
      if (put < 0 && errno == EINVAL && LeaveDirect()) continue;
      if (put <= 0) return ErrnoStatus("write", path_, offset, total, put < 0 ? errno : ENOSPC);
      // A short write may end within a page; going on from the page's start writes the same bytes
      // again.
      uint64_t whole = static_cast<uint64_t>(put) / kDiskPageBytes * kDiskPageBytes;
      if (whole == 0) return ErrnoStatus("write", path_, offset, total, ENOSPC);
      offset += whole;
      total -= whole;
      while (count > 0 && whole >= vectors->iov_len) {
        whole -= vectors->iov_len;
        ++vectors;
        --count;
      }
      if (whole > 0) {
        vectors->iov_base = static_cast<uint8_t*>(vectors->iov_base) + whole;
        vectors->iov_len -= whole;
      }
    }
    return absl::OkStatus();
  }

  // Some file systems take O_DIRECT when a file is opened and refuse it when it is used.
  bool LeaveDirect() {
    const int flags = fcntl(fd_, F_GETFL);
    return flags >= 0 && (flags & O_DIRECT) != 0 && fcntl(fd_, F_SETFL, flags & ~O_DIRECT) == 0;
  }

  const int fd_;
  const std::string path_;
};

class RealDisk final : public Disk {
 public:
  absl::Status MakeDirectory(const std::string& path) override {
    if (path.empty()) return absl::InvalidArgumentError("directory: the path is empty");
    for (size_t slash = path.find('/', 1); true; slash = path.find('/', slash + 1)) {
      const std::string part = path.substr(0, slash);
      if (mkdir(part.c_str(), 0700) == 0) {
        if (absl::Status status = SyncDirectory(DirectoryOf(part)); !status.ok()) return status;
      } else if (errno != EEXIST) {
        return ErrnoStatus("mkdir", part, errno);
      }
      if (slash == std::string::npos) break;
    }
    struct stat info;
    if (stat(path.c_str(), &info) != 0) return ErrnoStatus("stat", path, errno);
    if (!S_ISDIR(info.st_mode)) return ErrnoStatus("mkdir", path, ENOTDIR);
    return absl::OkStatus();
  }

  absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path, bool create) override {
    const int flags = O_RDWR | O_CLOEXEC | (create ? O_CREAT : 0);
    int fd = open(path.c_str(), flags | O_DIRECT, 0600);
    if (fd < 0 && errno == EINVAL) fd = open(path.c_str(), flags, 0600);
    if (fd < 0) return ErrnoStatus(create ? "create" : "open", path, errno);
    auto file = std::make_unique<RealFile>(fd, path);
    if (create) {
      if (absl::Status status = SyncDirectory(DirectoryOf(path)); !status.ok()) return status;
    }
    return file;
  }

  absl::StatusOr<std::vector<std::string>> List(const std::string& directory) override {
    DIR* stream = opendir(directory.c_str());
    if (stream == nullptr) return ErrnoStatus("list", directory, errno);
    std::vector<std::string> names;
    errno = 0;
    while (const dirent* entry = readdir(stream)) {
      const std::string name = entry->d_name;
      if (name != "." && name != "..") names.push_back(name);
    }
    const int error = errno;
    closedir(stream);
    if (error != 0) return ErrnoStatus("list", directory, error);
    std::sort(names.begin(), names.end());
    return names;
  }

  absl::Status Remove(const std::string& path) override {
    if (unlink(path.c_str()) != 0) return ErrnoStatus("remove", path, errno);
    return SyncDirectory(DirectoryOf(path));
  }

  absl::StatusOr<uint64_t> FreeBytes(const std::string& path) override {
    struct statvfs info;
    if (statvfs(path.c_str(), &info) != 0) return ErrnoStatus("statvfs", path, errno);
    return static_cast<uint64_t>(info.f_bavail) * info.f_frsize;
  }

  absl::StatusOr<std::unique_ptr<File>> Lock(const std::string& directory) override {
    const std::string path = directory + "/LOCK";
    const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) return ErrnoStatus("create", path, errno);
    auto file = std::make_unique<RealFile>(
        fd, path);  // the kernel lets go when it is closed, or with the process
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) return file;
    if (errno == EWOULDBLOCK) {
      return absl::AlreadyExistsError(absl::StrCat("lock ", path, ": another process has it"));
    }
    return ErrnoStatus("lock", path, errno);
  }
};

}  // namespace

std::unique_ptr<Disk> MakeRealDisk() { return std::make_unique<RealDisk>(); }

}  // namespace kedge
