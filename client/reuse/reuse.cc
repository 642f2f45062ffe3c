#include "client/reuse/reuse.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "absl/strings/str_cat.h"

namespace kedge {
namespace {

using Kind = FoundSegment::Kind;

constexpr uint32_t kMagic = 0x4345444b;  // "KDEC"
constexpr uint16_t kVersion = 1;
constexpr uint32_t kSegmentsMax = 1u << 20;

absl::Status Check(std::span<const FoundSegment> found) {
  if (found.empty()) return absl::InvalidArgumentError("found: has no segment");
  for (size_t i = 0; i < found.size(); ++i) {
    const FoundSegment& segment = found[i];
    if (segment.count < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("found[", i, "].count: ", segment.count, " is negative"));
    }
    if (segment.kind == Kind::kPrefix && i > 0)
      return absl::InvalidArgumentError(
          absl::StrCat("found[", i, "].kind: a prefix is the first segment"));
    if (segment.kind == Kind::kJoint && (i == 0 || found[i - 1].kind != Kind::kFilling)) {
      return absl::InvalidArgumentError(
          absl::StrCat("found[", i, "].kind: no filling stands before this joint"));
    }
  }
  return absl::OkStatus();
}

// What could be done with a segment, time aside.
struct Options {
  bool exact = false;
  bool corrected = false;
  bool recomputed = false;
  WhyNot why = WhyNot::kNotFound;  // not better than the last of these
};

Options OptionsOf(const FoundSegment& segment, const ReuseRules& rules) {
  Options options;
  switch (segment.kind) {
    case Kind::kText:
    case Kind::kJoint:  // as the filling before it
      return options;
    case Kind::kPrefix:
      options.exact = segment.fidelity == Fidelity::kLossless || !rules.exact_only;
      options.why = options.exact ? WhyNot::kNone : WhyNot::kLossy;
      return options;
    case Kind::kFilling:
      break;
  }
  if (segment.count == 0) return options;
  if (!segment.has_base) {
    options.why = WhyNot::kNoBase;
    return options;
  }
  if (rules.exact_only) {
    options.why = WhyNot::kExactDemanded;
    return options;
  }
  const bool accepted = segment.offsets == OffsetRefusal::kNone;
  options.corrected = accepted && rules.offsets.ok();
  options.recomputed = rules.recompute.ok();
  if (options.corrected) {
    options.why = WhyNot::kNone;
  } else {
    // The gate's word counts where offsets are allowed at all.
    options.why = accepted || !rules.offsets.ok() ? WhyNot::kRules : WhyNot::kOffsets;
  }
  return options;
}

struct Plan {
  bool exact = false;
  bool corrected = false;
  bool recomputed = false;
};

Treatment TreatmentIn(const Plan& plan, const Options& options) {
  if (plan.exact && options.exact) return Treatment::kExact;
  if (plan.corrected && options.corrected) return Treatment::kCorrected;
  if (plan.recomputed && options.recomputed) return Treatment::kRecomputed;
  return Treatment::kDense;
}

std::vector<Treatment> TreatmentsOf(std::span<const FoundSegment> found,
                                    std::span<const Options> options, const Plan& plan) {
  std::vector<Treatment> treatments;
  for (size_t i = 0; i < found.size(); ++i) {
    Treatment treatment = TreatmentIn(plan, options[i]);
    if (found[i].kind == Kind::kJoint && treatments.back() == Treatment::kCorrected)
      treatment = Treatment::kCorrected;
    treatments.push_back(treatment);
  }
  return treatments;
}

// Loading runs beside computing, layer by layer.
double SecondsOf(std::span<const FoundSegment> found, std::span<const Treatment> treatments,
                 const RecomputeConfig& config, const ReuseRates& rates) {
  std::vector<TimedRun> runs;
  double placed = 0;
  double bytes = 0;
  int64_t first = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    const auto count = static_cast<double>(found[i].count);
    TimedRun run{.first = first, .count = found[i].count};
    if (treatments[i] == Treatment::kExact || treatments[i] == Treatment::kCorrected)
      run.kind = TimedRun::Kind::kFixed;
    if (treatments[i] == Treatment::kRecomputed) run.kind = TimedRun::Kind::kChosenFrom;
    if (treatments[i] == Treatment::kCorrected) placed += count * rates.correct;
    if (treatments[i] == Treatment::kRecomputed) placed += count * rates.place;
    if (treatments[i] != Treatment::kDense) bytes += static_cast<double>(found[i].bytes);
    first += found[i].count;
    runs.push_back(run);
  }
  // The prompt's last token is always computed.
  if (!runs.empty() && runs.back().kind != TimedRun::Kind::kComputed && runs.back().count > 0) {
    --runs.back().count;
    runs.push_back({.first = first - 1, .count = 1});
  }
  const double load = bytes > 0 ? rates.load_start + bytes * rates.load_byte : 0.0;
  return placed + std::max(load, ForwardSeconds(rates, runs, config));
}

absl::Status Unprofiled(const std::string& chain) {
  return absl::FailedPreconditionError(
      absl::StrCat("profile: '", chain, "' may not be used for a model without one"));
}

void Rule(const ModelProfile* profile, const std::string& chain, bool allow_unprofiled,
          absl::Status& may, std::optional<double>& lost) {
  if (profile == nullptr) {
    may = allow_unprofiled ? absl::OkStatus() : Unprofiled(chain);
    return;
  }
  may = profile->Admits(chain);
  for (const GateRecord& record : profile->gate())
    if (record.chain == chain && record.task == kGateMean) lost = record.points_lost;
}

// --- bytes of a decision ---

template <typename T>
void Put(std::vector<uint8_t>& bytes, T value) {
  if constexpr (std::is_same_v<T, double>) {
    Put(bytes, std::bit_cast<uint64_t>(value));
  } else {
    for (size_t i = 0; i < sizeof(T); ++i)
      bytes.push_back(static_cast<uint8_t>(static_cast<uint64_t>(value) >> (8 * i)));
  }
}

class Reader {
 public:
  explicit Reader(std::span<const uint8_t> bytes) : bytes_(bytes) {}
  template <typename T>
  T Take() {
    if constexpr (std::is_same_v<T, double>) {
      return std::bit_cast<double>(Take<uint64_t>());
    } else {
      if (bytes_.size() < sizeof(T)) {
        whole_ = false;
        return T{};
      }
      uint64_t value = 0;
      for (size_t i = 0; i < sizeof(T); ++i) value |= uint64_t{bytes_[i]} << (8 * i);
      bytes_ = bytes_.subspan(sizeof(T));
      return static_cast<T>(value);
    }
  }
  bool whole() const { return whole_; }
  size_t left() const { return bytes_.size(); }

 private:
  std::span<const uint8_t> bytes_;
  bool whole_ = true;
};

constexpr size_t kSegmentBytes = 2 * sizeof(uint64_t) + 3;

}  // namespace

const char* TreatmentName(Treatment treatment) {
  switch (treatment) {
    case Treatment::kExact:
      return "exact";
    case Treatment::kCorrected:
      return "corrected";
    case Treatment::kRecomputed:
      return "recomputed";
    case Treatment::kDense:
      return "dense";
  }
  return "unknown";
}

Provenance ProvenanceOf(Treatment treatment) {
  switch (treatment) {
    case Treatment::kExact:
      return Provenance::kExact;
    case Treatment::kCorrected:
      return Provenance::kCorrected;
    case Treatment::kRecomputed:
      return Provenance::kRecomputed;
    case Treatment::kDense:
      return Provenance::kDense;
  }
  return Provenance::kMoved;
}

const char* WhyNotName(WhyNot why) {
  switch (why) {
    case WhyNot::kNone:
      return "none";
    case WhyNot::kNotFound:
      return "not_found";
    case WhyNot::kExactDemanded:
      return "exact_demanded";
    case WhyNot::kRules:
      return "rules";
    case WhyNot::kOffsets:
      return "offsets";
    case WhyNot::kNoBase:
      return "no_base";
    case WhyNot::kSlower:
      return "slower";
    case WhyNot::kLossy:
      return "lossy";
    case WhyNot::kLost:
      return "lost";
  }
  return "unknown";
}

std::string RecomputeName(const RecomputeConfig& config) {
  const std::string name(RecomputePolicyName(config.policy));
  if (config.policy == RecomputePolicy::kNone) return name;
  if (config.policy == RecomputePolicy::kEpic) return absl::StrCat(name, config.epic_tokens);
  return absl::StrCat(name, config.ratio, "@", config.check_layer);
}

ReuseRules ReuseRules::Of(const ModelProfile* profile, const std::string& offsets,
                          const RecomputeConfig& config, bool allow_unprofiled) {
  ReuseRules rules;
  rules.config = config;
  Rule(profile, offsets, allow_unprofiled, rules.offsets, rules.offsets_lost);
  Rule(profile, RecomputeName(config), allow_unprofiled, rules.recompute, rules.recompute_lost);
  return rules;
}

absl::StatusOr<ReuseDecision> Decide(std::span<const FoundSegment> found, const ReuseRules& rules,
                                     const ReuseRates& rates) {
  if (absl::Status s = Check(found); !s.ok()) return s;
  std::vector<Options> options;
  for (const FoundSegment& segment : found) options.push_back(OptionsOf(segment, rules));

  const auto seconds = [&](const Plan& plan) {
    return SecondsOf(found, TreatmentsOf(found, options, plan), rules.config, rates);
  };
  // From the least approximate to the most; more of it has to be worth its while.
  constexpr Plan kPlans[] = {{},
                             {.exact = true},
                             {.exact = true, .corrected = true},
                             {.exact = true, .recomputed = true},
                             {.exact = true, .corrected = true, .recomputed = true}};
  Plan best;
  double best_seconds = seconds(best);
  ReuseDecision decision;
  decision.dense_seconds = best_seconds;
  decision.exact_seconds = std::min(best_seconds, seconds(kPlans[1]));
  for (const Plan& plan : kPlans) {
    const double now = seconds(plan);
    if (now < best_seconds) {
      best = plan;
      best_seconds = now;
    }
  }
  decision.seconds = best_seconds;
  decision.recompute = rules.config;

  const std::vector<Treatment> treatments = TreatmentsOf(found, options, best);
  int64_t first = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    SegmentDecision segment{.first = first, .count = found[i].count, .treatment = treatments[i]};
    // The best that could be done, time aside.
    const Treatment could = TreatmentIn({true, true, true}, options[i]);
    segment.why = treatments[i] != could ? WhyNot::kSlower : options[i].why;
    if (found[i].kind == Kind::kJoint && treatments[i] == Treatment::kCorrected)
      segment.why = WhyNot::kNone;
    if (segment.why == WhyNot::kOffsets) segment.offsets = found[i].offsets;
    if (treatments[i] != Treatment::kDense) decision.bytes_moved += found[i].bytes;
    decision.bytes_moved += found[i].offset_bytes;
    const auto count = [&](const std::optional<double>& lost) {
      if (!lost || !decision.points_lost)
        decision.points_lost.reset();
      else
        decision.points_lost = std::max(*decision.points_lost, *lost);
    };
    if (treatments[i] == Treatment::kCorrected) count(rules.offsets_lost);
    if (treatments[i] == Treatment::kRecomputed) count(rules.recompute_lost);
    decision.segments.push_back(segment);
    first += found[i].count;
  }
  return decision;
}

int64_t ReuseDecision::tokens() const {
  return segments.empty() ? 0 : segments.back().first + segments.back().count;
}

int64_t ReuseDecision::tokens(Treatment treatment) const {
  int64_t sum = 0;
  for (const SegmentDecision& segment : segments)
    if (segment.treatment == treatment) sum += segment.count;
  return sum;
}

int64_t ReuseDecision::reused_tokens() const {
  const int64_t chosen_from = tokens(Treatment::kRecomputed);
  const double ratio = recompute.policy == RecomputePolicy::kNone ? 0.0 : recompute.ratio;
  int64_t sum = tokens(Treatment::kExact) + tokens(Treatment::kCorrected) + chosen_from -
                CountOf(ratio, chosen_from);
  return std::min(sum, std::max<int64_t>(0, tokens() - 1));
}

Provenance ReuseDecision::provenance() const {
  Provenance worst = Provenance::kExact;
  for (const SegmentDecision& segment : segments)
    if (segment.count > 0) worst = std::max(worst, ProvenanceOf(segment.treatment));
  return worst;
}

std::vector<uint8_t> ReuseDecision::Encode() const {
  std::vector<uint8_t> bytes;
  Put(bytes, kMagic);
  Put(bytes, kVersion);
  Put(bytes, static_cast<uint8_t>(recompute.policy));
  Put(bytes, static_cast<uint8_t>(points_lost.has_value()));
  Put(bytes, recompute.check_layer);
  Put(bytes, recompute.ratio);
  Put(bytes, recompute.epic_tokens);
  Put(bytes, recompute.slope);
  Put(bytes, recompute.seed);
  Put(bytes, seconds);
  Put(bytes, exact_seconds);
  Put(bytes, dense_seconds);
  Put(bytes, points_lost.value_or(0.0));
  Put(bytes, bytes_moved);
  Put(bytes, static_cast<uint32_t>(segments.size()));
  for (const SegmentDecision& segment : segments) {
    Put(bytes, segment.first);
    Put(bytes, segment.count);
    Put(bytes, static_cast<uint8_t>(segment.treatment));
    Put(bytes, static_cast<uint8_t>(segment.why));
    Put(bytes, static_cast<uint8_t>(segment.offsets));
  }
  return bytes;
}

absl::StatusOr<ReuseDecision> ReuseDecision::Parse(std::span<const uint8_t> bytes) {
  const auto bad = [](const char* field, auto value) {
    return absl::InvalidArgumentError(absl::StrCat("decision.", field, ": ", value));
  };
  Reader reader(bytes);
  ReuseDecision decision;
  if (const auto magic = reader.Take<uint32_t>(); magic != kMagic) return bad("magic", magic);
  if (const auto version = reader.Take<uint16_t>(); version != kVersion)
    return bad("version", version);
  const auto policy = reader.Take<uint8_t>();
  if (policy > static_cast<uint8_t>(RecomputePolicy::kOracle)) return bad("policy", policy);
  decision.recompute.policy = static_cast<RecomputePolicy>(policy);
  const bool known = reader.Take<uint8_t>() != 0;
  decision.recompute.check_layer = reader.Take<int64_t>();
  decision.recompute.ratio = reader.Take<double>();
  decision.recompute.epic_tokens = reader.Take<int64_t>();
  decision.recompute.slope = reader.Take<double>();
  decision.recompute.seed = reader.Take<uint64_t>();
  decision.seconds = reader.Take<double>();
  decision.exact_seconds = reader.Take<double>();
  decision.dense_seconds = reader.Take<double>();
  decision.points_lost = reader.Take<double>();
  if (!known) decision.points_lost.reset();
  decision.bytes_moved = reader.Take<int64_t>();
  const auto count = reader.Take<uint32_t>();
  if (!reader.whole() || count > kSegmentsMax || reader.left() != count * kSegmentBytes)
    return bad("segments", count);
  int64_t end = 0;
  for (uint32_t i = 0; i < count; ++i) {
    SegmentDecision segment;
    segment.first = reader.Take<int64_t>();
    segment.count = reader.Take<int64_t>();
    if (segment.first != end || segment.count < 0 || segment.count > INT32_MAX - end)
      return bad("segments.first", segment.first);
    end += segment.count;
    const auto treatment = reader.Take<uint8_t>();
    const auto why = reader.Take<uint8_t>();
    const auto offsets = reader.Take<uint8_t>();
    if (treatment >= kTreatments) return bad("segments.treatment", treatment);
    if (why >= kWhyNots) return bad("segments.why", why);
    if (offsets >= kOffsetRefusals) return bad("segments.offsets", offsets);
    segment.treatment = static_cast<Treatment>(treatment);
    segment.why = static_cast<WhyNot>(why);
    segment.offsets = static_cast<OffsetRefusal>(offsets);
    decision.segments.push_back(segment);
  }
  return decision;
}

void ReuseCounts::Add(const ReuseDecision& decision) {
  for (const SegmentDecision& segment : decision.segments) {
    if (segment.count == 0) continue;
    ++segments[static_cast<size_t>(segment.treatment)];
    tokens[static_cast<size_t>(segment.treatment)] += static_cast<uint64_t>(segment.count);
    ++why[static_cast<size_t>(segment.why)];
    if (segment.why == WhyNot::kOffsets) ++offsets[static_cast<size_t>(segment.offsets)];
  }
  reused_tokens += static_cast<uint64_t>(decision.reused_tokens());
  bytes_moved += static_cast<uint64_t>(decision.bytes_moved);
}

}  // namespace kedge
