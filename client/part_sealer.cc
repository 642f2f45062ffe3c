#include "client/part_sealer.h"

#include <algorithm>

#include "absl/base/internal/raw_logging.h"

namespace kedge {

void PartSealer::Add(BlockHeader& header, uint64_t offset, std::span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    // A part of a block that ended early may be left behind; nobody will use its digest.
    if (left_ == 0 || of_ != &header || at_ != offset) FindPart(header, offset);
    PartEntry& part = header.parts[part_];
    const std::span<const uint8_t> run = bytes.first(std::min<uint64_t>(left_, bytes.size()));
    if (run.size() == part.bytes) {
      part.digest = PartDigest(header.key, header.variant, part_, run);
    } else {
      if (left_ == part.bytes) digester_.Reset(header.key, header.variant, part_);
      digester_.Update(run);
      if (left_ == run.size()) part.digest = digester_.Finish();
    }
    left_ -= run.size();
    at_ = offset += run.size();
    bytes = bytes.subspan(run.size());
  }
}

// Nearly always the part behind the last one, or the first.
void PartSealer::FindPart(const BlockHeader& header, uint64_t offset) {
  if (of_ == &header && left_ == 0 && at_ == offset && part_ + 1 < header.parts.size()) {
    ++part_;
  } else {
    part_ = 0;
    at_ = 0;
    while (part_ < header.parts.size() && at_ < offset) at_ += header.parts[part_++].bytes;
  }
  ABSL_RAW_CHECK(part_ < header.parts.size() && at_ == offset,
                 "bytes to digest begin in the middle of a part");
  of_ = &header;
  left_ = header.parts[part_].bytes;
}

}  // namespace kedge
