// The yardstick of the wire: `ucx_perftest` (Debian's ucx-utils), a server and a client process on
// loopback, pinned to two cores.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace kedge::bench {

struct PerftestCase {
  std::string test;     // "ucp_put_bw", "tag_bw", "ucp_am_bw", "ucp_get", "tag_lat", "ucp_am_lat"
  std::string segment;  // UCX_TCP_TX_SEG_SIZE and RX, e.g. "256k"; empty: UCX's default
  std::string tls = "tcp";
  size_t bytes = 0;  // of one message
  int iterations = 0;

  std::string Name() const;  // "ucp_put_bw, 256k segments"
};

struct PerftestResult {
  double bytes_per_second = 0;
  double latency_us = 0;  // half a round trip in the *_lat tests
};

// A TCP port of 127.0.0.1 that was free a moment ago.
int FreePort();

absl::StatusOr<PerftestResult> RunPerftest(const PerftestCase& perftest);

// The fastest of all tests and segment sizes for messages of `bytes` over tcp; tries each of them
// once.
absl::StatusOr<PerftestCase> BestTcpBandwidth(size_t bytes, int iterations);
// The shortest round trip of `bytes`, likewise.
absl::StatusOr<PerftestCase> BestTcpLatency(size_t bytes, int iterations);

}  // namespace kedge::bench
