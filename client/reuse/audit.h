// Do accepted offsets still answer as dense prefill does? A sample of them is computed both ways,
// away from the request, and a sequential test for each pool says when it is no longer trusted.
//
// A gate looks at offsets; this looks at answers. Of the accepted calls of a placeholder and
// consumer a share of 2 to 5% is audited: dense KV of the same prompt, the distribution of the
// first answer token from both, KL and whether the token is the same. An outcome is *bad* when the
// token differs or the KL passes a bar. Bad shares are told apart by Page's cumulative sum
// (Biometrika 41, 1954) of log likelihood ratios, `unacceptable` against `tolerated`: never below
// zero, so that a good past does not hide a change.
//
// A pool that is suspended is computed densely; a share of these calls is probed the same way (the
// corrected KV is computed beside the dense one, for the comparison only), and it is trusted again
// once good outcomes have taken the sum back to zero.
//
// Pure: no clock, no thread of its own. Which calls are audited follows from seed, pool and the
// number of its calls alone. Thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <span>

#include "gpu/offset/anchor.h"

namespace kedge {

struct AuditOptions {
  double rate = 0.03;          // of accepted calls; 0.02 to 0.05 is meant
  double probe_rate = 0.2;     // of calls of suspended pools
  double kl_bar = 0.1;         // nats, of the first answer token
  double tolerated = 0.025;    // share of bad outcomes that is fine
  double unacceptable = 0.15;  // share that is to be found
  // The sum at which a pool is suspended. 3.5: of trusted pools with tolerated answers one in some
  // 500 audits is suspended wrongly; one with unacceptable answers is found after about 10.
  double threshold = 3.5;
  uint64_t seed = 1;
};

// What to do with a call that the gate accepts.
struct AuditTurn {
  bool trusted = true;  // else it is computed densely
  bool audit = false;   // Note is told how it would have been otherwise
};

struct AuditOutcome {
  double kl = 0;             // of dense from corrected, first answer token; nats
  bool same_answer = false;  // the likeliest token is the same
};

// From the logits of the first answer token, both of one vocabulary; what is not a number is a bad
// outcome. Aborts when the sizes differ.
AuditOutcome CompareAnswers(std::span<const float> dense, std::span<const float> corrected);

class OffsetAudit {
 public:
  // InvalidArgument is not possible: shares outside of 0 to 1, or tolerated not below unacceptable,
  // abort.
  explicit OffsetAudit(const AuditOptions& options = {});

  AuditTurn Turn(const offset::PoolName& pool);
  // Of a call for which Turn said so. Late ones count too.
  void Note(const offset::PoolName& pool, const AuditOutcome& outcome);

  struct State {
    bool trusted = true;
    uint64_t calls = 0;
    uint64_t audits = 0;
    uint64_t bad = 0;
    uint64_t suspensions = 0;
    double sum = 0;
  };
  State StateOf(const offset::PoolName& pool) const;
  // Of all pools together; trusted where all are.
  State Total() const;

 private:
  const AuditOptions options_;
  const double bad_step_;
  const double good_step_;
  mutable std::mutex mutex_;
  std::map<offset::PoolName, State> states_;
};

}  // namespace kedge
