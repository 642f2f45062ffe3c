// The slot sizes of the host tier (tier_host.h), in pages. Arithmetic only.
#pragma once

#include <cstdint>
#include <vector>

#include "store/tier/tier_host.h"

namespace kedge {

class SizeClasses {
 public:
  explicit SizeClasses(uint32_t extent_pages);

  int count() const { return static_cast<int>(pages_.size()); }
  // Pages of one slot; they grow with the class.
  uint32_t pages(int size_class) const { return pages_[size_class]; }
  uint32_t slots_per_extent(int size_class) const { return extent_pages_ / pages_[size_class]; }
  // The smallest class whose slots hold `pages` pages (1 to those of an extent).
  int ClassOf(uint32_t pages) const;

 private:
  const uint32_t extent_pages_;
  std::vector<uint32_t> pages_;
};

}  // namespace kedge
