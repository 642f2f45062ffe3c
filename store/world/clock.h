// Time as an argument. Nothing in store/ reads a clock by itself.
#pragma once

#include <atomic>
#include <cstdint>

namespace kedge {

// Monotonic; starts anywhere, never goes back. Any thread.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual int64_t NowUs() const = 0;
  int64_t NowMs() const { return NowUs() / 1000; }
};

class RealClock final : public Clock {
 public:
  int64_t NowUs() const override;
};

// Stands still until told.
class SimulatedClock final : public Clock {
 public:
  int64_t NowUs() const override { return now_us_.load(std::memory_order_relaxed); }
  void AdvanceUs(int64_t us) { now_us_.fetch_add(us, std::memory_order_relaxed); }

 private:
  std::atomic<int64_t> now_us_{1'000'000};
};

}  // namespace kedge
