// CRC-32C (Castagnoli, RFC 3720 appendix B.4): guards the heads of frames and small records on
// disk.
#pragma once

#include <cstdint>
#include <span>

namespace kedge {

// CRC of what `crc` covers followed by `bytes`. The CRC of nothing is 0. Any thread.
uint32_t ExtendCrc32c(uint32_t crc, std::span<const uint8_t> bytes);
inline uint32_t Crc32c(std::span<const uint8_t> bytes) { return ExtendCrc32c(0, bytes); }

// The definition, by table: what the instruction is tested against, and what runs where it is
// missing.
uint32_t ExtendCrc32cPortable(uint32_t crc, std::span<const uint8_t> bytes);

}  // namespace kedge
