#include "store/tier/size_class.h"

#include <algorithm>
#include <cmath>

#include "absl/base/internal/raw_logging.h"

namespace kedge {

SizeClasses::SizeClasses(uint32_t extent_pages) : extent_pages_(extent_pages) {
  for (uint32_t pages = 1; pages <= 8; ++pages) pages_.push_back(pages);
  for (double power = 8; power < extent_pages_; power *= 2) {
    for (int quarter = 0; quarter < 4; ++quarter) {
      const double wanted = std::ceil(power * std::exp2(quarter / 4.0)) + 1;
      if (wanted > extent_pages_) break;
      // As many as fit, and then as large as that leaves room for.
      const uint32_t slots = extent_pages_ / static_cast<uint32_t>(wanted);
      pages_.push_back(extent_pages_ / slots);
    }
  }
  for (uint32_t slots = 1; slots <= 8; ++slots) pages_.push_back(extent_pages_ / slots);
  std::sort(pages_.begin(), pages_.end());
  pages_.erase(std::unique(pages_.begin(), pages_.end()), pages_.end());
}

int SizeClasses::ClassOf(uint32_t pages) const {
  ABSL_RAW_CHECK(pages >= 1 && pages <= extent_pages_, "size outside of an extent");
  return static_cast<int>(std::lower_bound(pages_.begin(), pages_.end(), pages) - pages_.begin());
}

}  // namespace kedge
