// Hostile block headers: as they are, and with a right prefix and root digest so that the fields
// behind them are reached.
#include <cstdlib>
#include <cstring>

#include "proto/block_header.h"
#include "proto/header_digest.h"
#include "proto/wire.h"

namespace kedge {
namespace {

constexpr size_t kRootAt = 16;

// What decodes must encode to the same bytes.
void Check(std::span<const uint8_t> bytes) {
  absl::StatusOr<BlockHeader> header = DecodeBlockHeader(bytes);
  if (!header.ok()) return;
  const auto again = EncodeBlockHeader(*header);
  if (!again.ok() || again->size() > bytes.size()) std::abort();
  if (std::memcmp(again->data(), bytes.data(), again->size()) != 0) std::abort();
  if (header->part_offset(static_cast<uint32_t>(header->parts.size())) > kBlockBytesMax)
    std::abort();
  (void)VerifyPayload(*header, bytes);
}

void Seal(std::vector<uint8_t>& bytes, uint8_t version) {
  std::memcpy(bytes.data(), "KdgB\0\0\0\0", 8);
  bytes[4] = version;
  StoreLe(bytes.data() + 8, static_cast<uint32_t>(bytes.size()));
  BlockKey key;
  Variant variant;
  std::memcpy(key.bytes.data(), bytes.data() + 32, 32);
  std::memcpy(variant.name.data(), bytes.data() + 96, kVariantBytes);
  const Digest128 root = RootDigest(key, variant, bytes, kRootAt);
  StoreLe(bytes.data() + kRootAt, root.low);
  StoreLe(bytes.data() + kRootAt + 8, root.high);
}

}  // namespace
}  // namespace kedge

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  kedge::Check({data, size});
  for (uint8_t version : {1, 2}) {
    const size_t fixed =
        kedge::kBlockHeaderFixedBytes + (version == 2 ? kedge::kBlockHeaderModelBytes : 0);
    if (size <= fixed) continue;
    std::vector<uint8_t> sealed(data, data + size);
    sealed.resize(fixed + (size - fixed) / kedge::kPartEntryBytes * kedge::kPartEntryBytes);
    kedge::Seal(sealed, version);
    kedge::Check(sealed);
  }
  return 0;
}
