// The pruned sequences that a release leaves behind for later ones to read: one a chain, made from
// a seed, with the scores and the profile that they were made with.
//
// A file is an object as a store keeps it (proto/README.md): the encoded header, then its parts.
// Its rows are what it decodes to: for each part the positions, then the values. The same bits on
// every machine, as compat_block.h.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gpu/codec/score_sidecar.h"
#include "proto/model_profile.h"

namespace kedge::compat {

ModelProfile MakePrunedProfile();
codec::ScoreSidecar MakeScores();

absl::StatusOr<std::vector<uint8_t>> MakePruned(const std::string& chain,
                                                const ModelProfile& profile,
                                                const codec::ScoreSidecar& scores);

// Reads a file: header, digests of all parts, every part decoded. An error where any of it is not
// right.
absl::StatusOr<std::vector<uint8_t>> RowsOf(std::span<const uint8_t> object,
                                            const ModelProfile& profile);

}  // namespace kedge::compat
