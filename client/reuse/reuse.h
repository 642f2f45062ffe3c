// What is done with each segment of a prompt whose KV, or something like it, was found: the one
// place that decides.
//
//     exact       held by the store for these very tokens behind the very same ones: taken
//     corrected   base KV and an offset, where the gate accepts it (offset_gate.h)
//     recomputed  moved, and some of its tokens computed anew (recompute_plan.h)
//     dense       computed; what is always right, and what is left for anything that is not known
//
// In that order, each only where the model's profile passes it (ReuseRules) and where it is not
// slower than dense at measured rates (ReuseRates). A segment that falls through to dense says why.
// A caller may demand `exact`: nothing approximate is used then.
//
// Pure functions: found segments, rules and rates in, a decision out; reuse_runner.h finds and
// executes. A decision is a value that can be sent: tensor-parallel ranks must all do the same, so
// one of them decides.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/reuse/offset_gate.h"
#include "client/reuse/provenance.h"
#include "client/reuse/recompute_plan.h"
#include "client/reuse/reuse_rates.h"
#include "proto/model_profile.h"

namespace kedge {

enum class Treatment : uint8_t { kExact = 0, kCorrected = 1, kRecomputed = 2, kDense = 3 };
inline constexpr int kTreatments = 4;
const char* TreatmentName(Treatment treatment);
Provenance ProvenanceOf(Treatment treatment);

// Why a segment is not treated better. Counted by name in metrics.
enum class WhyNot : uint8_t {
  kNone,           // it could not be better
  kNotFound,       // nothing is held, or the segment is text that nobody shares
  kExactDemanded,  // the caller takes nothing approximate
  kRules,          // the model's profile does not pass the policy
  kOffsets,        // the gate refused the offsets; SegmentDecision::offsets says more
  kNoBase,         // no base KV, so nothing to correct or to move
  kSlower,         // dense ends sooner
  kLossy,          // what is held lost bits, and lossless is demanded
  kLost,           // found, and gone when it was fetched
};
inline constexpr int kWhyNots = 9;
const char* WhyNotName(WhyNot why);

// A run of the prompt, as it was found. Together they are the prompt, in order.
struct FoundSegment {
  enum class Kind : uint8_t {
    kText,     // fixed or new text that nothing was learnt of
    kPrefix,   // KV of these tokens behind the very same ones is held; the prompt's first
    kFilling,  // of a placeholder, or a near match's run: base KV may be there
    kJoint,    // fixed text behind a filling, corrected with it or not at all
  };
  Kind kind = Kind::kText;
  int64_t count = 0;
  Fidelity fidelity = Fidelity::kLossless;         // of a prefix
  bool has_base = false;                           // of a filling
  OffsetRefusal offsets = OffsetRefusal::kNoPool;  // of a filling: kNone where the gate accepts
  int64_t bytes = 0;                               // that are still to be moved when it is reused
  int64_t offset_bytes = 0;                        // that were moved to know
};

// What may be used for a model, and what its profile says that it costs.
struct ReuseRules {
  bool exact_only = false;  // what the caller demands; lossless too
  absl::Status offsets;     // OK: may be used; else why not
  absl::Status recompute;
  RecomputeConfig config;  // of recomputing
  // Points of 100 that the policy was found to lose, over all tasks; nothing where it was not
  // measured.
  std::optional<double> offsets_lost;
  std::optional<double> recompute_lost;

  // By the model's profile: chains `offsets` ("kvcomm", "linear") and RecomputeName(config). Each
  // is refused with the profile's figure unless it passes; without a profile both are, unless
  // `allow_unprofiled`.
  static ReuseRules Of(const ModelProfile* profile, const std::string& offsets,
                       const RecomputeConfig& config, bool allow_unprofiled = false);
};

// "cacheblend0.15@3": how profiles and benchmarks name a configuration. "none", "epic16".
std::string RecomputeName(const RecomputeConfig& config);

struct SegmentDecision {
  int64_t first = 0;
  int64_t count = 0;
  Treatment treatment = Treatment::kDense;
  WhyNot why = WhyNot::kNone;
  OffsetRefusal offsets = OffsetRefusal::kNone;  // with WhyNot::kOffsets, also when recomputed

  friend bool operator==(const SegmentDecision&, const SegmentDecision&) = default;
};

struct ReuseDecision {
  std::vector<SegmentDecision> segments;  // together they are the prompt
  RecomputeConfig recompute;              // for those that are recomputed
  double seconds = 0;                     // expected, to the first token
  double exact_seconds = 0;               // with the exact prefix alone
  double dense_seconds = 0;               // with nothing
  // What the policies used were found to lose, the worst of them; 0 where nothing approximate is
  // used, nothing where it is not known.
  std::optional<double> points_lost = 0.0;
  int64_t bytes_moved = 0;

  int64_t tokens() const;
  int64_t tokens(Treatment treatment) const;
  // Taken without being computed through all layers: exact, corrected, and of the recomputed ones
  // those that a mean ratio leaves. The prompt's last token is always computed.
  int64_t reused_tokens() const;
  Provenance provenance() const;

  // For the other ranks. Little endian; a version in front.
  std::vector<uint8_t> Encode() const;
  // InvalidArgument names the field.
  static absl::StatusOr<ReuseDecision> Parse(std::span<const uint8_t> bytes);
};

// InvalidArgument: no segments, a count below 0, a prefix that is not first, a joint that is not
// behind a filling.
absl::StatusOr<ReuseDecision> Decide(std::span<const FoundSegment> found, const ReuseRules& rules,
                                     const ReuseRates& rates);

// Sums over decisions, for metrics.
struct ReuseCounts {
  std::array<uint64_t, kTreatments> segments{};
  std::array<uint64_t, kTreatments> tokens{};
  std::array<uint64_t, kWhyNots> why{};
  std::array<uint64_t, kOffsetRefusals> offsets{};  // refusals, with WhyNot::kOffsets
  uint64_t reused_tokens = 0;
  uint64_t bytes_moved = 0;

  void Add(const ReuseDecision& decision);
};

}  // namespace kedge
