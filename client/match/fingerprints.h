// What a text is looked up by: windows, minimizers and bands of sketches, as match ids.
//
// The donor's side names the windows of its blocks (fixed: one for each block), its minimizers and
// the bands of its sketches. The prompt's side names the windows at *every* position, its
// minimizers, and the bands of sketches that slide over it. So
//   - an unchanged block is found at any offset by its window;
//   - any unchanged run of 47 tokens, wherever it begins in the donor, is found by a minimizer
//     (Schleimer et al., "Winnowing", 2003): a shift does not hide it;
//   - a text with changed words is found by a band: two values of a MinHash sketch (Broder, 1997;
//     one permutation in 32 bins as Li et al., 2012) that agree.
// Bands find donors of 256 tokens; shorter ones share too little with what slides over the prompt
// and are found by windows and minimizers.
//
// Pure functions of tokens and the tenant's MatchKeys.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "proto/match_key.h"
#include "store/block/near_index.h"

namespace kedge::match {

inline constexpr uint32_t kShingleTokens = 4;     // what sketches are made of
inline constexpr uint32_t kMinimizerTokens = 16;  // the run that a minimizer names
inline constexpr uint32_t kMinimizerSpan = 32;    // one in every so many runs, at least
inline constexpr uint32_t kSketchTokens = 256;    // that a sketch describes
inline constexpr uint32_t kSketchStride = 32;     // between those of a prompt
inline constexpr uint32_t kBands = 16;
inline constexpr uint32_t kBandRows = 2;
inline constexpr uint32_t kSketchValues = kBands * kBandRows;

// hashes[i] of tokens [i, i + width): sum of (token + 1) base^(width - 1 - j), modulo 2^61 - 1.
// Empty when there are fewer tokens, or the width is 0.
std::vector<uint64_t> RollingHashes(std::span<const int32_t> tokens, uint32_t width, uint64_t base);

// Positions of the minimizers: of every `span` consecutive hashes the one that comes first in the
// seed's order (of equal ones the leftmost). With fewer hashes the first of them all; ascending.
std::vector<uint32_t> Minimizers(std::span<const uint64_t> hashes, uint32_t span, uint64_t seed);

// The smallest value in each of 32 bins, over shingles' hashes. An empty bin takes the next one's
// value. `shingles` must not be empty.
using Sketch = std::array<uint64_t, kSketchValues>;
Sketch SketchOf(std::span<const uint64_t> shingles, uint64_t seed);

// Of a donor's span: what is registered in the near index. `tokens` are whole blocks.
std::vector<NearPosting> DonorPostings(std::span<const int32_t> tokens, uint32_t block_tokens,
                                       const MatchKeys& keys);

struct Question {
  MatchId id = 0;
  uint32_t position = 0;  // in the prompt, of the first token that it covers
  uint32_t tokens = 0;    // that it covers
  MatchDomain domain = MatchDomain::kWindow;
};
// Of a prompt: what is asked. No id twice for the same domain and position; an id that stands in
// the prompt many times is asked at its first kRepeatsMax positions only (text of one repeated
// token).
inline constexpr uint32_t kRepeatsMax = 8;
std::vector<Question> PromptQuestions(std::span<const int32_t> prompt, uint32_t block_tokens,
                                      const MatchKeys& keys);

}  // namespace kedge::match
