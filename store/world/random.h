// Chance as an argument: seeded, so that a run can be replayed.
#pragma once

#include <cstdint>

namespace kedge {

// Not for secrets. Not thread-safe.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t Next();                 // uniform over 64 bits
  uint64_t Below(uint64_t bound);  // uniform in [0, bound); bound > 0
  double Unit() { return static_cast<double>(Next() >> 11) * 0x1.0p-53; }
  bool Chance(double probability) { return Unit() < probability; }

 private:
  uint64_t state_;
};

// 64 bits from the operating system, for session and slot ids that must not be guessed.
uint64_t EntropySeed();

}  // namespace kedge
