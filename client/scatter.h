// Caller memory for one block: pieces that are filled, or read, one after the other, as if they
// were one.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "store/transfer/stream_copy.h"

namespace kedge {

class ScatterList {
 public:
  // Shorter runs are copied through the cache: streaming pays for large ones.
  static constexpr uint64_t kStreamBytesMin = 4096;

  void Clear() {
    pieces_.clear();
    bytes_ = 0;
  }
  // Empty pieces are left out. The memory stays the caller's.
  void Add(void* data, uint64_t bytes) {
    if (bytes == 0) return;
    pieces_.push_back({static_cast<uint8_t*>(data), bytes_, bytes});
    bytes_ += bytes;
  }
  uint64_t bytes() const { return bytes_; }

  // Calls visit(std::span<uint8_t>) for each contiguous run of [offset, offset + bytes), in order.
  // The range must lie inside.
  template <typename Visit>
  void ForRange(uint64_t offset, uint64_t bytes, Visit&& visit) const {
    if (bytes == 0) return;
    auto piece = std::upper_bound(pieces_.begin(), pieces_.end(), offset,
                                  [](uint64_t at, const Piece& p) { return at < p.start; });
    for (--piece; bytes > 0; ++piece) {
      const uint64_t skip = offset - piece->start;
      const uint64_t run = std::min(bytes, piece->bytes - skip);
      visit(std::span<uint8_t>(piece->data + skip, run));
      offset += run;
      bytes -= run;
    }
  }

  void CopyIn(uint64_t offset, std::span<const uint8_t> bytes) const {
    const uint8_t* from = bytes.data();
    ForRange(offset, bytes.size(), [&](std::span<uint8_t> run) {
      if (run.size() < kStreamBytesMin) {
        std::memcpy(run.data(), from, run.size());
      } else {
        StreamCopy(run.data(), from, run.size());
      }
      from += run.size();
    });
  }

 private:
  struct Piece {
    uint8_t* data;
    uint64_t start;  // offset of the piece in the list
    uint64_t bytes;
  };
  std::vector<Piece> pieces_;
  uint64_t bytes_ = 0;
};

}  // namespace kedge
