// Run alignment: which tokens of a prompt stand in which donors.
//
// Runs of equal tokens are found by n-grams of the minimum run's length, in any donor and at any
// place of it (blocks may have moved); the longest run wins, several donors may be mixed. KVShare's
// authors' code does this (research prototype `KVEditor`, arXiv 2503.16525); there, merging of
// neighbouring runs is flagged as faulty. Here runs are maximal from the beginning, so nothing is
// merged.
//
// The answer does not depend on the order of the donors: ties go to the earlier place in the
// prompt, then to the smaller key, then to the earlier place in the donor.
//
// Pure functions. Hostile input costs time in proportion to the prompt (kComparesOfToken); what is
// not looked at any more has no donor and is computed.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "proto/block_key.h"

namespace kedge::match {

inline constexpr uint32_t kNoDonor = UINT32_MAX;

struct RowSource {
  uint32_t donor = kNoDonor;  // index; kNoDonor: compute this token
  uint32_t row = 0;           // of the donor's tokens

  friend bool operator==(const RowSource&, const RowSource&) = default;
};

struct AlignDonor {
  BlockKey key;  // orders donors; equal keys mean equal tokens
  std::span<const int32_t> tokens;
};

struct AlignOptions {
  uint32_t min_run = 5;      // tokens; KVShare's benchmarks use 5. At least 1
  uint32_t last_tokens = 3;  // of the prompt, always computed. At least 1
  // Tokens of the prompt's beginning that have KV already (an exact prefix): left alone.
  uint32_t prefix_tokens = 0;
};

// Work is given up past this many comparisons for each token of the prompt.
inline constexpr uint64_t kComparesOfToken = 512;
// Places of one n-gram that are looked at.
inline constexpr uint32_t kPlacesMax = 16;

// A run that is known already, e.g. of an exact chunk: it is placed before all others.
struct KnownRun {
  uint32_t prompt = 0;
  uint32_t donor = 0;
  uint32_t row = 0;
  uint32_t tokens = 0;
};

// rows[i] for prompt[i]. Known runs that do not agree with their donors' tokens, or leave the
// prompt or the donor, are ignored. Aborts on a minimum run or last tokens of 0.
std::vector<RowSource> Align(std::span<const int32_t> prompt, std::span<const AlignDonor> donors,
                             const AlignOptions& options, std::span<const KnownRun> known = {});

// What every answer fulfils: one row for each token; a donor's token equals the prompt's; every
// maximal run of consecutive rows of one donor has the minimum length; prefix and last tokens have
// no donor. InvalidArgument says what and where.
absl::Status ValidateRows(std::span<const int32_t> prompt, std::span<const AlignDonor> donors,
                          const AlignOptions& options, std::span<const RowSource> rows);

}  // namespace kedge::match
