#include "store/world/random.h"

#include <errno.h>
#include <sys/random.h>

#include "absl/base/internal/raw_logging.h"

namespace kedge {

// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014):
// 64 bits of state, every seed is a good one, and all 2^64 values come before any repeats.
uint64_t Random::Next() {
  uint64_t z = (state_ += 0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

uint64_t Random::Below(uint64_t bound) {
  ABSL_RAW_CHECK(bound > 0, "Random::Below: bound is 0");
  // Values past the last whole multiple of `bound` would favour small results.
  const uint64_t threshold = (0 - bound) % bound;  // 2^64 mod bound
  uint64_t value = Next();
  while (value < threshold) value = Next();
  return value % bound;
}

uint64_t EntropySeed() {
  uint64_t seed = 0;
  ssize_t got = -1;
  // Below 256 bytes the kernel gives all or nothing; EINTR only before it has enough entropy.
  do {
    got = getrandom(&seed, sizeof seed, 0);
  } while (got < 0 && errno == EINTR);
  ABSL_RAW_CHECK(got == sizeof seed, "getrandom failed");
  return seed;
}

}  // namespace kedge
