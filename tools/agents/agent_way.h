// Fully connected agents (workload.h) and what can be reused of their prompts: what each way of
// reuse does with them, and how long the first token takes. For tools/bench reuse and the
// demonstration.
//
// Every agent's role text is an exact prefix that was seen before; the question is a canonical
// base, computed after the first agent's call in idle time, so that the first agent computes it
// densely and the others find it; messages have produced bases, cut from the decode of the agent
// that wrote them. Messages are those of dense agents, so that all
// ways read the same prompts.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/reuse/local_pools.h"
#include "client/reuse/reuse_runner.h"
#include "gpu/model/kv_span.h"
#include "gpu/model/model.h"
#include "tools/agents/workload.h"

namespace kedge {

// Of this thread, which does all of it where the model has one thread: what others do on the same
// cores is not in it. Else of the clock on the wall.
double Seconds(bool one_thread);

// One agent's call.
struct AgentTurn {
  int64_t request = 0;
  int64_t agent = 0;
  AgentPrompt prompt;
  std::vector<AgentPrompt> asked;                       // the same with a question about one fact
  std::vector<std::vector<int32_t>> answers;            // and what is right
  std::vector<std::shared_ptr<const KvSpan>> produced;  // [message]
};

// Of `requests` users from `first` on. With `decode` messages are what the model says, else words
// by chance with KV by chance: for time alone.
absl::StatusOr<std::vector<AgentTurn>> MakeTurns(Model& model, const AgentWorkload& workload,
                                                 int64_t first, int64_t requests, bool decode);

// Ways of reuse, by name: "dense", "prefix", "kvcomm", "kvcomm-nogate" (whatever can be calculated
// is accepted), "linear", "cacheblend", "dhd", "auto".
struct WayOptions {
  std::string name;
  bool gate_off = false;
  RecomputeConfig recompute;
  ReuseRates rates;
  OffsetPools* pools = nullptr;  // must outlive the way; null: pools of its own, in this process
};

struct TurnResult {
  double seconds = 0;  // to the first token
  ReuseDecision decision;
  double operations = 0;
  int64_t bases_computed = 0;
  int32_t token = 0;  // the first
};

// One way, with pools of its own.
class AgentWay {
 public:
  AgentWay(Model& model, const AgentWorkload& workload, const WayOptions& options);

  const std::string& name() const { return options_.name; }
  // Not where they are the caller's.
  const LocalPools& own_pools() const { return *own_pools_; }
  ReuseRunner& runner() { return *runner_; }

  // Role texts become exact prefixes.
  absl::Status Prepare(const std::vector<AgentTurn>& turns);
  // As if the question was never seen.
  void Forget(const AgentTurn& turn);
  // `treatments` of another model's decision, by segment: done again here; null: decided here.
  absl::StatusOr<TurnResult> Run(const AgentTurn& turn, const AgentPrompt& prompt,
                                 const std::vector<Treatment>* treatments = nullptr);
  // What an idle worker does after a call: bases that the next agents will look for. Seconds.
  absl::StatusOr<double> Idle(const AgentTurn& turn);
  // What is answered to the questions behind the prompt, and whether that is right: [fact].
  absl::StatusOr<std::vector<std::vector<int32_t>>> Said(const AgentTurn& turn);
  absl::StatusOr<std::vector<bool>> Answers(const AgentTurn& turn);
  absl::Status Learn(const AgentTurn& turn);
  // Anchors by chance for every placeholder of the turns, `count` each: for time alone.
  absl::Status LearnRandom(const std::vector<AgentTurn>& turns, int64_t count);

  // The prompt as offsets see it; the turn must outlive it.
  OffsetPrompt PromptOf(const AgentTurn& turn, const AgentPrompt& prompt) const;

 private:
  absl::StatusOr<KvCache> StartOf(const AgentTurn& turn, const AgentPrompt& prompt) const;

  Model& model_;
  const WayOptions options_;
  const int64_t exact_tokens_;                                  // whole blocks of the role text
  std::map<int64_t, std::shared_ptr<const KvCache>> prefixes_;  // by agent
  std::unique_ptr<LocalPools> own_pools_;
  OffsetPools* pools_;
  std::unique_ptr<ReuseRunner> runner_;
};

}  // namespace kedge
