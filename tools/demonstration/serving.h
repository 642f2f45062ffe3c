// First half of the demonstration: real questions behind shared instructions, answered by workers
// with and without Kedge.
//
// Each question is answered three times: by a worker without Kedge (dense), by a worker with Kedge
// that has not seen it (first), and, after all of them, by another worker with a client of its own
// (again). All three must give the same tokens. Blocks are raw, whatever the policy: weights that
// are random have no quality that a profile could have measured, so the gate lets nothing lossy
// through.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gpu/model/model_config.h"
#include "tools/demonstration/node.h"
#include "tools/worker/worker.h"

namespace kedge {

struct ServingOptions {
  std::string directory;  // for the checkpoint
  std::string instructions;
  std::vector<std::string> questions;
  int64_t answer_tokens = 16;
};

// Blocks that the node acknowledged, and what they take.
struct StoredSums {
  std::string variant = "raw";
  int64_t blocks = 0;
  int64_t bytes = 0;      // as they are stored
  int64_t raw_bytes = 0;  // as the engine had them

  void Add(const Served& served, int64_t block_bytes) {
    blocks += served.stored_blocks;
    bytes += static_cast<int64_t>(served.stored_bytes);
    raw_bytes += served.stored_blocks * block_bytes;
  }
};

struct ServedQuestion {
  Served dense;
  Served first;
  Served again;

  bool same_tokens() const { return dense.tokens == first.tokens && dense.tokens == again.tokens; }
};

struct ServingFigures {
  std::string model;  // in words
  int64_t parameters = 0;
  int64_t block_tokens = 0;
  int64_t block_bytes = 0;
  int64_t instruction_tokens = 0;
  std::vector<ServedQuestion> questions;
  StoredSums stored;

  // The sum of one figure over the questions, for one of the three ways:
  // Sum(&ServedQuestion::again, &Served::ttft_ms).
  template <typename T>
  T Sum(Served ServedQuestion::*way, T Served::*figure) const {
    T sum = 0;
    for (const ServedQuestion& question : questions) sum += (question.*way).*figure;
    return sum;
  }
  bool same_tokens() const;
};

// The model that answers: random weights of this seed, a few million of them, tokens are bytes.
ModelConfig DemoModel();
inline constexpr uint64_t kDemoSeed = 7;

// Blocks; shows its progress. Cancelled after Ctrl-C.
absl::StatusOr<ServingFigures> ServeQuestions(DemoNode& node, const ServingOptions& options);

}  // namespace kedge
