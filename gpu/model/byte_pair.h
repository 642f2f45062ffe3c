// Byte-pair encoding: joins neighbouring tokens by the rank of their pair until none can be joined.
// Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units" (arXiv
// 1508.07909); over bytes as in GPT-2.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace kedge {

class BytePair {
 public:
  BytePair() { byte_tokens_.fill(-1); }

  // The token of a single byte; -1 (none) until it is set.
  void SetByteToken(uint8_t byte, int32_t token) { byte_tokens_[byte] = token; }
  int32_t byte_token(uint8_t byte) const { return byte_tokens_[byte]; }
  // Pairs are joined in the order of their adding. False when the pair is there already.
  bool AddMerge(int32_t left, int32_t right, int32_t joined);

  // Appends the tokens of one piece. False, and nothing is appended, when a byte has no token. Time
  // is n log n.
  bool Encode(std::string_view piece, std::vector<int32_t>& tokens) const;

 private:
  struct Merge {
    int32_t rank = 0;
    int32_t joined = 0;
  };

  const Merge* Find(int32_t left, int32_t right) const;

  std::array<int32_t, 256> byte_tokens_;
  absl::flat_hash_map<uint64_t, Merge> merges_;  // by both tokens
};

}  // namespace kedge
