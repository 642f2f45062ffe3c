// Answers for tools/bench reuse: the gate, `auto` on a frozen mix, ablations.
//
// gate      One stream in which calls that offsets can repair (role) and calls that they cannot
//           (alias, ditto, carry) come in turn, with thresholds as they are by default, which were
//           chosen on calibration seeds.
//             gate/...         the same consumers and placeholder ids for all: fillings of the
//             other
//                              tasks stand in role's templates, and pools learn from both kinds
//             gate/by-task/... consumers of their own, as the tasks have them
//           A call is wrongly accepted when something of it was corrected and an answer is lost
//           that dense gets right; repairable when nothing is lost with the gate off.
// auto      Points lost and tokens reused on the contexts that tests/quality/mix names.
// ablations kvcomm on role without its parts, by number of anchors and in other orders of learning;
//           linear beside it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tests/quality/eval_context.h"
#include "tests/quality/eval_model.h"
#include "tests/quality/evaluate.h"
#include "tools/benchmarks/measure.h"

namespace kedge::bench {

class ReuseQuality {
 public:
  ReuseQuality(const quality::EvalModel& eval, std::string generator, std::string scratch,
               int threads, bool quick, Reporter& reporter)
      : eval_(eval),
        generator_(std::move(generator)),
        scratch_(std::move(scratch)),
        threads_(threads),
        quick_(quick),
        reporter_(reporter) {}

  // Generates the tasks and loads the model.
  absl::Status Prepare();
  absl::Status Gate();
  // InvalidArgument when the named contexts are not those that the mix was made of.
  absl::Status Auto(const std::string& mix_file);
  absl::Status Ablations();

 private:
  struct Call;

  absl::StatusOr<quality::EvalTask> Read(const std::string& split, const std::string& task,
                                         int64_t contexts) const;
  absl::Status GateOn(const std::string& name, const std::vector<quality::EvalContext>& learnt,
                      const std::vector<quality::EvalContext>& asked);
  // Points lost, KL and shares of these policies on one task.
  absl::Status Judge(const quality::EvalTask& task, const std::vector<std::string>& policies,
                     const std::vector<quality::EvalContext>& calibration,
                     const std::string& prefix, double* lost = nullptr);

  const quality::EvalModel& eval_;
  const std::string generator_;
  const std::string scratch_;
  const int threads_;
  const bool quick_;
  Reporter& reporter_;
  std::vector<quality::Runner> runners_;
};

}  // namespace kedge::bench
