#include "gpu/codec/kvcrush.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "absl/strings/str_cat.h"

namespace kedge::codec {
namespace {

void SetBit(PageBits& bits, int64_t at) { bits[at / 64] |= uint64_t{1} << (at % 64); }
bool HasBit(const PageBits& bits, int64_t at) { return (bits[at / 64] >> (at % 64) & 1) != 0; }

// SplitMix64 (Steele, Lea, Flood 2014).
uint64_t NextRandom(uint64_t& state) {
  uint64_t x = state += 0x9e3779b97f4a7c15;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
  x = (x ^ x >> 27) * 0x94d049bb133111eb;
  return x ^ x >> 31;
}

absl::Status Bad(const char* field, int64_t value, const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat("kvcrush: ", field, ": ", value, " ", why));
}

}  // namespace

std::vector<PageBits> BehaviourBits(const TokenScores& scores, int64_t layer, int64_t page_tokens,
                                    int64_t first_page, int64_t pages) {
  const int64_t words = (page_tokens * scores.heads + 63) / 64;
  std::vector<PageBits> bits(pages, PageBits(words));
  const int64_t tokens = pages * page_tokens;
  for (int64_t head = 0; head < scores.heads; ++head) {
    const std::span<const float> all = scores.of(layer, head);
    const auto begin = all.begin() + first_page * page_tokens;
    const std::vector<double> values(begin, begin + tokens);
    const std::vector<int32_t> order = Ranked(values);
    for (int64_t rank = 0; rank < tokens / 2; ++rank) {
      const int64_t t = order[rank];
      SetBit(bits[t / page_tokens], t % page_tokens * scores.heads + head);
    }
  }
  return bits;
}

PageBits AnchorBits(std::span<const PageBits> pages, int64_t bits, CrushAnchor anchor) {
  PageBits result((bits + 63) / 64);
  uint64_t state = 0;
  for (int64_t at = 0; at < bits; ++at) {
    bool set = false;
    switch (anchor) {
      case CrushAnchor::kMean:
        set = 2 * std::count_if(pages.begin(), pages.end(),
                                [&](const PageBits& page) { return HasBit(page, at); }) >
              static_cast<int64_t>(pages.size());
        break;
      case CrushAnchor::kAlternating:
        set = at % 2 == 1;
        break;
      case CrushAnchor::kRandom:
        set = NextRandom(state) >> 63 != 0;
        break;
    }
    if (set) SetBit(result, at);
  }
  return result;
}

int64_t HammingDistance(const PageBits& a, const PageBits& b) {
  int64_t distance = 0;
  for (size_t i = 0; i < a.size(); ++i) distance += std::popcount(a[i] ^ b[i]);
  return distance;
}

std::vector<int64_t> EvenlySpaced(int64_t size, int64_t count) {
  if (count == 1) return {(size - 1) / 2};
  std::vector<int64_t> indices;
  for (int64_t i = 0; i < count; ++i)
    indices.push_back((2 * i * (size - 1) + count - 1) / (2 * (count - 1)));  // to the nearest
  return indices;
}

absl::StatusOr<std::vector<int32_t>> CrushedPositions(const TokenScores& scores, int64_t layer,
                                                      int64_t rows, const CrushOptions& options) {
  const int64_t page = options.page_tokens;
  const std::string in_pages = absl::StrCat("is no whole number of pages of ", page);
  if (scores.heads < kCrushHeadsMin) {
    return Bad("heads", scores.heads,
               absl::StrCat("give fewer bits a token than ", kCrushHeadsMin));
  }
  if (scores.tokens % page != 0) return Bad("tokens", scores.tokens, in_pages);
  if (rows % page != 0 || rows > scores.tokens) return Bad("rows", rows, in_pages);
  const int64_t pages = scores.tokens / page;
  const int64_t keep = rows / page;
  if (keep < std::min<int64_t>(2, pages))
    return Bad("rows", rows, "has no room for the first and the last page");

  // The pages between the first and the last.
  const int64_t middle = std::max<int64_t>(0, pages - 2);
  const int64_t wanted = std::llround(options.share * static_cast<double>(keep));
  const int64_t representatives =
      std::clamp<int64_t>(wanted, 0, keep - std::min<int64_t>(2, pages));
  const int64_t important = keep - std::min<int64_t>(2, pages) - representatives;
  const std::vector<double> importance = LayerImportance(scores, layer);
  std::vector<double> page_importance(middle);
  for (int64_t i = 0; i < middle; ++i) {
    const auto begin = importance.begin() + (i + 1) * page;
    page_importance[i] = std::accumulate(begin, begin + page, 0.0);
  }
  const std::vector<int32_t> order = Ranked(page_importance);
  std::vector<int64_t> kept = {0, pages - 1};
  for (int64_t i = 0; i < important; ++i) kept.push_back(order[i] + 1);

  if (representatives > 0) {
    const std::vector<PageBits> bits = BehaviourBits(scores, layer, page, 1, middle);
    const PageBits anchor = AnchorBits(bits, page * scores.heads, options.anchor);
    std::vector<int32_t> others(order.begin() + important, order.end());
    std::sort(others.begin(), others.end());
    std::stable_sort(others.begin(), others.end(), [&](int32_t a, int32_t b) {
      return HammingDistance(bits[a], anchor) < HammingDistance(bits[b], anchor);
    });
    for (const int64_t i : EvenlySpaced(static_cast<int64_t>(others.size()), representatives))
      kept.push_back(others[i] + 1);
  }
  std::sort(kept.begin(), kept.end());
  kept.erase(std::unique(kept.begin(), kept.end()), kept.end());  // one page is first and last
  std::vector<int32_t> positions;
  for (const int64_t which : kept) {
    for (int64_t t = 0; t < page; ++t) positions.push_back(static_cast<int32_t>(which * page + t));
  }
  return positions;
}

}  // namespace kedge::codec
