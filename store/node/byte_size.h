// Sizes as people write them: "4096", "64KiB", "1.5GiB", "2GB".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace kedge {

// A number, with a fraction if there is a unit, and B, KiB, MiB, GiB, TiB, kB, KB, MB, GB or TB;
// none means bytes. INVALID_ARGUMENT that quotes the text: no number, an unknown unit, negative, or
// 2^63 bytes and more.
absl::StatusOr<uint64_t> ParseByteSize(std::string_view text);
// The shortest exact form: "64MiB", "4097B".
std::string FormatByteSize(uint64_t bytes);

}  // namespace kedge
