// Base KV: a text computed alone, to be moved or corrected; and rows put where they belong.
//
// A canonical base costs as much as computing its text, and serves every prompt that the text
// stands in: the first of five agents pays, four do not. The bases kept here are this process's;
// fixed texts of templates stay as long as they are used.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "gpu/model/kv_span.h"
#include "gpu/model/model.h"
#include "gpu/offset/kv_rows.h"

namespace kedge {

// As fp32.
offset::KvRows RowsOf(const KvSpan& span);

// Writes rows [skip, rows.tokens) at positions [first + skip, ...), keys rotated there, rounded
// once. The keys of `rows` are rotated in place.
void PlaceRows(const Model& model, offset::KvRows& rows, int64_t first, int64_t skip,
               KvCache& cache);

// Threads: any, each with a model of its own, all of the same weights.
class BaseCache {
 public:
  // Keeps at most `max_bytes` of keys and values, those used last.
  explicit BaseCache(int64_t max_bytes) : max_bytes_(max_bytes) {}

  // Null when it is not kept.
  std::shared_ptr<const KvSpan> Find(std::span<const int32_t> lead,
                                     std::span<const int32_t> tokens);
  // The same, computed where it is not kept. Errors as ComputeAlone's.
  absl::StatusOr<std::shared_ptr<const KvSpan>> Get(Model& model, std::span<const int32_t> lead,
                                                    std::span<const int32_t> tokens);
  // It is gone when it was kept.
  void Forget(std::span<const int32_t> lead, std::span<const int32_t> tokens);
  int64_t bytes() const;

 private:
  using Key = std::vector<int32_t>;  // lead, its length, tokens
  struct Entry {
    Key key;
    std::shared_ptr<const KvSpan> span;
  };
  static Key KeyOf(std::span<const int32_t> lead, std::span<const int32_t> tokens);
  static int64_t BytesOf(const KvSpan& span);

  const int64_t max_bytes_;
  mutable std::mutex mutex_;
  std::list<Entry> entries_;  // used last first
  std::map<Key, std::list<Entry>::iterator> by_key_;
  int64_t bytes_ = 0;
};

}  // namespace kedge
