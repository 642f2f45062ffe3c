// The slot sizes of the host tier (tier_host.h), in pages. Arithmetic only.
#pragma once

#include <cstdint>
#include <vector>

#include "store/tier/tier_host.h"

namespace kedge {

inline constexpr uint32_t kHostExtentPages = kHostExtentBytes / kDiskPageBytes;

class SizeClasses {
 public:
  SizeClasses();

  int count() const { return static_cast<int>(pages_.size()); }
  // Pages of one slot; they grow with the class.
  uint32_t pages(int size_class) const { return pages_[size_class]; }
  uint32_t slots_per_extent(int size_class) const { return kHostExtentPages / pages_[size_class]; }
  // The smallest class whose slots hold `pages` pages (1 to kHostExtentPages).
  int ClassOf(uint32_t pages) const;

 private:
  std::vector<uint32_t> pages_;
};

}  // namespace kedge
