// Replays a trace of requests against a Kedge node, as an inference engine would use it: for each
// request match (with a lease), fetch what is held, check every byte, store what is missing.
//
// A block has the true geometry: one hash id of the trace is one block of 512 tokens, cut into
// layers, k and v, as a model's KV is, and its key is chained over the ids. Only layers and heads
// are few, so that the bytes of a whole trace fit a small machine. Requests run one after the
// other, as fast as they can: the trace's timestamps are not waited for. Prefill is not simulated,
// and neither is the KV of generated tokens.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/kv_client.h"
#include "tools/replay/trace_reader.h"

namespace kedge {

struct ReplayOptions {
  // Of one block: 2 (k and v) * layers * kv_heads * head_size * 512 tokens * 2 bytes. 128 KiB here.
  uint32_t layers = 4;
  uint32_t kv_heads = 1;
  uint32_t head_size = 16;
  uint32_t batch_blocks = 128;  // of one fetch or store; up to KEDGE_BATCH_MAX
  uint32_t lease_ms = 30000;
  uint32_t exhausted_retries = 50;  // 10 ms apart, while the node has no room for a store
  // After each request with the number that are done; false ends the replay early. May be empty.
  std::function<bool(uint64_t done)> on_request;
};

// Where the blocks of all requests were found when they were looked for.
struct ReplayHits {
  uint64_t gpu_blocks = 0;
  uint64_t host_blocks = 0;
  uint64_t ssd_blocks = 0;
  uint64_t miss_blocks = 0;

  uint64_t hit_blocks() const { return gpu_blocks + host_blocks + ssd_blocks; }
  uint64_t blocks() const { return hit_blocks() + miss_blocks; }
};

struct ReplaySums {
  uint64_t requests = 0;
  uint64_t input_tokens = 0;  // of all requests, tails shorter than a block included
  uint64_t hit_tokens = 0;
  uint64_t block_bytes = 0;
  ReplayHits hits;
  uint64_t fetched_blocks = 0;
  uint64_t fetched_bytes = 0;     // each of them compared with what it has to be
  uint64_t unfetched_blocks = 0;  // matched, but not delivered
  uint64_t stored_blocks = 0;
  uint64_t stored_bytes = 0;
  uint64_t held_blocks = 0;     // stored again behind a gap: the node had them already
  uint64_t evicted_blocks = 0;  // stored again because the node had let go of them in between
  uint64_t refused_blocks = 0;  // not stored: the node had no room
  double match_seconds = 0;
  double fetch_seconds = 0;  // transfer and verification of digests; the comparison is not in it
  double store_seconds = 0;  // digests, transfer, acknowledgement; making the bytes is not in it

  double fetch_gb_per_second() const;  // 1e9 bytes; 0 when nothing was fetched
  double store_gb_per_second() const;
};

// Blocks. DataLoss naming request, block, part and byte when a fetched byte is wrong; Unavailable
// when the node does not answer; InvalidArgument for options that make no model.
absl::StatusOr<ReplaySums> ReplayTrace(const sdk::Client& client,
                                       std::span<const TraceRequest> trace,
                                       const ReplayOptions& options);

}  // namespace kedge
