// The digest that covers an encoded block header. For block_header.cc; others use EncodeBlockHeader
// and DecodeBlockHeader.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "proto/block_header.h"

namespace kedge {

inline constexpr size_t kRootDigestBytes = 16;
inline constexpr uint32_t kRootMarker =
    0xffffffff;  // stands where a part's index would; no part has it

// XXH3-128 over `encoded` with the 16 bytes at `root_at` taken as zeros, seeded as a part's digest
// is.
Digest128 RootDigest(const BlockKey& key, const Variant& variant, std::span<const uint8_t> encoded,
                     size_t root_at);

}  // namespace kedge
