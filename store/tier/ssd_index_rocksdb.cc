// The index in RocksDB. Rows:
//   "V"                                       u32 version of this layout
//   "M", segment (u32, big endian)            nonce (u64), pages (u32)
//   "R", segment, page (u32, big endian)      kind (u8), sequence (u64), content
// Writes are not synced: after a power cut RocksDB comes back with a prefix of them, which is a
// lag, and a lag is made up from the segments. RocksDB keeps files and threads of its own.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/wire.h"
#include "rocksdb/cache.h"
#include "rocksdb/db.h"
#include "rocksdb/env.h"
#include "rocksdb/filter_policy.h"
#include "rocksdb/table.h"
#include "store/tier/ssd_index.h"
#include "store/world/limits.h"

namespace kedge {
namespace {

constexpr uint32_t kIndexVersion = 1;
constexpr size_t kRecordFixedBytes = 9;

std::string BigEndian(uint32_t value) {
  const uint32_t swapped = __builtin_bswap32(value);
  return std::string(reinterpret_cast<const char*>(&swapped), sizeof swapped);
}
uint32_t FromBigEndian(const char* from) {
  return __builtin_bswap32(LoadLe<uint32_t>(reinterpret_cast<const uint8_t*>(from)));
}
std::string MarkKey(uint32_t segment) { return "M" + BigEndian(segment); }
std::string RecordKey(uint32_t segment, uint32_t page) {
  return "R" + BigEndian(segment) + BigEndian(page);
}

const uint8_t* Bytes(const rocksdb::Slice& slice) {
  return reinterpret_cast<const uint8_t*>(slice.data());
}

class RocksdbIndex final : public SsdIndex {
 public:
  explicit RocksdbIndex(std::string path) : path_(std::move(path)) {}

  absl::Status Open() override {
    rocksdb::DB* db = nullptr;
    const rocksdb::Status opened = rocksdb::DB::Open(DatabaseOptions(), path_, &db);
    if (!opened.ok()) return Failed("open", opened);
    db_.reset(db);
    return CheckVersion();
  }

  absl::Status Reset() override {
    db_.reset();
    // What DestroyDB does not know (a damaged manifest hides files from it) is removed by name.
    const rocksdb::Status destroyed = rocksdb::DestroyDB(path_, rocksdb::Options());
    rocksdb::Env* env = rocksdb::Env::Default();
    std::vector<std::string> names;
    if (env->GetChildren(path_, &names).ok()) {
      for (const std::string& name : names) {
        if (name != "." && name != "..") (void)env->DeleteFile(path_ + "/" + name);
      }
    }
    absl::Status status = Open();
    if (!status.ok() && !destroyed.ok()) return Failed("destroy", destroyed);
    return status;
  }

  absl::StatusOr<std::vector<SsdIndexMark>> Marks() override {
    std::vector<SsdIndexMark> marks;
    const std::unique_ptr<rocksdb::Iterator> row(db_->NewIterator(rocksdb::ReadOptions()));
    for (row->Seek("M"); row->Valid() && row->key().starts_with("M"); row->Next()) {
      if (row->key().size() != 5 || row->value().size() != 12) return Damaged("mark", row->key());
      SsdIndexMark mark;
      mark.segment = FromBigEndian(row->key().data() + 1);
      mark.nonce = LoadLe<uint64_t>(Bytes(row->value()));
      mark.pages = LoadLe<uint32_t>(Bytes(row->value()) + 8);
      marks.push_back(mark);
    }
    if (!row->status().ok()) return Failed("read marks", row->status());
    return marks;
  }

  absl::Status Add(std::span<const SsdIndexRecord> records, const SsdIndexMark& mark) override {
    rocksdb::WriteBatch batch;
    std::string value;
    for (const SsdIndexRecord& record : records) {
      value.resize(kRecordFixedBytes);
      auto* fixed = reinterpret_cast<uint8_t*>(value.data());
      fixed[0] = static_cast<uint8_t>(record.kind);
      StoreLe<uint64_t>(fixed + 1, record.sequence);
      value.append(reinterpret_cast<const char*>(record.content.data()), record.content.size());
      batch.Put(RecordKey(record.segment, record.page), value);
    }
    uint8_t mark_value[12];
    StoreLe<uint64_t>(mark_value, mark.nonce);
    StoreLe<uint32_t>(mark_value + 8, mark.pages);
    batch.Put(MarkKey(mark.segment),
              rocksdb::Slice(reinterpret_cast<const char*>(mark_value), sizeof mark_value));
    const rocksdb::Status written = db_->Write(rocksdb::WriteOptions(), &batch);
    return written.ok() ? absl::OkStatus() : Failed("write", written);
  }

  absl::Status Visit(uint32_t segment,
                     absl::FunctionRef<absl::Status(const SsdIndexRecord&)> visit) override {
    const std::string prefix = "R" + BigEndian(segment);
    rocksdb::ReadOptions options;
    options.fill_cache = false;  // a walk reads everything once
    const std::unique_ptr<rocksdb::Iterator> row(db_->NewIterator(options));
    for (row->Seek(prefix); row->Valid() && row->key().starts_with(prefix); row->Next()) {
      const rocksdb::Slice value = row->value();
      const uint8_t kind = value.empty() ? 0 : Bytes(value)[0];
      if (row->key().size() != 9 || value.size() < kRecordFixedBytes || kind < 1 || kind > 3) {
        return Damaged("record", row->key());
      }
      SsdIndexRecord record;
      record.segment = segment;
      record.page = FromBigEndian(row->key().data() + 5);
      record.kind = static_cast<RecordKind>(kind);
      record.sequence = LoadLe<uint64_t>(Bytes(value) + 1);
      record.content = {Bytes(value) + kRecordFixedBytes, value.size() - kRecordFixedBytes};
      if (absl::Status status = visit(record); !status.ok()) return status;
    }
    return row->status().ok() ? absl::OkStatus() : Failed("read", row->status());
  }

  absl::Status Drop(uint32_t segment) override {
    rocksdb::WriteBatch batch;
    batch.Delete(MarkKey(segment));
    // The end is not in the range. No segment has the last number: the tier never gives it out.
    batch.DeleteRange("R" + BigEndian(segment), "R" + BigEndian(segment + 1));
    const rocksdb::Status written = db_->Write(rocksdb::WriteOptions(), &batch);
    return written.ok() ? absl::OkStatus() : Failed("write", written);
  }

 private:
  static rocksdb::Options DatabaseOptions() {
    rocksdb::BlockBasedTableOptions table;
    table.block_cache = rocksdb::NewLRUCache(kSsdIndexCacheBytes);
    table.cache_index_and_filter_blocks = true;  // so that the cache bounds them too
    rocksdb::Options options;
    options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
    options.create_if_missing = true;
    options.write_buffer_size = kSsdIndexWriteBufferBytes;
    options.max_write_buffer_number = 2;
    options.max_total_wal_size = 4 * kSsdIndexWriteBufferBytes;
    options.max_open_files = kSsdIndexOpenFilesMax;
    options.compression = rocksdb::kNoCompression;  // digests do not compress
    options.stats_dump_period_sec = 0;              // no threads that wake up for nothing
    options.stats_persist_period_sec = 0;
    options.max_log_file_size = 1 << 20;
    options.keep_log_file_num = 2;
    options.info_log_level = rocksdb::WARN_LEVEL;
    return options;
  }

  absl::Status CheckVersion() {
    std::string value;
    const rocksdb::Status read = db_->Get(rocksdb::ReadOptions(), "V", &value);
    if (read.IsNotFound()) {
      value.resize(4);
      StoreLe<uint32_t>(reinterpret_cast<uint8_t*>(value.data()), kIndexVersion);
      const rocksdb::Status written = db_->Put(rocksdb::WriteOptions(), "V", value);
      return written.ok() ? absl::OkStatus() : Failed("write", written);
    }
    if (!read.ok()) return Failed("read", read);
    const uint32_t version =
        value.size() == 4 ? LoadLe<uint32_t>(reinterpret_cast<const uint8_t*>(value.data())) : 0;
    if (version == kIndexVersion) return absl::OkStatus();
    // An index of another version is no loss: it is rebuilt.
    return absl::DataLossError(
        absl::StrCat("index ", path_, ": version ", version, ", this build reads ", kIndexVersion));
  }

  absl::Status Damaged(const char* what, const rocksdb::Slice& key) const {
    return absl::DataLossError(
        absl::StrCat("index ", path_, ": ", what, " ", key.ToString(/*hex=*/true), " is damaged"));
  }

  absl::Status Failed(const char* call, const rocksdb::Status& status) const {
    absl::StatusCode code = absl::StatusCode::kDataLoss;
    if (status.IsNoSpace()) code = absl::StatusCode::kResourceExhausted;
    return absl::Status(code, absl::StrCat("index ", path_, ": ", call, ": ", status.ToString()));
  }

  const std::string path_;
  std::unique_ptr<rocksdb::DB> db_;
};

}  // namespace

std::unique_ptr<SsdIndex> MakeRocksdbIndex(std::string path) {
  return std::make_unique<RocksdbIndex>(std::move(path));
}

}  // namespace kedge
