// What a node counts about requests. Written on the loop, read by any thread. Every label set is
// known from the start, so that a rate over a quiet counter is 0 and not a gap.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "proto/result_code.h"
#include "store/world/histogram.h"
#include "store/world/metrics.h"

namespace kedge {

enum class Op : uint8_t {
  kHello,
  kMatch,
  kGet,
  kPutBegin,
  kPutCommit,
  kRemove,
  kRelease,
  kAnchorInsert,
  kMix,
  kNearInsert,
  kNearLookup
};
inline constexpr int kOpCount = 11;
const char* OpName(Op op);

enum class FrameError : uint8_t { kMalformed, kVersion, kCrc, kBody, kSession, kUnexpected };
inline constexpr int kFrameErrorCount = 6;
const char* FrameErrorName(FrameError error);

class NodeMetrics {
 public:
  using Counter = std::atomic<uint64_t>;
  static void Add(Counter& counter, uint64_t by = 1) {
    counter.fetch_add(by, std::memory_order_relaxed);
  }

  void Request(Op op, ResultCode code, int64_t duration_us) {
    Add(requests_[static_cast<int>(op)][static_cast<int>(code)]);
    durations_[static_cast<int>(op)].ObserveUs(duration_us);
  }
  // One key of a match or a get.
  void Lookup(Op op, ResultCode code, TierId tier);
  void Error(FrameError error) { Add(frame_errors_[static_cast<int>(error)]); }

  void Visit(MetricsVisitor& visitor) const;

  Counter put_blocks{0};  // committed
  Counter put_bytes{0};
  Counter put_existing{0};
  Counter put_mismatches{0};
  Counter puts_abandoned{0};    // dropped by time or by the end of their session
  Counter put_room_waits{0};    // requests that waited for the SSD to make room
  Counter put_room_refused{0};  // blocks that got none
  Counter get_bytes{0};
  Counter chunks_dropped{0};  // for a slot that is not there
  Counter lease_expirations{0};
  Counter leases_refused{0};
  Counter host_damaged{0};  // found by Verify
  Counter near_ids{0};      // looked up
  Counter near_hits{0};
  Counter near_strikes{0};

  std::atomic<uint64_t> sessions{0};
  std::atomic<uint64_t> leases{0};
  std::atomic<uint64_t> leased_blocks{0};
  std::atomic<uint64_t> puts_open{0};
  std::atomic<uint64_t> puts_waiting{0};
  std::atomic<uint64_t> gets_running{0};
  std::atomic<uint64_t> near_donors{0};
  std::atomic<uint64_t> near_bytes{0};
  std::atomic<uint64_t> near_donors_evicted{0};    // counters of the index
  std::atomic<uint64_t> near_postings_dropped{0};  // likewise
  std::atomic<int64_t> last_sweep_ms{0};           // of the node's clock: the loop lives

 private:
  static constexpr int kCodes = kResultCodeMax + 1;
  std::array<std::array<Counter, kCodes>, kOpCount> requests_{};
  std::array<Histogram, kOpCount> durations_;
  std::array<Counter, 2> lookups_{};              // match, get
  std::array<std::array<Counter, 4>, 2> hits_{};  // by tier
  std::array<std::array<Counter, kCodes>, 2> misses_{};
  std::array<Counter, kFrameErrorCount> frame_errors_{};
};

}  // namespace kedge
