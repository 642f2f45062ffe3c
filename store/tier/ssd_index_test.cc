#include "store/tier/ssd_index.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "gtest/gtest.h"
#include "store/tier/ssd_testing.h"
#include "store/tier/tier_ssd.h"

namespace kedge {
namespace {

using SsdIndexTest = SsdTierTest;

TEST_F(SsdIndexTest, AnIndexThatLagsIsMadeUpFromTheSegments) {
  ASSERT_TRUE(Open().ok());
  for (uint64_t id = 0; id < 30; ++id) ASSERT_TRUE(Put(id).ok());
  ASSERT_TRUE(Remove(3).ok());
  const auto all = log_.changes;
  for (size_t kept = 0; kept <= all.size(); ++kept) {
    log_.changes.assign(all.begin(), all.begin() + static_cast<ptrdiff_t>(kept));
    ASSERT_TRUE(Open().ok());
    EXPECT_EQ(report_.scanned_records, all.size() - kept);
    EXPECT_EQ(RecoveredIds().size(), 29u);
    ASSERT_TRUE(Open().ok());
    EXPECT_EQ(report_.scanned_records, 0u) << "the first start made it up";
  }
}

TEST_F(SsdIndexTest, AnIndexThatLiesIsRebuilt) {
  ASSERT_TRUE(Open().ok());
  for (uint64_t id = 0; id < 20; ++id) ASSERT_TRUE(Put(id).ok());
  tier_.reset();
  const std::vector<uint8_t> junk(300, 7);
  const auto lie = [&](SsdIndexRecord record, SsdIndexMark mark) {
    log_.changes.push_back([record, mark](SsdIndex& index) {
      return index.Add({&record, 1}, mark);
    });
    const int resets = log_.resets;
    ASSERT_TRUE(Open().ok());
    EXPECT_EQ(RecoveredIds().size(), 20u);
    EXPECT_EQ(report_.index_rebuilt, log_.resets > resets);
    tier_.reset();
  };
  // A header that is none; behind it, a mark of the same file (its nonce from the index itself).
  const auto marks = [&] {
    LoggedIndex index(log_);
    EXPECT_TRUE(index.Open().ok());
    return *index.Marks();
  }();
  const SsdIndexRecord bad_header{marks[0].segment, 11, RecordKind::kBlock, 5, junk};
  lie(bad_header, marks[0]);
  EXPECT_EQ(log_.resets, 1);
  lie({marks[0].segment, 11, RecordKind::kTombstone, 5, junk}, marks[0]);  // 300 bytes of keys
  EXPECT_EQ(log_.resets, 2);
  // Of another file of that name, and farther than the file goes: not believed.
  lie({marks[0].segment, 11, RecordKind::kBlock, 5, junk},
      {marks[0].segment, marks[0].pages, marks[0].nonce + 1});
  lie({marks[0].segment, 11, RecordKind::kBlock, 5, junk},
      {marks[0].segment, 5000, marks[0].nonce});
  lie({99, 11, RecordKind::kBlock, 5, junk}, {99, 50, 1});  // no such file
}

class SsdIndexRocksdbTest : public SsdIndexTest {
 protected:
  SsdIndexRocksdbTest() {
    const char* parent = getenv("TEST_TMPDIR");
    std::string path = std::string(parent != nullptr ? parent : "/tmp") + "/kedge-ssd-XXXXXX";
    EXPECT_NE(mkdtemp(path.data()), nullptr);
    options_.directory = path;
  }
  ~SsdIndexRocksdbTest() override {
    tier_.reset();
    std::filesystem::remove_all(options_.directory);
  }
  absl::Status OpenReal() {
    tier_.reset();
    return Open(*real_, MakeRocksdbIndex(IndexPath()));
  }
  std::string IndexPath() const { return options_.directory + "/index"; }

  const std::unique_ptr<Disk> real_ = MakeRealDisk();
};

TEST_F(SsdIndexRocksdbTest, SurvivesRestartsAndDrops) {
  ASSERT_TRUE(OpenReal().ok());
  for (uint64_t id = 0; id < 60; ++id) ASSERT_TRUE(Put(id).ok());
  ASSERT_TRUE(Remove(59).ok());
  EXPECT_FALSE(dropped_.empty());
  const size_t live = 59 - dropped_.size();
  ASSERT_TRUE(OpenReal().ok());
  EXPECT_EQ(report_.scanned_records, 0u);
  EXPECT_FALSE(report_.index_rebuilt);
  EXPECT_EQ(recovered_.size(), live);
  EXPECT_GT(RecoveredIds().size(), live / 2);
}

TEST_F(SsdIndexRocksdbTest, IsRebuiltWhenItIsMissing) {
  ASSERT_TRUE(OpenReal().ok());
  for (uint64_t id = 0; id < 20; ++id) ASSERT_TRUE(Put(id).ok());
  tier_.reset();
  std::filesystem::remove_all(IndexPath());
  ASSERT_TRUE(OpenReal().ok());
  EXPECT_EQ(report_.scanned_records, 20u);
  EXPECT_TRUE(report_.index_rebuilt);
  EXPECT_EQ(RecoveredIds().size(), 20u);
  ASSERT_TRUE(OpenReal().ok());
  EXPECT_EQ(report_.scanned_records, 0u);
}

// Nothing can be made of it: then one in memory does until the next start.
TEST_F(SsdIndexRocksdbTest, ServesWithoutItWhenItCannotBeOpened) {
  ASSERT_TRUE(OpenReal().ok());
  for (uint64_t id = 0; id < 20; ++id) ASSERT_TRUE(Put(id).ok());
  tier_.reset();
  std::filesystem::remove_all(IndexPath());
  std::ofstream(IndexPath()) << "a file where the directory should be";
  ASSERT_TRUE(OpenReal().ok());
  EXPECT_NE(report_.index_error.find(IndexPath()), std::string::npos) << report_.index_error;
  EXPECT_EQ(MetricReader(*tier_)["kedge_ssd_index_in_memory"], 1);
  EXPECT_EQ(report_.scanned_records, 20u);
  EXPECT_EQ(RecoveredIds().size(), 20u);
  for (uint64_t id = 20; id < 25; ++id) ASSERT_TRUE(Put(id).ok());
  tier_.reset();
  std::filesystem::remove(IndexPath());
  ASSERT_TRUE(OpenReal().ok());
  EXPECT_TRUE(report_.index_error.empty()) << report_.index_error;
  EXPECT_EQ(RecoveredIds().size(), 25u);
}

// Every file of the database, one at a time: emptied, cut in half, overwritten, removed.
TEST_F(SsdIndexRocksdbTest, IsRebuiltWhenAnyOfItsFilesIsDamaged) {
  ASSERT_TRUE(OpenReal().ok());
  for (uint64_t id = 0; id < 20; ++id) ASSERT_TRUE(Put(id).ok());
  ASSERT_TRUE(OpenReal().ok());  // writes a table
  for (uint64_t id = 20; id < 25; ++id) ASSERT_TRUE(Put(id).ok());
  tier_.reset();
  const std::string good = options_.directory + "/good";
  std::filesystem::copy(IndexPath(), good);
  int rebuilt = 0;
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(good))
    names.push_back(entry.path().filename());
  for (const std::string& name : names) {
    for (int damage = 0; damage < 4; ++damage) {
      std::filesystem::remove_all(IndexPath());
      std::filesystem::copy(good, IndexPath());
      const std::filesystem::path path = IndexPath() + "/" + name;
      const auto bytes = std::filesystem::file_size(path);
      if (damage == 0) std::filesystem::resize_file(path, 0);
      if (damage == 1) std::filesystem::resize_file(path, bytes / 2);
      if (damage == 2) {
        std::ofstream file(path, std::ios::binary | std::ios::in);
        for (uintmax_t i = 0; i < bytes; ++i) file.put(static_cast<char>(i * 37));
      }
      if (damage == 3) std::filesystem::remove(path);
      ASSERT_TRUE(OpenReal().ok()) << name << " " << damage;
      EXPECT_EQ(RecoveredIds().size(), 25u) << name << " " << damage;
      rebuilt += report_.index_rebuilt;
      tier_.reset();
    }
  }
  EXPECT_GT(rebuilt, 5);
}

}  // namespace
}  // namespace kedge
