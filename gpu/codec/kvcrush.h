// KVCrush (arXiv 2503.00022, section 3): a share of what a layer keeps is spent on representatives
// of what it drops.
//
// A token's behaviour is one bit a query head: whether it is in the upper half of that head's
// scores. A page's is its tokens' bits, one after the other. Pages that would be dropped are
// ordered by the Hamming distance of their bits from one anchor, and evenly spaced ones of that
// order are kept: near, far and in between. No clustering, one popcount a word. They are the pages
// as they are, nothing is averaged.
//
// Whole pages only, the important ones too, so that an engine's pages are kept or freed and no
// kernel sees a ragged page. One list a layer, made from the bits of all its heads.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gpu/codec/token_scores.h"

namespace kedge::codec {

// Fewer bits a token cannot tell pages apart.
inline constexpr int64_t kCrushHeadsMin = 8;

enum class CrushAnchor {
  kMean,         // of every bit what most pages have; 0 where they are even
  kAlternating,  // 0101...
  kRandom,       // the same everywhere: from a generator with a fixed seed
};

struct CrushOptions {
  int64_t page_tokens = 16;  // of an engine's pages
  double share = 0.0;        // of the kept pages, spent on representatives; 0 to 1
  CrushAnchor anchor = CrushAnchor::kMean;
};

// A page's bits, 64 a word; bit t * heads + h of its token t.
using PageBits = std::vector<uint64_t>;

// Of pages [first_page, first_page + pages); scores of the tokens outside of them do not count.
std::vector<PageBits> BehaviourBits(const TokenScores& scores, int64_t layer, int64_t page_tokens,
                                    int64_t first_page, int64_t pages);
PageBits AnchorBits(std::span<const PageBits> pages, int64_t bits, CrushAnchor anchor);
int64_t HammingDistance(const PageBits& a, const PageBits& b);

// `count` evenly spaced indices of [0, size), the first and the last among them; the middle one
// where one is asked for. count is at most size.
std::vector<int64_t> EvenlySpaced(int64_t size, int64_t count);

// The positions of a layer that are kept, ascending: exactly `rows`, a multiple of page_tokens. The
// first and the last page are always among them. InvalidArgument names the value: fewer than
// kCrushHeadsMin heads, tokens or rows that are no whole pages, fewer than two pages of rows.
absl::StatusOr<std::vector<int32_t>> CrushedPositions(const TokenScores& scores, int64_t layer,
                                                      int64_t rows, const CrushOptions& options);

}  // namespace kedge::codec
