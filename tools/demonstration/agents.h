// Third part of the demonstration: five fully connected agents (tools/agents/workload.h) on a
// checkpoint, each prompt served without Kedge, with Kedge for the first time, and again by
// another worker with a client of its own. Behind each prompt the agent gives its message, and
// answers questions about single facts, of which it is known what is right.
//
// Kedge reuses exact prefixes here: of an agent that answers another user, the role text; of a
// request that comes again, all of it. All three ways must give the same tokens. Over lossy blocks
// answers are to stay as they are; a long message can go another way wherever the model itself has
// no clear next word (the shipped models do so in one message of four).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tools/agents/workload.h"
#include "tools/demonstration/node.h"
#include "tools/demonstration/serving.h"
#include "tools/worker/worker.h"

namespace kedge {

struct AgentsOptions {
  std::string
      model;  // a checkpoint; with a tokenizer.json, or with the byte tokenizer's 260 tokens
  AgentOptions workload;
  int64_t requests = 3;  // users, one after the other
  std::string variant;   // codec chain to store as; "": raw
};

// What one agent's prompts took, summed over the requests.
struct AgentSums {
  int64_t prompt_tokens = 0;
  double dense_ttft_ms = 0;
  double first_ttft_ms = 0;
  double again_ttft_ms = 0;
  int64_t first_matched_tokens = 0;
  int64_t again_matched_tokens = 0;
  int64_t messages = 0;
  int64_t same_messages = 0;  // equal tokens in all three ways
  int64_t answers = 0;
  int64_t same_answers = 0;
  int64_t right_answers = 0;  // without Kedge; a model with random weights has none
};

struct AgentsFigures {
  std::string model;  // in words
  AgentOptions workload;
  int64_t requests = 0;
  int64_t block_tokens = 0;
  std::vector<AgentSums> agents;
  StoredSums stored;
  std::string sample;   // the last agent's last message; "" where tokens are bytes
  std::string trouble;  // the first there was

  bool same_answers() const;
  bool same_tokens() const;  // of answers and messages
};

// What tools/profile_model made of a checkpoint stands beside it: the gate of lossy variants.
std::string ProfilePath(const std::string& model);

// Reads the model and checks that the workload fits it, and that its profile lets the variant
// through: InvalidArgument, NotFound or PermissionDenied name what does not. Nothing is started.
absl::Status CheckAgents(const AgentsOptions& options);

// Blocks; shows its progress. Cancelled after Ctrl-C.
absl::StatusOr<AgentsFigures> RunAgents(DemoNode& node, const AgentsOptions& options);

}  // namespace kedge
