// What every transport counts. Written on the loop, read by any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <string_view>

#include "store/world/metrics.h"

namespace kedge {

struct TransportCounters {
  std::atomic<uint64_t> messages_sent{0};
  std::atomic<uint64_t> messages_received{0};
  std::atomic<uint64_t> bytes_sent{0};  // heads and payloads, without the wire's own framing
  std::atomic<uint64_t> bytes_received{0};
  std::atomic<uint64_t> sends_refused{0};  // RESOURCE_EXHAUSTED
  std::atomic<uint64_t> connections_opened{0};
  std::atomic<uint64_t> connections_closed{0};
  std::atomic<uint64_t> greetings_refused{0};  // strangers, and peers of another release

  void Sent(uint64_t bytes) { Add(messages_sent, 1), Add(bytes_sent, bytes); }
  void Received(uint64_t bytes) { Add(messages_received, 1), Add(bytes_received, bytes); }
  // One writer: a plain addition, no locked instruction.
  static void Add(std::atomic<uint64_t>& counter, uint64_t by) {
    counter.store(counter.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
  }

  // Label transport="tcp", "shm" or "memory".
  void Visit(std::string_view transport, MetricsVisitor& visitor) const;
};

}  // namespace kedge
