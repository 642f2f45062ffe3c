// Records by 32-bit index, in chunks that never move. Freed indices are used again. Not
// thread-safe.
//
// An index is half a pointer, and a chunk is allocated for 512 records at once, so adding one
// seldom allocates and looking one up never does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace kedge {

inline constexpr uint32_t kNoIndex = UINT32_MAX;

template <typename T>
class Slab {
 public:
  static constexpr uint32_t kChunkBits = 9;
  static constexpr uint32_t kChunkRecords = 1u << kChunkBits;

  T& operator[](uint32_t index) {
    return chunks_[index >> kChunkBits][index & (kChunkRecords - 1)];
  }
  const T& operator[](uint32_t index) const {
    return chunks_[index >> kChunkBits][index & (kChunkRecords - 1)];
  }

  // Index of a fresh record (value-initialized).
  uint32_t Add() {
    if (!free_.empty()) {
      const uint32_t index = free_.back();
      free_.pop_back();
      (*this)[index] = T{};
      return index;
    }
    Reach(end_);
    return end_++;
  }
  void Free(uint32_t index) { free_.push_back(index); }

  // Makes `index` valid without counting it as used: for records that share the index of another
  // slab.
  void Reach(uint32_t index) {
    while ((index >> kChunkBits) >= chunks_.size()) {
      chunks_.push_back(std::make_unique<T[]>(kChunkRecords));
    }
  }

  bool Holds(uint32_t index) const { return (index >> kChunkBits) < chunks_.size(); }
  uint32_t end() const { return end_; }  // indices are below this
  size_t memory_bytes() const {
    return chunks_.size() * kChunkRecords * sizeof(T) + chunks_.capacity() * sizeof(chunks_[0]) +
           free_.capacity() * sizeof(uint32_t);
  }

 private:
  std::vector<std::unique_ptr<T[]>> chunks_;
  std::vector<uint32_t> free_;
  uint32_t end_ = 0;
};

}  // namespace kedge
