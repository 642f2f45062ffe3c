#include "client/match/fingerprints.h"

#include <algorithm>

#include "absl/base/internal/raw_logging.h"
#include "absl/container/flat_hash_map.h"

namespace kedge::match {
namespace {

constexpr uint64_t kPrime = (uint64_t{1} << 61) - 1;

uint64_t Reduce(uint64_t value) {
  value = (value & kPrime) + (value >> 61);
  return value >= kPrime ? value - kPrime : value;
}
uint64_t Multiply(uint64_t a, uint64_t b) {
  const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
  return Reduce(static_cast<uint64_t>(product & kPrime) + static_cast<uint64_t>(product >> 61));
}
uint64_t Digit(int32_t token) { return uint64_t{static_cast<uint32_t>(token)} + 1; }

// Order of hashes under a seed: the hash alone would favour the same texts everywhere.
uint64_t Rank(uint64_t hash, uint64_t seed) {
  uint64_t value = hash ^ seed;
  value = (value ^ value >> 32) * 0x9fb21c651e98df25;
  return value ^ value >> 28;
}

MatchId BandId(const Sketch& sketch, uint32_t band, const MatchKeys& keys) {
  return keys.Id(MatchDomain::kBand, static_cast<uint8_t>(band), sketch[kBandRows * band],
                 sketch[kBandRows * band + 1]);
}

// Begins of the sketches over `count` tokens, one every `stride`, the last one at the end.
std::vector<uint32_t> SketchBegins(uint32_t count, uint32_t stride) {
  std::vector<uint32_t> begins;
  if (count < kShingleTokens) return begins;
  const uint32_t last = count > kSketchTokens ? count - kSketchTokens : 0;
  for (uint32_t at = 0; at < last; at += stride) begins.push_back(at);
  begins.push_back(last);
  return begins;
}

std::span<const uint64_t> ShinglesAt(std::span<const uint64_t> shingles, uint32_t begin) {
  const size_t count = kSketchTokens - kShingleTokens + 1;
  return shingles.subspan(begin, std::min(count, shingles.size() - begin));
}

}  // namespace

std::vector<uint64_t> RollingHashes(std::span<const int32_t> tokens, uint32_t width,
                                    uint64_t base) {
  std::vector<uint64_t> hashes;
  if (width == 0 || tokens.size() < width) return hashes;
  hashes.reserve(tokens.size() - width + 1);
  uint64_t power = 1;  // base^(width - 1), of the token that leaves
  for (uint32_t i = 1; i < width; ++i) power = Multiply(power, base);
  uint64_t hash = 0;
  for (uint32_t i = 0; i < width; ++i) hash = Reduce(Multiply(hash, base) + Digit(tokens[i]));
  hashes.push_back(hash);
  for (size_t i = width; i < tokens.size(); ++i) {
    hash = Reduce(hash + kPrime - Multiply(power, Digit(tokens[i - width])));
    hash = Reduce(Multiply(hash, base) + Digit(tokens[i]));
    hashes.push_back(hash);
  }
  return hashes;
}

std::vector<uint32_t> Minimizers(std::span<const uint64_t> hashes, uint32_t span, uint64_t seed) {
  ABSL_RAW_CHECK(span > 0, "minimizers of an empty span");
  std::vector<uint32_t> positions;
  std::vector<uint64_t> ranks(hashes.size());
  for (size_t i = 0; i < hashes.size(); ++i) ranks[i] = Rank(hashes[i], seed);
  const size_t width = std::min<size_t>(span, hashes.size());
  size_t best = 0;
  for (size_t i = 0; i < hashes.size(); ++i) {
    if (i > best && i - best >= width) {  // the best one has left: look at the whole span again
      best = i - width + 1;
      for (size_t j = best + 1; j <= i; ++j) {
        if (ranks[j] < ranks[best]) best = j;
      }
    } else if (ranks[i] < ranks[best]) {
      best = i;
    }
    if (i + 1 < width) continue;
    if (positions.empty() || positions.back() != best) {
      positions.push_back(static_cast<uint32_t>(best));
    }
  }
  return positions;
}

Sketch SketchOf(std::span<const uint64_t> shingles, uint64_t seed) {
  ABSL_RAW_CHECK(!shingles.empty(), "a sketch of nothing");
  Sketch sketch;
  sketch.fill(UINT64_MAX);
  for (uint64_t shingle : shingles) {
    // The bin from the low bits, the order from all of them.
    const uint64_t rank = Rank(shingle, seed) * 0x9e3779b97f4a7c15 >> 1;
    uint64_t& bin = sketch[rank % kSketchValues];
    bin = std::min(bin, rank);
  }
  const Sketch found = sketch;
  for (uint32_t i = 0; i < kSketchValues; ++i) {
    for (uint32_t step = 1; sketch[i] == UINT64_MAX; ++step) {
      sketch[i] = found[(i + step) % kSketchValues];
    }
  }
  return sketch;
}

std::vector<NearPosting> DonorPostings(std::span<const int32_t> tokens, uint32_t block_tokens,
                                       const MatchKeys& keys) {
  ABSL_RAW_CHECK(block_tokens > 0 && tokens.size() % block_tokens == 0, "a donor has whole blocks");
  std::vector<NearPosting> postings;
  for (size_t block = 0; block * block_tokens < tokens.size(); ++block) {
    if (block > UINT8_MAX) break;  // its number is a hint of 8 bits
    const std::span<const int32_t> window = tokens.subspan(block * block_tokens, block_tokens);
    const uint64_t hash = RollingHashes(window, block_tokens, keys.hash_base())[0];
    postings.push_back({keys.Id(MatchDomain::kWindow, 0, hash), static_cast<uint8_t>(block)});
  }
  const std::vector<uint64_t> runs = RollingHashes(tokens, kMinimizerTokens, keys.hash_base());
  for (uint32_t at : Minimizers(runs, kMinimizerSpan, keys.order_seed())) {
    postings.push_back({keys.Id(MatchDomain::kMinimizer, 0, runs[at])});
  }
  const std::vector<uint64_t> shingles = RollingHashes(tokens, kShingleTokens, keys.hash_base());
  for (uint32_t at : SketchBegins(static_cast<uint32_t>(tokens.size()), kSketchTokens)) {
    const Sketch sketch = SketchOf(ShinglesAt(shingles, at), keys.order_seed());
    for (uint32_t band = 0; band < kBands; ++band) postings.push_back({BandId(sketch, band, keys)});
  }
  return postings;
}

std::vector<Question> PromptQuestions(std::span<const int32_t> prompt, uint32_t block_tokens,
                                      const MatchKeys& keys) {
  ABSL_RAW_CHECK(block_tokens > 0, "a block holds tokens");
  std::vector<Question> questions;
  absl::flat_hash_map<MatchId, uint32_t> repeats;
  repeats.reserve(prompt.size() * 2);
  const auto ask = [&](MatchId id, uint32_t position, uint32_t tokens, MatchDomain domain) {
    if (repeats[id]++ < kRepeatsMax) questions.push_back({id, position, tokens, domain});
  };
  const std::vector<uint64_t> windows = RollingHashes(prompt, block_tokens, keys.hash_base());
  for (uint32_t at = 0; at < windows.size(); ++at) {
    ask(keys.Id(MatchDomain::kWindow, 0, windows[at]), at, block_tokens, MatchDomain::kWindow);
  }
  const std::vector<uint64_t> runs = RollingHashes(prompt, kMinimizerTokens, keys.hash_base());
  for (uint32_t at : Minimizers(runs, kMinimizerSpan, keys.order_seed())) {
    ask(keys.Id(MatchDomain::kMinimizer, 0, runs[at]), at, kMinimizerTokens,
        MatchDomain::kMinimizer);
  }
  const std::vector<uint64_t> shingles = RollingHashes(prompt, kShingleTokens, keys.hash_base());
  for (uint32_t at : SketchBegins(static_cast<uint32_t>(prompt.size()), kSketchStride)) {
    const std::span<const uint64_t> own = ShinglesAt(shingles, at);
    const Sketch sketch = SketchOf(own, keys.order_seed());
    const uint32_t tokens = static_cast<uint32_t>(own.size()) + kShingleTokens - 1;
    for (uint32_t band = 0; band < kBands; ++band) {
      // Neighbouring sketches often share a band: asked once.
      const MatchId id = BandId(sketch, band, keys);
      if (repeats[id]++ == 0) questions.push_back({id, at, tokens, MatchDomain::kBand});
    }
  }
  return questions;
}

}  // namespace kedge::match
