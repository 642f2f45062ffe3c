// The tokens of a donor: what near matches are aligned with, and verified by.
//
// A donor is a span of whole blocks of one chain. Its text names the key of the block before the
// span, so that whoever holds the tenant's salt can compute the span's keys from the tokens and
// compare the last one with the donor's key: a text that claims other tokens is found out.
//
// Stored enciphered under MatchKeys::TextName (proto/match_key.h), beside the donor's blocks.
// Layout: proto/README.md, "Donor texts".
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/block_key.h"

namespace kedge {

inline constexpr uint32_t kDonorTokensMax = 1u << 16;

// Of an encoded text.
inline constexpr uint64_t DonorTextBytes(uint32_t tokens) { return 49 + uint64_t{4} * tokens; }

struct DonorText {
  BlockKey parent;         // of the span's first block; zero: the span begins its chain
  uint32_t depth = 0;      // of the span's first block
  uint64_t placement = 0;  // of the parent; 0 without one
  std::vector<int32_t> tokens;

  friend bool operator==(const DonorText&, const DonorText&) = default;
};

// Aborts on more than kDonorTokensMax tokens.
std::vector<uint8_t> EncodeDonorText(const DonorText& text);
// InvalidArgument names the field. Bytes of an enemy are welcome.
absl::StatusOr<DonorText> DecodeDonorText(std::span<const uint8_t> bytes);

// The links of the span's blocks, when its tokens lead to `donor` at the depth that `begin` says:
// InvalidArgument otherwise, and where tokens are no whole blocks.
absl::StatusOr<std::vector<ChainLink>> VerifyDonorText(const DonorText& text, const KeyChain& chain,
                                                       uint32_t block_tokens, const BlockKey& donor,
                                                       uint32_t begin);

}  // namespace kedge
