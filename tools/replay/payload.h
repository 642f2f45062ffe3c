// The bytes of a replayed block: a function of (hash id, part), so that what comes back can be
// checked without keeping what was sent. They do not repeat and do not compress.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

namespace kedge {

// Fills one part. Any length.
void FillPart(uint64_t hash_id, uint32_t part, std::span<uint8_t> bytes);

// The offset of the first byte that is not what FillPart writes; nothing when all are.
std::optional<uint64_t> FirstWrongByte(uint64_t hash_id, uint32_t part,
                                       std::span<const uint8_t> bytes);

}  // namespace kedge
