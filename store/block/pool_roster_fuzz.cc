// Hostile rosters: whatever is read is what would be written.
#include <algorithm>
#include <cstdlib>
#include <vector>

#include "store/block/pool_roster.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::StatusOr<kedge::PoolRoster> roster = kedge::ParseRoster({data, size});
  if (!roster.ok()) return 0;
  const std::vector<uint8_t> again = kedge::EncodeRoster(*roster);
  if (!std::equal(again.begin(), again.end(), data, data + size)) std::abort();
  return 0;
}
