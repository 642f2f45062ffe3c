// An inference worker that reuses KV through Kedge: the walk that an engine makes for each prompt.
//
//   match     the longest run of the prompt's blocks that the node holds, leased
//   fetch     those blocks, layer by layer, straight into the sequence's KV cache
//   prefill   the rest of the prompt, in chunks that end at block borders; its layers wait for the
//             fetched layers, so transfer and arithmetic run side by side
//   store     the blocks that were computed, part by part while the prefill runs; committed after
//             the first token
//   release   the lease
//   decode    greedily
//
// With `variant` blocks are stored as that codec chain and taken as `raw` or that; what was fetched
// lossy makes what is computed over it lossy too, and the SDK lets it be stored as that chain only.
//
// The last prompt token is always computed: its logits choose the first new token. Whatever goes
// wrong between worker and node costs time, never the answer: what did not arrive is computed.
//
// Threads: one call of one Worker at a time; Workers on one Model must take turns as well.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/kv_client.h"
#include "gpu/model/model.h"

namespace kedge {

struct WorkerOptions {
  std::string weights_id;    // part of the fingerprint: the same for the same weights only
  std::string tokenizer_id;  // likewise
  bool store = true;         // false: read only
  bool overlap = true;       // false: the prefill starts when the fetch has ended
  bool keep_logits = false;  // fill Served::logits
  uint32_t layer_group = 1;  // layers that arrive together
  uint32_t lease_ms = 10000;
  uint32_t deadline_ms = 0;  // of each request to the node; 0: the client's
  sdk::Durability durability = sdk::Durability::kDefault;
  std::string variant;  // codec chain, e.g. "kivi4g32"; "": raw only
  // The gate for it: the model's profile, a file; or the word that there need be none.
  std::string profile;
  bool allow_unprofiled = false;
  std::function<void()> after_match;  // called before the fetch begins; may be empty
};

// One prompt's answer, and what it took.
struct Served {
  std::vector<int32_t> tokens;  // the answer, greedy
  std::vector<Logits> logits;   // that chose each of them; with keep_logits only

  int64_t prompt_tokens = 0;
  int64_t matched_tokens = 0;       // held by the node
  uint32_t matched_blocks_ssd = 0;  // of them, blocks that were on the SSD only
  int64_t fetched_tokens = 0;       // arrived whole and verified, and were used
  int64_t computed_tokens = 0;      // by the prefill
  uint64_t fetched_bytes = 0;
  uint64_t stored_bytes = 0;   // as they are stored
  uint32_t lossy_blocks = 0;   // of those matched
  uint32_t stored_blocks = 0;  // acknowledged; those that the node held already are not in it

  double match_ms = 0;  // making the names, and the round trip
  double fetch_ms = 0;  // from the request until the last layer was there; overlaps the prefill
  double ttft_ms = 0;   // from the call until the first token was chosen
  double total_ms = 0;  // until the last one was, and the store was acknowledged

  std::string trouble;  // why KV was not fetched or stored as it should; "" when it was
};

class Worker {
 public:
  // `client` null: a worker without Kedge, every prefill is dense. Model and client must outlive
  // the worker. InvalidArgument when the model's geometry makes no blocks.
  static absl::StatusOr<std::unique_ptr<Worker>> Create(Model& model, const sdk::Client* client,
                                                        const WorkerOptions& options);

  // Blocks until the answer is there. At least one prompt token and one new token; both together at
  // most the model's max_positions. Errors are those of the model; the node's are in `trouble`.
  absl::StatusOr<Served> Serve(std::span<const int32_t> prompt, int64_t max_new_tokens);

 private:
  struct Journey;  // one prompt on its way

  Worker(Model& model, std::optional<sdk::Model> blocks, const WorkerOptions& options);

  void Match(Journey& journey);
  void BeginFetch(Journey& journey);
  // The prompt's last logits: over the blocks that arrive, or without them if they do not.
  absl::StatusOr<Logits> Prefill(Journey& journey);
  absl::StatusOr<Logits> PrefillOver(Journey& journey, uint32_t blocks, bool wait);
  absl::Status Decode(Journey& journey, Logits logits, int64_t max_new_tokens);

  Model& model_;
  std::optional<sdk::Model> blocks_;  // the model's blocks in the store; nothing without Kedge
  const WorkerOptions options_;
  std::vector<std::string> accepted_;  // variants; none: any lossless one
};

}  // namespace kedge
