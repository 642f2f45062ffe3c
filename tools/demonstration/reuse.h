// Fourth part of the demonstration: what agents win from reuse beyond prefixes.
//
// The same five agents (tools/agents/agent_way.h) answer users whom nobody has seen, each call in
// five ways on the same prompt:
//
//     dense    everything computed
//     prefix   the role text, an exact prefix, is taken; what prefix caches do
//     kvcomm   and the user's question and the other agents' messages by offsets, learnt from
//              earlier users, where the gate accepts them; mixed by the node that keeps the anchors
//     dhd      and the same segments moved, a share of their tokens computed anew
//     auto     exact, then offsets, then recomputing, then dense: what Kedge would do by itself
//
// and is asked the same questions about single facts behind each.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/reuse/reuse.h"
#include "tools/demonstration/agents.h"
#include "tools/demonstration/node.h"

namespace kedge {

struct ReuseDemoOptions {
  std::string model;  // a checkpoint with its tokenizer.json
  AgentOptions workload;
  int64_t learnt = 10;  // users whose calls are learnt from, densely
  int64_t requests = 3;
};

// One agent, one way, summed over the requests.
struct ReuseSums {
  int64_t prompt_tokens = 0;
  double ttft_ms = 0;
  std::array<int64_t, kTreatments> tokens{};  // of the prompts, by Treatment
  int64_t reused_tokens = 0;                  // that were not computed through all layers
  int64_t answers = 0;
  int64_t same_answers = 0;  // as dense ones
  Provenance worst = Provenance::kExact;
};

struct ReuseWayFigures {
  std::string name;
  std::vector<ReuseSums> agents;
};

struct ReuseFigures {
  bool node_pools = false;  // anchors lie in the node and are mixed there
  int64_t learnt = 0;
  int64_t requests = 0;
  std::vector<ReuseWayFigures> ways;
};

// Has the checkpoint words to ask in? One with random weights has not.
bool CanReuse(const std::string& model);

// Blocks; shows its progress. Cancelled after Ctrl-C. An embedded node has its one client already:
// pools are in this process then.
absl::StatusOr<ReuseFigures> RunReuse(const DemoNode& node, const ReuseDemoOptions& options);

}  // namespace kedge
