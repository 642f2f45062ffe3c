#include "store/world/disk_simulated.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/base/internal/raw_logging.h"
#include "absl/strings/str_cat.h"

namespace kedge {
namespace {

std::string DirectoryOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

std::string Where(const char* verb, const std::string& path, uint64_t offset, uint64_t bytes) {
  return absl::StrCat(verb, " ", path, ", offset ", offset, ", ", bytes, " bytes: ");
}

void Put(std::vector<uint8_t>& file, uint64_t offset, std::span<const uint8_t> bytes) {
  if (file.size() < offset + bytes.size()) file.resize(offset + bytes.size());
  std::copy(bytes.begin(), bytes.end(), file.begin() + static_cast<ptrdiff_t>(offset));
}

}  // namespace

struct SimulatedDisk::Contents {
  struct UnsafeWrite {
    uint64_t offset;
    std::vector<uint8_t> bytes;
  };

  std::string path;
  std::vector<uint8_t> now;         // what a read sees
  std::vector<uint8_t> safe;        // what a power cut leaves for certain
  std::vector<UnsafeWrite> unsafe;  // written since, oldest first
  bool entry_safe = false;          // the directory entry was synced

  void CutPower(Random& random) {
    for (size_t i = 0; i < unsafe.size(); ++i) {
      const bool last = i + 1 == unsafe.size();
      KeepSome(unsafe[i], last, random);
    }
    unsafe.clear();
    now = safe;
  }

 private:
  void KeepSome(const UnsafeWrite& write, bool last, Random& random) {
    const uint64_t sectors = (write.bytes.size() + kSectorBytes - 1) / kSectorBytes;
    const uint64_t kind = random.Below(4);
    if (kind == 0) return;
    // A torn prefix of a page (or of a sector) count, the whole, or any set of sectors.
    uint64_t prefix = sectors;
    if (last || kind == 1) prefix = random.Below(sectors + 1);
    if (last && random.Chance(0.3)) prefix = prefix / 8 * 8;
    const bool holes = kind == 3;
    for (uint64_t sector = 0; sector < prefix; ++sector) {
      if (holes && random.Chance(0.5)) continue;
      const uint64_t begin = sector * kSectorBytes;
      const uint64_t bytes = std::min<uint64_t>(kSectorBytes, write.bytes.size() - begin);
      Put(safe, write.offset + begin, {write.bytes.data() + begin, bytes});
    }
  }
};

class SimulatedDisk::OpenFile final : public File {
 public:
  OpenFile(SimulatedDisk& disk, std::shared_ptr<Contents> contents, uint64_t generation, bool lock)
      : disk_(disk), contents_(std::move(contents)), generation_(generation), lock_(lock) {}

  ~OpenFile() override {
    if (!lock_) return;
    std::lock_guard<std::mutex> guard(disk_.mutex_);
    if (disk_.generation_ == generation_) disk_.locks_.erase(contents_->path);
  }

  absl::Status Write(uint64_t offset, std::span<const uint8_t> bytes) override {
    std::lock_guard<std::mutex> guard(disk_.mutex_);
    return disk_.Write(*contents_, generation_, offset, bytes);
  }
  absl::Status WriteGather(uint64_t offset,
                           std::span<const std::span<const uint8_t>> pieces) override {
    std::lock_guard<std::mutex> guard(disk_.mutex_);
    for (const std::span<const uint8_t> piece : pieces) {
      absl::Status status = disk_.Write(*contents_, generation_, offset, piece);
      if (!status.ok()) return status;
      offset += piece.size();
    }
    return absl::OkStatus();
  }
  absl::Status Read(uint64_t offset, std::span<uint8_t> bytes) override {
    std::lock_guard<std::mutex> guard(disk_.mutex_);
    return disk_.Read(*contents_, generation_, offset, bytes);
  }
  absl::Status Sync() override {
    std::lock_guard<std::mutex> guard(disk_.mutex_);
    return disk_.Sync(*contents_, generation_);
  }
  absl::StatusOr<uint64_t> Size() override {
    std::lock_guard<std::mutex> guard(disk_.mutex_);
    absl::Status status = disk_.CheckGeneration(generation_, contents_->path);
    if (!status.ok()) return status;
    return contents_->now.size();
  }

 private:
  SimulatedDisk& disk_;
  const std::shared_ptr<Contents> contents_;
  const uint64_t generation_;
  const bool lock_;
};

SimulatedDisk::SimulatedDisk() : directories_{".", "/"} {}
SimulatedDisk::~SimulatedDisk() = default;

absl::Status SimulatedDisk::Operation(const char* verb, const std::string& path) {
  if (!power_failed_ && operations_ < fail_at_) {
    ++operations_;
    return absl::OkStatus();
  }
  power_failed_ = true;
  return absl::UnavailableError(absl::StrCat(verb, " ", path, ": the power is off"));
}

absl::Status SimulatedDisk::CheckGeneration(uint64_t generation, const std::string& path) const {
  if (generation == generation_ && !power_failed_) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(path, ": the power was cut while it was open"));
}

absl::Status SimulatedDisk::Write(Contents& file, uint64_t generation, uint64_t offset,
                                  std::span<const uint8_t> bytes) {
  ABSL_RAW_CHECK(offset % kDiskPageBytes == 0 && bytes.size() % kDiskPageBytes == 0 &&
                     reinterpret_cast<uintptr_t>(bytes.data()) % kDiskPageBytes == 0,
                 "write that is not aligned");
  if (absl::Status status = CheckGeneration(generation, file.path); !status.ok()) return status;
  if (read_only_) {
    return absl::PermissionDeniedError(
        absl::StrCat(Where("write", file.path, offset, bytes.size()), "read-only file system"));
  }
  const uint64_t grows =
      std::max<uint64_t>(offset + bytes.size(), file.now.size()) - file.now.size();
  if (UsedBytes() + grows > capacity_bytes_) {
    return absl::ResourceExhaustedError(
        absl::StrCat(Where("write", file.path, offset, bytes.size()), "no space left on device"));
  }
  const absl::Status power = Operation("write", file.path);
  // A write in whose middle the power failed reached the disk in part: CutPower decides how much.
  if (!power.ok() && operations_ != fail_at_) return power;
  if (!power.ok()) fail_at_ = ~0ull;
  Put(file.now, offset, bytes);
  file.unsafe.push_back({offset, {bytes.begin(), bytes.end()}});
  return power;
}

absl::Status SimulatedDisk::Read(Contents& file, uint64_t generation, uint64_t offset,
                                 std::span<uint8_t> bytes) {
  ABSL_RAW_CHECK(offset % kDiskPageBytes == 0 && bytes.size() % kDiskPageBytes == 0 &&
                     reinterpret_cast<uintptr_t>(bytes.data()) % kDiskPageBytes == 0,
                 "read that is not aligned");
  if (absl::Status status = CheckGeneration(generation, file.path); !status.ok()) return status;
  if (offset + bytes.size() > file.now.size()) {
    return absl::OutOfRangeError(
        absl::StrCat(Where("read", file.path, offset, bytes.size()), "the file ends first"));
  }
  std::memcpy(bytes.data(), file.now.data() + offset, bytes.size());
  if (!bytes.empty() && flip_probability_ > 0 && flips_.Chance(flip_probability_)) {
    bytes[flips_.Below(bytes.size())] ^= static_cast<uint8_t>(1u << flips_.Below(8));
  }
  return absl::OkStatus();
}

absl::Status SimulatedDisk::Sync(Contents& file, uint64_t generation) {
  if (absl::Status status = CheckGeneration(generation, file.path); !status.ok()) return status;
  if (absl::Status status = Operation("fdatasync", file.path); !status.ok()) return status;
  if (failing_syncs_ > 0) {
    --failing_syncs_;
    return absl::DataLossError(absl::StrCat("fdatasync ", file.path, ": input/output error"));
  }
  for (const Contents::UnsafeWrite& write : file.unsafe) Put(file.safe, write.offset, write.bytes);
  file.unsafe.clear();
  return absl::OkStatus();
}

absl::Status SimulatedDisk::MakeDirectory(const std::string& path) {
  std::lock_guard<std::mutex> guard(mutex_);
  for (std::string part = path; directories_.insert(part).second; part = DirectoryOf(part)) {
    if (!read_only_) continue;
    directories_.erase(part);
    return absl::PermissionDeniedError(absl::StrCat("mkdir ", part, ": read-only file system"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<File>> SimulatedDisk::Open(const std::string& path, bool create) {
  std::lock_guard<std::mutex> guard(mutex_);
  if (power_failed_) return CheckGeneration(generation_, path);
  auto found = files_.find(path);
  if (found == files_.end() && !create) {
    return absl::NotFoundError(absl::StrCat("open ", path, ": no such file or directory"));
  }
  if (read_only_) {
    return absl::PermissionDeniedError(absl::StrCat("open ", path, ": read-only file system"));
  }
  if (found == files_.end()) {
    if (directories_.count(DirectoryOf(path)) == 0) {
      return absl::NotFoundError(absl::StrCat("create ", path, ": no such file or directory"));
    }
    if (absl::Status status = Operation("create", path); !status.ok()) return status;
    auto contents = std::make_shared<Contents>();
    contents->path = path;
    found = files_.emplace(path, std::move(contents)).first;
  }
  if (create) {
    if (absl::Status status = Operation("fsync of directory", path); !status.ok()) return status;
    found->second->entry_safe = true;
  }
  return std::make_unique<OpenFile>(*this, found->second, generation_, /*lock=*/false);
}

absl::StatusOr<std::vector<std::string>> SimulatedDisk::List(const std::string& directory) {
  std::lock_guard<std::mutex> guard(mutex_);
  if (power_failed_) return CheckGeneration(generation_, directory);
  if (directories_.count(directory) == 0) {
    return absl::NotFoundError(absl::StrCat("list ", directory, ": no such file or directory"));
  }
  std::vector<std::string> names;  // in order, because files_ is
  for (const auto& [path, contents] : files_) {
    if (DirectoryOf(path) == directory) names.push_back(path.substr(path.rfind('/') + 1));
  }
  return names;
}

absl::Status SimulatedDisk::Remove(const std::string& path) {
  std::lock_guard<std::mutex> guard(mutex_);
  if (power_failed_) return CheckGeneration(generation_, path);
  if (read_only_) {
    return absl::PermissionDeniedError(absl::StrCat("remove ", path, ": read-only file system"));
  }
  const auto found = files_.find(path);
  if (found == files_.end()) {
    return absl::NotFoundError(absl::StrCat("remove ", path, ": no such file or directory"));
  }
  if (absl::Status status = Operation("remove", path); !status.ok()) return status;
  removed_unsynced_[path] = found->second;
  files_.erase(found);
  if (absl::Status status = Operation("fsync of directory", path); !status.ok()) return status;
  removed_unsynced_.erase(path);
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> SimulatedDisk::FreeBytes(const std::string& /*path*/) {
  std::lock_guard<std::mutex> guard(mutex_);
  const uint64_t used = UsedBytes();
  return capacity_bytes_ - std::min(used, capacity_bytes_);
}

absl::StatusOr<std::unique_ptr<File>> SimulatedDisk::Lock(const std::string& directory) {
  const std::string path = directory + "/LOCK";
  std::lock_guard<std::mutex> guard(mutex_);
  if (power_failed_) return CheckGeneration(generation_, path);
  if (read_only_) {
    return absl::PermissionDeniedError(absl::StrCat("create ", path, ": read-only file system"));
  }
  if (!locks_.insert(path).second) {
    return absl::AlreadyExistsError(absl::StrCat("lock ", path, ": another process has it"));
  }
  auto contents = std::make_shared<Contents>();
  contents->path = path;
  return std::make_unique<OpenFile>(*this, std::move(contents), generation_, /*lock=*/true);
}

void SimulatedDisk::CutPower(Random& random) {
  std::lock_guard<std::mutex> guard(mutex_);
  ++generation_;
  power_failed_ = false;
  fail_at_ = ~0ull;
  locks_.clear();
  for (auto& [path, contents] : removed_unsynced_) {
    if (random.Chance(0.5)) files_.emplace(path, contents);
  }
  removed_unsynced_.clear();
  for (auto it = files_.begin(); it != files_.end();) {
    Contents& file = *it->second;
    if (!file.entry_safe && random.Chance(0.5)) {
      it = files_.erase(it);
      continue;
    }
    file.entry_safe = true;
    file.CutPower(random);
    ++it;
  }
}

void SimulatedDisk::FailAfter(uint64_t operations) {
  std::lock_guard<std::mutex> guard(mutex_);
  fail_at_ = operations_ + operations;
}

uint64_t SimulatedDisk::operations() const {
  std::lock_guard<std::mutex> guard(mutex_);
  return operations_;
}

bool SimulatedDisk::power_failed() const {
  std::lock_guard<std::mutex> guard(mutex_);
  return power_failed_;
}

void SimulatedDisk::SetCapacityBytes(uint64_t bytes) {
  std::lock_guard<std::mutex> guard(mutex_);
  capacity_bytes_ = bytes;
}

void SimulatedDisk::SetReadOnly(bool read_only) {
  std::lock_guard<std::mutex> guard(mutex_);
  read_only_ = read_only;
}

void SimulatedDisk::FailSyncs(int syncs) {
  std::lock_guard<std::mutex> guard(mutex_);
  failing_syncs_ = syncs;
}

void SimulatedDisk::FlipBitsOnRead(double probability, uint64_t seed) {
  std::lock_guard<std::mutex> guard(mutex_);
  flip_probability_ = probability;
  flips_ = Random(seed);
}

void SimulatedDisk::Damage(const std::string& path, uint64_t offset, uint8_t mask) {
  std::lock_guard<std::mutex> guard(mutex_);
  Contents& file = *files_.at(path);
  file.now.at(offset) ^= mask;
  if (offset < file.safe.size()) file.safe[offset] ^= mask;
}

void SimulatedDisk::Truncate(const std::string& path, uint64_t bytes) {
  std::lock_guard<std::mutex> guard(mutex_);
  Contents& file = *files_.at(path);
  file.now.resize(bytes);
  file.safe = file.now;
  file.unsafe.clear();
}

std::vector<std::string> SimulatedDisk::Paths() const {
  std::lock_guard<std::mutex> guard(mutex_);
  std::vector<std::string> paths;
  for (const auto& [path, contents] : files_) paths.push_back(path);
  return paths;
}

uint64_t SimulatedDisk::UsedBytes() const {
  uint64_t bytes = 0;
  for (const auto& [path, contents] : files_) bytes += contents->now.size();
  return bytes;
}

}  // namespace kedge
