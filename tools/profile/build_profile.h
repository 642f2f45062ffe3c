// Makes a model's profile: runs samples through the reference runner, fits bases and tables, and
// measures what every chain loses.
//
// Two steps, because the second needs what the first made: BuildProfile fits (no gate: such a
// profile admits nothing but raw), WithGate measures and adds the records.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/model_profile.h"
#include "tests/quality/eval_context.h"
#include "tests/quality/eval_model.h"

namespace kedge::profile {

struct ProfileOptions {
  // Which operating points: `archive3` aims at 3 bits a value, and so on.
  std::vector<std::string> archives;
  std::vector<std::string> kivi;  // chains of KIVI that get entropy tables: `kivi2g32`
  int64_t tokens_max = 24000;     // that bases and tables are fitted to
  int64_t questions = 4;          // of each context that are sampled for their queries
  int64_t probe_contexts = 4;     // of each task, for sensitivities; 0: all parts alike
  double probe_share = 0.1;       // of a part's energy that the probe takes away
  // That layer budgets and query statistics are learned from; 0: neither is in the profile, which
  // then has no pruned chain.
  int64_t prune_contexts = 16;
};

// The defaults, with the operating points and tables that these chains need, and no others.
// InvalidArgument names a chain that is of no grammar.
absl::StatusOr<ProfileOptions> OptionsFor(const std::vector<std::string>& chains);

using Progress = std::function<void(const std::string& what)>;

// `tasks` are calibration contexts, of all that the model will be asked. `weights_id` names the
// weights, and what was done to them (the twin). A function of its arguments: the same model and
// samples give the same bytes, on any number of runners.
absl::StatusOr<ModelProfile> BuildProfile(const quality::EvalModel& model,
                                          const std::string& weights_id,
                                          std::vector<quality::Runner>& runners,
                                          const std::vector<quality::EvalTask>& tasks,
                                          const ProfileOptions& options, const Progress& progress);

// A chain and what it may lose: `points` in the mean over tasks, twice that on each of them. Where
// a task is plain text: nats a token times 100.
struct GateBar {
  std::string chain;
  double points = 1.0;
};

// The same profile with records of these chains on `tasks`, which are not those that it was built
// from. A record passes when what was lost is at most its bar. A chain that cannot encode this
// model's KV (a group that does not divide its head size, too few heads for kvcrush) has no record,
// and so is refused; `progress` is told why.
// Ways of reuse are measured like chains ("kvcomm", "cacheblend0.15@3", "auto"), where samples have
// fillings; what learns from a consumer's past learns from `learnt`, tasks of the same names with
// other contexts.
absl::StatusOr<ModelProfile> WithGate(const ModelProfile& profile,
                                      std::vector<quality::Runner>& runners,
                                      const std::vector<quality::EvalTask>& tasks,
                                      const std::vector<GateBar>& bars, const Progress& progress,
                                      const std::vector<quality::EvalTask>* learnt = nullptr);

}  // namespace kedge::profile
