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
  std::vector<std::string> archives = {"archive4",   "archive3", "archive2",
                                       "archive1.5", "archive1", "archive0.75"};
  // Chains of KIVI that get tables.
  std::vector<std::string> kivi = {"kivi2g32", "kivi4g32", "kivi2g64", "had+kivi2g32"};
  int64_t tokens_max = 24000;  // that bases and tables are fitted to
  int64_t questions = 4;       // of each context that are sampled for their queries
  int64_t probe_contexts = 4;  // of each task, for sensitivities; 0: all parts alike
  double probe_share = 0.1;    // of a part's energy that the probe takes away
};

using Progress = std::function<void(const std::string& what)>;

// `tasks` are calibration contexts, of all that the model will be asked. `weights_id` names the
// weights, and what was done to them (the twin).
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
// from. A record passes when what was lost is at most its bar.
absl::StatusOr<ModelProfile> WithGate(const ModelProfile& profile,
                                      std::vector<quality::Runner>& runners,
                                      const std::vector<quality::EvalTask>& tasks,
                                      const std::vector<GateBar>& bars, const Progress& progress);

}  // namespace kedge::profile
