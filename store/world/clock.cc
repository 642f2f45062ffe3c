#include "store/world/clock.h"

#include <chrono>

namespace kedge {

int64_t RealClock::NowUs() const {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace kedge
