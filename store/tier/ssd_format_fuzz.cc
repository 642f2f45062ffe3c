// Pages of segment files that somebody made up. The first byte says whether the checksum is put
// right, so that the fields behind it are reached too. What decodes must encode to a page that
// decodes to the same.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include <xxhash.h>
#include "proto/wire.h"
#include "store/tier/page_buffer.h"
#include "store/tier/ssd_format.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kedge;
  if (size < 1) return 0;
  PageBuffer memory(2 * kDiskPageBytes);
  const SsdPage page = memory.page(0), again = memory.page(1);
  std::memset(page.data(), 0, page.size());
  std::memcpy(page.data(), data + 1, std::min<size_t>(size - 1, page.size()));
  if (data[0] & 1) StoreLe<uint64_t>(page.data() + 4088, XXH3_64bits(page.data(), 4088));

  if (const auto header = DecodeSegmentHeader(page); header.ok()) {
    EncodeSegmentHeader(*header, again);
    const auto same = DecodeSegmentHeader(again);
    if (!same.ok() || same->segment != header->segment || same->nonce != header->nonce)
      std::abort();
  }
  if (const auto record = DecodeRecordHeader(page); record.ok()) {
    if (record->image_pages() > (kBlockBytesMax + kBlockHeaderBytesMax) / kDiskPageBytes + 2)
      std::abort();
    EncodeRecordHeader(*record, again);
    const auto same = DecodeRecordHeader(again);
    if (!same.ok() || same->sequence != record->sequence || same->keys != record->keys ||
        same->page != record->page || same->image_pages() != record->image_pages()) {
      std::abort();
    }
  }
  return 0;
}
