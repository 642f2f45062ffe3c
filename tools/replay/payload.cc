#include "tools/replay/payload.h"

#include <cstring>

namespace kedge {
namespace {

// SplitMix64 (Steele, Lea and Flood, 2014): the n-th word is a mix of seed + n * golden ratio.
constexpr uint64_t kGolden = 0x9e3779b97f4a7c15ull;

uint64_t Mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

uint64_t Seed(uint64_t hash_id, uint32_t part) { return Mix(Mix(hash_id + kGolden) + part); }

}  // namespace

void FillPart(uint64_t hash_id, uint32_t part, std::span<uint8_t> bytes) {
  uint64_t state = Seed(hash_id, part);
  for (size_t at = 0; at < bytes.size(); at += 8) {
    uint64_t word = Mix(state += kGolden);
    std::memcpy(bytes.data() + at, &word, bytes.size() - at < 8 ? bytes.size() - at : 8);
  }
}

std::optional<uint64_t> FirstWrongByte(uint64_t hash_id, uint32_t part,
                                       std::span<const uint8_t> bytes) {
  uint64_t state = Seed(hash_id, part);
  for (size_t at = 0; at < bytes.size(); at += 8) {
    uint8_t word[8];
    uint64_t expected = Mix(state += kGolden);
    std::memcpy(word, &expected, 8);
    size_t count = bytes.size() - at < 8 ? bytes.size() - at : 8;
    if (std::memcmp(word, bytes.data() + at, count) == 0) continue;
    for (size_t i = 0;; ++i)
      if (word[i] != bytes[at + i]) return at + i;
  }
  return std::nullopt;
}

}  // namespace kedge
