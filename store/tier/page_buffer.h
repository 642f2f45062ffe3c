// Page-aligned memory for direct I/O.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>

#include "absl/base/internal/raw_logging.h"
#include "store/tier/ssd_format.h"

namespace kedge {

class PageBuffer {
 public:
  explicit PageBuffer(uint64_t bytes = 0) { Grow(bytes); }

  // At least `bytes`; what was in it may be gone.
  void Grow(uint64_t bytes) {
    if (bytes <= bytes_) return;
    data_.reset();
    data_.reset(static_cast<uint8_t*>(std::aligned_alloc(kDiskPageBytes, PageRound(bytes))));
    ABSL_RAW_CHECK(data_ != nullptr, "out of memory");
    bytes_ = PageRound(bytes);
  }
  std::span<uint8_t> first(uint64_t bytes) { return {data_.get(), bytes}; }
  SsdPage page(uint64_t index) {
    return SsdPage(data_.get() + index * kDiskPageBytes, kDiskPageBytes);
  }

 private:
  struct Free {
    void operator()(uint8_t* data) const { std::free(data); }
  };
  std::unique_ptr<uint8_t, Free> data_;
  uint64_t bytes_ = 0;
};

}  // namespace kedge
