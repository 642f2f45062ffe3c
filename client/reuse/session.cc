#include "client/reuse/session.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

namespace kedge {
namespace {

using Kind = FoundSegment::Kind;

// The engine, with layers that wait for the fetch.
class WaitingEngine final : public PlanEngine {
 public:
  WaitingEngine(SessionEngine& engine, sdk::Request* fetch, uint32_t blocks)
      : engine_(engine), fetch_(fetch), blocks_(blocks) {}

  int64_t layers() const override { return engine_.layers(); }
  absl::Status Begin(std::span<const int32_t> positions) override {
    return engine_.Begin(positions);
  }
  absl::Status Project(int64_t layer) override {
    if (absl::Status s = engine_.Project(layer); !s.ok()) return s;
    if (fetch_ == nullptr) return absl::OkStatus();
    const std::optional<uint32_t> there = fetch_->WaitLayers(static_cast<uint32_t>(layer + 1));
    if (!there || *there < blocks_) {
      lost_ = true;
      return absl::UnavailableError(
          absl::StrCat("layer ", layer, ": ", there.value_or(0), " of ", blocks_, " blocks came"));
    }
    engine_.LayerArrived(layer);
    return absl::OkStatus();
  }
  absl::StatusOr<std::vector<float>> ValueDeviation(int64_t layer) override {
    return engine_.ValueDeviation(layer);
  }
  absl::Status WriteKv(int64_t layer) override { return engine_.WriteKv(layer); }
  absl::StatusOr<std::vector<float>> AttentionOfLast(int64_t layer, int64_t queries) override {
    return engine_.AttentionOfLast(layer, queries);
  }
  absl::Status Attend(int64_t layer, std::span<const int32_t> positions) override {
    return engine_.Attend(layer, positions);
  }
  bool lost() const { return lost_; }

 private:
  SessionEngine& engine_;
  sdk::Request* fetch_;
  const uint32_t blocks_;
  bool lost_ = false;
};

}  // namespace

struct Session::Fetched {
  uint32_t blocks = 0;
  std::optional<sdk::Match> match;  // keeps the lease
  std::optional<sdk::Request> request;
};

Session::Fetched Session::Fetch(std::span<const int32_t> tokens, SessionEngine& engine,
                                std::string& trouble) const {
  Fetched fetched;
  auto sequence = model_.FromTokens(tokens);
  if (!sequence) {
    trouble = sequence.text();
    return fetched;
  }
  if (sequence->blocks() == 0) return fetched;
  auto match =
      sequence->MatchRun({.lease_ms = options_.lease_ms, .deadline_ms = options_.deadline_ms});
  if (!match) {
    trouble = match.text();
    return fetched;
  }
  // The last token's hidden state is wanted: a prompt that is held whole gives up its last block.
  const auto most = static_cast<uint32_t>((tokens.size() - 1) / block_tokens_);
  fetched.blocks = std::min(match->blocks(), most);
  if (fetched.blocks == 0) return fetched;
  auto request = sequence->Fetch(
      {.block_count = fetched.blocks, .layer_group = 1, .deadline_ms = options_.deadline_ms},
      engine.Pages(0, fetched.blocks));
  if (!request) {
    trouble = request.text();
    fetched.blocks = 0;
    return fetched;
  }
  fetched.match = std::move(*match);
  fetched.request = std::move(*request);
  return fetched;
}

absl::StatusOr<SessionPrefill> Session::Prefill(std::span<const int32_t> tokens,
                                                std::span<const OfferedRun> runs,
                                                SessionEngine& engine) {
  const auto total = static_cast<int64_t>(tokens.size());
  if (total == 0) return absl::InvalidArgumentError("tokens: there is none");
  int64_t end = 0;
  for (size_t i = 0; i < runs.size(); ++i) {
    if (runs[i].first < end || runs[i].count < 0 || runs[i].first > total - runs[i].count) {
      return absl::InvalidArgumentError(absl::StrCat("runs[", i, "]: ", runs[i].count,
                                                     " tokens at ", runs[i].first,
                                                     " do not ascend inside [0, ", total, ")"));
    }
    end = runs[i].first + runs[i].count;
  }
  SessionPrefill done;
  done.tokens.assign(tokens.begin(), tokens.end());
  Fetched fetched = Fetch(tokens, engine, done.trouble);

  // A second time, without the prefix, where it does not arrive.
  for (bool with_prefix : {true, false}) {
    const int64_t exact = with_prefix ? int64_t{fetched.blocks} * block_tokens_ : 0;
    std::vector<FoundSegment> found;
    std::vector<const OfferedRun*> offered;
    const auto add = [&](Kind kind, int64_t count, const OfferedRun* run) {
      if (count <= 0) return;
      FoundSegment segment{.kind = kind, .count = count};
      segment.has_base = run != nullptr;
      segment.bytes = run != nullptr ? run->bytes : 0;
      found.push_back(segment);
      offered.push_back(run);
    };
    add(Kind::kPrefix, exact, nullptr);
    int64_t at = exact;
    for (const OfferedRun& run : runs) {
      if (run.first < at) continue;  // behind the prefix only whole runs
      add(Kind::kText, run.first - at, nullptr);
      add(Kind::kFilling, run.count, &run);
      at = run.first + run.count;
    }
    add(Kind::kText, total - at, nullptr);
    absl::StatusOr<ReuseDecision> decision = Decide(found, options_.rules, options_.rates);
    if (!decision.ok()) return decision.status();
    done.decision = *std::move(decision);

    if (absl::Status s = engine.Start(tokens); !s.ok()) return s;
    std::vector<ReusedSegment> segments;
    for (size_t i = 0; i < found.size(); ++i) {
      SegmentDecision& segment = done.decision.segments[i];
      if (segment.treatment == Treatment::kRecomputed && !engine.Place(*offered[i]).ok()) {
        segment.treatment = Treatment::kDense;
        segment.why = WhyNot::kLost;
      }
      if (segment.treatment == Treatment::kDense) continue;
      segments.push_back({static_cast<int32_t>(segment.first), static_cast<int32_t>(segment.count),
                          segment.treatment == Treatment::kExact});
    }
    const bool waits = exact > 0 && done.decision.segments[0].treatment == Treatment::kExact;
    WaitingEngine waiting(engine, waits ? &*fetched.request : nullptr, fetched.blocks);
    RecomputeConfig config = done.decision.recompute;
    if (done.decision.tokens(Treatment::kRecomputed) == 0) config.policy = RecomputePolicy::kNone;
    absl::StatusOr<PlanResult> result = RunPlan(
        waiting,
        {.tokens = total, .segments = segments, .config = config, .queries = options_.queries});
    if (fetched.request) fetched.request->Wait();  // nothing writes into the pages any more
    if (!result.ok() && waiting.lost()) {
      done.trouble = std::string(result.status().message());
      continue;
    }
    if (!result.ok()) return result.status();
    done.fetched_blocks = waits ? fetched.blocks : 0;
    done.computed_rows = static_cast<int64_t>(result->computed.size());
    done.left = std::move(result->left);
    for (const SegmentDecision& segment : done.decision.segments)
      done.provenance.Append(segment.count, ProvenanceOf(segment.treatment));
    return done;
  }
  return absl::InternalError("session: unreachable");
}

absl::StatusOr<uint32_t> Session::Publish(const SessionPrefill& prefill, SessionEngine& engine) {
  const auto publishable =
      static_cast<uint32_t>(prefill.provenance.publishable_tokens() / block_tokens_);
  const uint32_t begin = prefill.fetched_blocks;
  if (publishable <= begin) return 0u;
  auto sequence = model_.FromTokens(prefill.tokens);
  if (!sequence) return absl::UnavailableError(sequence.text());
  const sdk::StoreOptions options{.block_begin = begin,
                                  .block_count = publishable - begin,
                                  .deadline_ms = options_.deadline_ms,
                                  .provenance = sdk::Provenance::kDense};
  auto stored = sequence->Store(options, engine.Pages(begin, options.block_count));
  if (!stored) return absl::UnavailableError(stored.text());
  if (!stored->Wait() || !stored->all_ok()) return absl::UnavailableError(stored->text());
  return options.block_count;
}

}  // namespace kedge
