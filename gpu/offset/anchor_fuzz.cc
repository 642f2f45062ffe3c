// Hostile anchors: whatever is read is what would be written.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "gpu/offset/anchor.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::StatusOr<kedge::offset::Anchor> anchor = kedge::offset::ParseAnchor({}, {data, size});
  if (!anchor.ok()) return 0;
  const auto dtype = static_cast<kedge::DType>(data[6]);
  const std::vector<uint8_t> again = kedge::offset::EncodeAnchor(*anchor, dtype);
  if (!std::equal(again.begin(), again.end(), data, data + size)) std::abort();
  return 0;
}
