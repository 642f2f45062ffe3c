// One contract, both disks; then what only the simulated one can do.
#include "store/world/disk.h"

#include <stdlib.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <functional>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "store/world/disk_simulated.h"

namespace kedge {
namespace {

using ::testing::HasSubstr;

// Page-aligned memory of `pages` pages, each byte `fill`.
class Pages {
 public:
  explicit Pages(size_t pages, uint8_t fill = 0)
      : bytes_(pages * kDiskPageBytes),
        data_(static_cast<uint8_t*>(aligned_alloc(kDiskPageBytes, bytes_))) {
    std::memset(data_, fill, bytes_);
  }
  ~Pages() { free(data_); }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;
  std::span<uint8_t> span() { return {data_, bytes_}; }
  bool AllAre(uint8_t value) const {
    for (size_t i = 0; i < bytes_; ++i) {
      if (data_[i] != value) return false;
    }
    return true;
  }

 private:
  const size_t bytes_;
  uint8_t* const data_;
};

std::string Message(const absl::Status& status) { return std::string(status.message()); }

struct DiskCase {
  const char* name;
  std::function<std::unique_ptr<Disk>()> make;
  std::function<std::string()> root;
};

std::string NewDirectory(const char* parent) {
  std::string path = std::string(parent) + "/kedge-disk-XXXXXX";
  EXPECT_NE(mkdtemp(path.data()), nullptr) << path;
  return path;
}

class DiskTest : public testing::TestWithParam<DiskCase> {
 protected:
  ~DiskTest() override {
    if (root_ != ".") std::filesystem::remove_all(root_);
  }
  const std::unique_ptr<Disk> disk_ = GetParam().make();
  const std::string root_ = GetParam().root();
};

TEST_P(DiskTest, ReadsWhatWasWritten) {
  const std::string directory = root_ + "/a/b";
  ASSERT_TRUE(disk_->MakeDirectory(directory).ok());
  ASSERT_TRUE(disk_->MakeDirectory(directory).ok());
  const auto file = disk_->Open(directory + "/f", true);
  ASSERT_TRUE(file.ok()) << file.status();
  Pages one(1, 1), two(2, 2), read(3);
  ASSERT_TRUE((*file)->Write(2 * kDiskPageBytes, one.span()).ok());
  const std::span<const uint8_t> pieces[] = {two.span().first(kDiskPageBytes), one.span(),
                                             two.span()};
  ASSERT_TRUE((*file)->WriteGather(3 * kDiskPageBytes, pieces).ok());
  ASSERT_TRUE((*file)->Sync().ok());
  EXPECT_EQ(*(*file)->Size(), 7u * kDiskPageBytes);
  ASSERT_TRUE((*file)->Read(2 * kDiskPageBytes, read.span()).ok());
  EXPECT_EQ(read.span()[0], 1);
  EXPECT_EQ(read.span()[kDiskPageBytes], 2);
  EXPECT_EQ(read.span()[2 * kDiskPageBytes], 1);
  ASSERT_TRUE((*file)->Read(0, read.span().first(2 * kDiskPageBytes)).ok());
  EXPECT_EQ(read.span()[kDiskPageBytes], 0);  // a hole

  const auto again = disk_->Open(directory + "/f", false);
  ASSERT_TRUE(again.ok());
  ASSERT_TRUE((*again)->Read(5 * kDiskPageBytes, read.span().first(2 * kDiskPageBytes)).ok());
  EXPECT_EQ(read.span()[2 * kDiskPageBytes - 1], 2);
}

TEST_P(DiskTest, ManyPiecesAreOneWrite) {
  const auto file = disk_->Open(root_ + "/f", true);
  ASSERT_TRUE(file.ok());
  constexpr size_t kPieces = 2500;  // more than one call takes
  Pages pages(kPieces);
  std::vector<std::span<const uint8_t>> pieces;
  for (size_t i = 0; i < kPieces; ++i) {
    const std::span<uint8_t> page = pages.span().subspan(i * kDiskPageBytes, kDiskPageBytes);
    std::memset(page.data(), static_cast<int>(i % 251), page.size());
    pieces.push_back(page);
  }
  ASSERT_TRUE((*file)->WriteGather(0, pieces).ok());
  Pages read(kPieces);
  ASSERT_TRUE((*file)->Read(0, read.span()).ok());
  EXPECT_EQ(std::memcmp(read.span().data(), pages.span().data(), pages.span().size()), 0);
}

TEST_P(DiskTest, ErrorsNamePathAndOffset) {
  const auto missing = disk_->Open(root_ + "/missing", false);
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(missing.status()), HasSubstr(root_ + "/missing"));
  EXPECT_EQ(disk_->Remove(root_ + "/missing").code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(disk_->List(root_ + "/missing").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(disk_->Open(root_ + "/no/such", true).status().code(), absl::StatusCode::kNotFound);

  const auto file = disk_->Open(root_ + "/f", true);
  Pages pages(2, 7);
  ASSERT_TRUE((*file)->Write(0, pages.span().first(kDiskPageBytes)).ok());
  const absl::Status past = (*file)->Read(0, pages.span());
  EXPECT_EQ(past.code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(Message(past), HasSubstr(root_ + "/f, offset "));
}

TEST_P(DiskTest, ListsSortedAndRemoves) {
  for (const char* name : {"/c", "/a", "/b"}) ASSERT_TRUE(disk_->Open(root_ + name, true).ok());
  EXPECT_EQ(*disk_->List(root_), (std::vector<std::string>{"a", "b", "c"}));
  const auto open = disk_->Open(root_ + "/b", false);
  Pages pages(1, 5), read(1);
  ASSERT_TRUE((*open)->Write(0, pages.span()).ok());
  ASSERT_TRUE(disk_->Remove(root_ + "/b").ok());
  EXPECT_EQ(*disk_->List(root_), (std::vector<std::string>{"a", "c"}));
  ASSERT_TRUE((*open)->Read(0, read.span()).ok());  // still open
  EXPECT_TRUE(read.AllAre(5));
}

TEST_P(DiskTest, LockIsHeldByOne) {
  auto first = disk_->Lock(root_);
  ASSERT_TRUE(first.ok()) << first.status();
  const auto second = disk_->Lock(root_);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(Message(second.status()), HasSubstr(root_));
  first->reset();
  EXPECT_TRUE(disk_->Lock(root_).ok());
}

TEST_P(DiskTest, WritesOfDifferentRangesRunBesideEachOther) {
  const auto file = disk_->Open(root_ + "/f", true);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      Pages pages(1, static_cast<uint8_t>(t + 1)), read(1);
      for (int i = 0; i < 20; ++i) {
        const uint64_t offset = (uint64_t(i) * 4 + t) * kDiskPageBytes;
        ASSERT_TRUE((*file)->Write(offset, pages.span()).ok());
        ASSERT_TRUE((*file)->Read(offset, read.span()).ok());
        ASSERT_TRUE(read.AllAre(static_cast<uint8_t>(t + 1)));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE((*file)->Sync().ok());
  EXPECT_GT(*disk_->FreeBytes(root_), 0u);
}

const char* TestDirectory() {
  const char* directory = getenv("TEST_TMPDIR");
  return directory != nullptr ? directory : "/tmp";
}

INSTANTIATE_TEST_SUITE_P(
    Disks, DiskTest,
    testing::Values(DiskCase{"Real", MakeRealDisk, [] { return NewDirectory(TestDirectory()); }},
                    // tmpfs refuses O_DIRECT.
                    DiskCase{"RealBuffered", MakeRealDisk,
                             [] {
                               return NewDirectory(access("/dev/shm", W_OK) == 0 ? "/dev/shm"
                                                                                 : TestDirectory());
                             }},
                    DiskCase{"Simulated", [] { return std::make_unique<SimulatedDisk>(); },
                             [] { return std::string("."); }}),
    [](const auto& info) { return info.param.name; });

TEST(RealDisk, PathsThatCannotBe) {
  const auto disk = MakeRealDisk();
  const std::string root = NewDirectory(TestDirectory());
  ASSERT_TRUE(disk->Open(root + "/file", true).ok());
  const absl::Status through_file = disk->MakeDirectory(root + "/file/below");
  EXPECT_FALSE(through_file.ok());
  EXPECT_THAT(Message(through_file), HasSubstr(root + "/file"));
  EXPECT_FALSE(disk->MakeDirectory(root + "/file").ok());
  EXPECT_EQ(disk->MakeDirectory("").code(), absl::StatusCode::kInvalidArgument);
  if (geteuid() != 0) {
    EXPECT_EQ(disk->MakeDirectory("/proc/1/kedge").code(), absl::StatusCode::kPermissionDenied);
  }
}

TEST(SimulatedDisk, ForgetsWhatWasNotSynced) {
  int lost = 0, torn = 0, kept = 0;
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    SimulatedDisk disk;
    Random random(seed);
    auto file = disk.Open("f", true);
    Pages before(4, 1), after(4, 2), read(4);
    ASSERT_TRUE((*file)->Write(0, before.span()).ok());
    ASSERT_TRUE((*file)->Sync().ok());
    ASSERT_TRUE((*file)->Write(0, after.span()).ok());
    disk.CutPower(random);
    EXPECT_EQ((*file)->Sync().code(), absl::StatusCode::kUnavailable);
    file = disk.Open("f", false);
    ASSERT_TRUE((*file)->Read(0, read.span()).ok());
    bool old_bytes = false, new_bytes = false;
    for (const uint8_t byte : read.span()) {
      ASSERT_TRUE(byte == 1 || byte == 2);
      (byte == 1 ? old_bytes : new_bytes) = true;
    }
    lost += !new_bytes;
    kept += !old_bytes;
    torn += old_bytes && new_bytes;
  }
  EXPECT_GT(lost, 10);
  EXPECT_GT(torn, 50);
  EXPECT_GE(kept, 1);
}

TEST(SimulatedDisk, SyncedWritesSurvive) {
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    SimulatedDisk disk;
    Random random(seed);
    auto file = disk.Open("f", true);
    Pages one(3, 1), two(1, 2), read(3);
    ASSERT_TRUE((*file)->Write(0, one.span()).ok());
    ASSERT_TRUE((*file)->Sync().ok());
    ASSERT_TRUE((*file)->Write(3 * kDiskPageBytes, two.span()).ok());
    disk.CutPower(random);
    disk.CutPower(random);
    file = disk.Open("f", false);
    ASSERT_TRUE((*file)->Read(0, read.span()).ok());
    EXPECT_TRUE(read.AllAre(1));
  }
}

TEST(SimulatedDisk, PowerFailsInTheMiddleOfAnOperation) {
  SimulatedDisk disk;
  Random random(1);
  const auto file = disk.Open("f", true);
  Pages page(1, 1);
  disk.FailAfter(2);
  EXPECT_TRUE((*file)->Write(0, page.span()).ok());
  EXPECT_TRUE((*file)->Sync().ok());
  EXPECT_FALSE(disk.power_failed());
  EXPECT_EQ((*file)->Write(kDiskPageBytes, page.span()).code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(disk.power_failed());
  EXPECT_EQ((*file)->Sync().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(disk.Open("g", true).status().code(), absl::StatusCode::kUnavailable);
  disk.CutPower(random);
  Pages read(1);
  const auto again = disk.Open("f", false);
  ASSERT_TRUE(again.ok());
  ASSERT_TRUE((*again)->Read(0, read.span()).ok());
  EXPECT_TRUE(read.AllAre(1));
}

TEST(SimulatedDisk, EntriesThatWereNotSyncedMayVanishOrStay) {
  int created = 0, still_there = 0;
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    SimulatedDisk disk;
    Random random(seed);
    ASSERT_TRUE(disk.Open("old", true).ok());
    disk.FailAfter(1);
    EXPECT_FALSE(seed % 2 == 0 ? disk.Open("new", true).ok() : disk.Remove("old").ok());
    disk.CutPower(random);
    created += disk.Open("new", false).ok();
    still_there += seed % 2 != 0 && disk.Open("old", false).ok();
  }
  EXPECT_GT(created, 10);
  EXPECT_LT(created, 40);
  EXPECT_GT(still_there, 10);
  EXPECT_LT(still_there, 40);
}

TEST(SimulatedDisk, FullReadOnlyAndDamaged) {
  SimulatedDisk disk;
  const auto file = disk.Open("f", true);
  Pages two(2, 1), read(2);
  disk.SetCapacityBytes(2 * kDiskPageBytes);
  ASSERT_TRUE((*file)->Write(0, two.span()).ok());
  EXPECT_EQ(*disk.FreeBytes("."), 0u);
  const absl::Status full = (*file)->Write(kDiskPageBytes, two.span());
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(Message(full), HasSubstr("write f, offset 4096, 8192 bytes"));
  disk.SetReadOnly(true);
  EXPECT_EQ((*file)->Write(0, two.span()).code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(disk.Open("g", true).status().code(), absl::StatusCode::kPermissionDenied);
  disk.SetReadOnly(false);

  disk.Damage("f", 5000, 0x10);
  ASSERT_TRUE((*file)->Read(0, read.span()).ok());
  EXPECT_EQ(read.span()[5000], 0x11);
  disk.Damage("f", 5000, 0x10);
  disk.FlipBitsOnRead(1, 7);
  ASSERT_TRUE((*file)->Read(0, read.span()).ok());
  EXPECT_FALSE(read.AllAre(1));
  disk.FlipBitsOnRead(0, 0);
  ASSERT_TRUE((*file)->Read(0, read.span()).ok());
  EXPECT_TRUE(read.AllAre(1));
  disk.FailSyncs(1);
  EXPECT_EQ((*file)->Sync().code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE((*file)->Sync().ok());
}

}  // namespace
}  // namespace kedge
