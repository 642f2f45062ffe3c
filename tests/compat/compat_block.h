// The blocks that a release leaves behind for later ones to read: one a chain, made from a seed.
//
// A file is a block as a store keeps it: the encoded header, then its parts one after the other.
// The pages of a block are its parts decoded, in part order. Angles of keys are made of numbers
// that every machine has exactly (no cosine of any library), so files and pages are the same bits
// everywhere.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/block_header.h"
#include "proto/model_profile.h"

namespace kedge::compat {

// `sequence_start`: the block begins its sequence, and its first tokens stay raw. `profile` for
// chains that need one, else null.
absl::StatusOr<std::vector<uint8_t>> MakeBlock(const std::string& chain, bool sequence_start,
                                               const ModelProfile* profile);

// Reads a block's file: header, digests of all parts, and every part decoded. An error where any
// of it is not right.
absl::StatusOr<std::vector<uint8_t>> PagesOf(std::span<const uint8_t> block,
                                             const ModelProfile* profile);

// What a manifest has for pages: 32 hexadecimal digits.
std::string DigestOfPages(std::span<const uint8_t> pages);

}  // namespace kedge::compat
