// tools/bench reuse: what reuse beyond exact prefixes saves and what it costs in answers.
//
// Times are CPU time of the one thread that does all (of the wall with --threads).
//
// agents   Five fully connected agents (tools/agents/agent_way.h) on the evaluation model. Ways:
// dense;
//          prefix (dense behind the role text, an exact prefix: the fair baseline); kvcomm,
//          kvcomm-nogate (whatever can be calculated is accepted), cacheblend, dhd and auto
//          (client/reuse), all behind that prefix too.
//          WAY/agentN/ttft is the time to the first token, against dense; .../vs-prefix the same
//          against prefix; .../of-bound what counting gives against what was measured: operations
//          at the rate of the dense prefill, or reading all weights once where that takes longer,
//          and bytes of anchors, bases and KV rows at memcpy's rate.
// stream   All calls of a stream of users with empty pools at its beginning: cold start and
// refusals
//          are in it. What was not corrected is learnt after the call, in idle time (stream/learn).
// mid/...  The same on a random checkpoint of more layers and longer prompts, for time alone; what
//          is done with each segment is replayed from the evaluation model. The stream is put
//          together from the medians of its calls.
// dhd      Time against the count of operations at 90% and 98% reuse, one prompt without agents.
// gate, auto, ablations, linear: answers (reuse_quality.h).
//
// --quick: the agents on eval-1 with fewer users, the gate and auto on fewer contexts, no mid-size
// checkpoint, no ablations; within a minute.
#include <stdlib.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "gpu/model/random_checkpoint.h"
#include "tests/quality/eval_model.h"
#include "tools/agents/agent_way.h"
#include "tools/benchmarks/measure.h"
#include "tools/benchmarks/reuse_curve.h"
#include "tools/benchmarks/reuse_quality.h"

namespace kedge::bench {
namespace {

struct Flags {
  std::string model = "tests/quality/models/eval-1";
  std::string generator = "tests/quality/tasks/generate.py";
  std::string mix = "tests/quality/mix/auto.txt";
  std::vector<std::string> parts;
  int threads = 1;
  bool quick = false;
  bool json = false;

  bool Wants(const std::string& part) const {
    return parts.empty() || std::find(parts.begin(), parts.end(), part) != parts.end();
  }
};

using Times = std::map<std::pair<std::string, int64_t>, std::vector<double>>;  // way, agent
using Treatments = std::vector<Treatment>;

double Now(const Model& model) { return Seconds(model.device().threads() == 1); }

// Bytes a second that memcpy reads, of blocks that no cache holds.
double CopyRate() {
  std::vector<uint8_t> from(64 << 20, 1);
  std::vector<uint8_t> to(from.size());
  std::vector<double> rates;
  for (int i = 0; i < 5; ++i) {
    const double start = Seconds(true);
    std::memcpy(to.data(), from.data(), from.size());
    rates.push_back(static_cast<double>(from.size()) / (Seconds(true) - start));
    from[i] = to[i + 1];
  }
  return Median(rates);
}

Treatments TreatmentsOf(const ReuseDecision& decision) {
  Treatments treatments;
  for (const SegmentDecision& segment : decision.segments) treatments.push_back(segment.treatment);
  return treatments;
}

bool Learns(const std::string& way) { return way.rfind("kvcomm", 0) == 0 || way == "auto"; }

bool AllCorrected(const AgentTurn& turn, const ReuseDecision& decision) {
  int64_t fillings = 0;
  for (const AgentPiece& piece : turn.prompt.pieces) fillings += piece.filling ? piece.count : 0;
  int64_t corrected = 0;
  for (const AgentPiece& piece : turn.prompt.pieces)
    for (const SegmentDecision& segment : decision.segments)
      if (piece.filling && segment.first == piece.first &&
          segment.treatment == Treatment::kCorrected)
        corrected += segment.count;
  return corrected == fillings;
}

class AgentsBench {
 public:
  AgentsBench(Model& model, AgentWorkload workload, std::string prefix, const Flags& flags,
              Reporter& reporter)
      : model_(model),
        workload_(std::move(workload)),
        prefix_(std::move(prefix)),
        flags_(flags),
        reporter_(reporter) {}

  absl::Status Start(int64_t check_layer) {
    absl::StatusOr<ReuseRates> rates = MeasureReuseRates(model_);
    if (!rates.ok()) return rates.status();
    rates_ = *rates;
    check_layer_ = check_layer;
    copy_rate_ = CopyRate();
    const AgentOptions& o = workload_.options();
    note_ = absl::StrFormat("%d agents, input %d, prefix %d, output %d; %d layers, width %d",
                            o.agents, o.input_tokens, o.prefix_tokens, o.output_tokens,
                            model_.config().layers, model_.config().hidden_size);
    return absl::OkStatus();
  }

  std::unique_ptr<AgentWay> Make(const std::string& name, bool gate_off) const {
    RecomputeConfig config{
        .policy = name == "dhd" ? RecomputePolicy::kDhd : RecomputePolicy::kCacheBlend,
        .check_layer = check_layer_,
        .ratio = 0.15};
    return std::make_unique<AgentWay>(
        model_, workload_,
        WayOptions{.name = name, .gate_off = gate_off, .recompute = config, .rates = rates_});
  }

  // On a model that answers: decisions are its own.
  absl::Status Warm(int64_t learnt, int64_t tested, int rounds) {
    auto past = MakeTurns(model_, workload_, 0, learnt, true);
    auto turns = MakeTurns(model_, workload_, 1000, tested, true);
    if (!past.ok()) return past.status();
    if (!turns.ok()) return turns.status();
    for (const char* name : kWays) {
      ways_.push_back(Make(name, false));
      AgentWay& way = *ways_.back();
      if (absl::Status s = way.Prepare(*turns); !s.ok()) return s;
      if (!Learns(way.name())) continue;
      const double start = Now(model_);
      for (const AgentTurn& turn : *past)
        if (absl::Status s = way.Learn(turn); !s.ok()) return s;
      reporter_.PrintValue("reuse", absl::StrCat(prefix_, way.name(), "/learn"),
                           1e3 * (Now(model_) - start) / static_cast<double>(past->size()), "ms",
                           "a call in idle time, its dense prefill included");
      reporter_.PrintValue("reuse", absl::StrCat(prefix_, way.name(), "/pool_bytes"),
                           static_cast<double>(way.own_pools().bytes()), "bytes", "of all pools");
    }
    if (absl::Status s = Measure(*turns, rounds, nullptr); !s.ok()) return s;
    return PrintAnswers(*turns);
  }

  // On random weights: the treatments of another model's calls, [way][agent].
  absl::Status Replay(const std::map<std::string, std::vector<Treatments>>& treatments,
                      int rounds) {
    auto turns = MakeTurns(model_, workload_, 0, 1, false);
    if (!turns.ok()) return turns.status();
    for (const char* name : kWays) {
      ways_.push_back(Make(name, true));
      AgentWay& way = *ways_.back();
      if (absl::Status s = way.Prepare(*turns); !s.ok()) return s;
      if (!Learns(way.name())) continue;
      if (absl::Status s = way.LearnRandom(*turns, kAnchors); !s.ok()) return s;
    }
    return Measure(*turns, rounds, &treatments);
  }

  // Cold: pools fill while the stream runs. `replayed`: calls of another model's stream.
  absl::Status Stream(int64_t requests) {
    auto turns = MakeTurns(model_, workload_, 2000, requests, true);
    if (!turns.ok()) return turns.status();
    std::map<std::string, std::unique_ptr<AgentWay>> ways;
    for (const char* name : {"dense", "prefix", "kvcomm", "auto"}) {
      ways[name] = Make(name, false);
      if (absl::Status s = ways[name]->Prepare(*turns); !s.ok()) return s;
    }
    std::map<std::string, std::vector<double>> seconds;
    double learning = 0;
    for (const AgentTurn& turn : *turns) {
      std::vector<std::string> order = {"dense", "prefix", "kvcomm", "auto"};
      if (turn.agent % 2 == 1) std::reverse(order.begin(), order.end());
      for (const std::string& name : order) {
        absl::StatusOr<TurnResult> result = ways[name]->Run(turn, turn.prompt);
        if (!result.ok()) return result.status();
        seconds[name].push_back(result->seconds);
        if (name != "kvcomm" && name != "auto") continue;
        absl::StatusOr<double> idle = ways[name]->Idle(turn);
        if (!idle.ok()) return idle.status();
        if (name == "auto") learning += *idle;
        stream_[name].push_back({turn.agent, TreatmentsOf(result->decision)});
        if (AllCorrected(turn, result->decision)) continue;
        const double start = Now(model_);
        if (absl::Status s = ways[name]->Learn(turn); !s.ok()) return s;
        if (name == "auto") learning += Now(model_) - start;
      }
    }
    PrintStream(seconds, requests);
    reporter_.PrintValue("reuse", prefix_ + "stream/learn", learning, "s",
                         "of auto, in idle time: bases, dense KV, anchors; no audit");
    return absl::OkStatus();
  }

  // The other model's stream, from the medians of its calls here.
  absl::Status ReplayStream(const AgentsBench& other, int rounds) {
    auto turns = MakeTurns(model_, workload_, 0, 1, false);
    if (!turns.ok()) return turns.status();
    std::map<std::string, std::vector<double>> seconds;
    for (const auto& [name, calls] : other.stream_) {
      AgentWay* way = Find(name);
      std::map<std::pair<int64_t, Treatments>, double> known;
      for (const auto& call : calls) {
        if (!known.contains(call)) {
          std::vector<double> times;
          for (int round = 0; round < rounds; ++round) {
            const AgentTurn& turn = (*turns)[call.first];
            if (call.first == 0) way->Forget(turn);
            absl::StatusOr<TurnResult> result = way->Run(turn, turn.prompt, &call.second);
            if (!result.ok()) return result.status();
            if (absl::Status s = way->Idle(turn).status(); !s.ok()) return s;
            times.push_back(result->seconds);
          }
          known[call] = Median(times);
        }
        seconds[name].push_back(known[call]);
        if (name != "auto") continue;
        seconds["dense"].push_back(Median(times_[{"dense", call.first}]));
        seconds["prefix"].push_back(Median(times_[{"prefix", call.first}]));
      }
    }
    PrintStream(seconds, static_cast<int64_t>(seconds["auto"].size()) / workload_.options().agents);
    return absl::OkStatus();
  }

  // Of the first tested request: [way][agent].
  const std::map<std::string, std::vector<Treatments>>& treatments() const { return treatments_; }

 private:
  static constexpr const char* kWays[] = {"dense",      "prefix", "kvcomm", "kvcomm-nogate",
                                          "cacheblend", "dhd",    "auto"};
  static constexpr int64_t kAnchors = 20;

  AgentWay* Find(const std::string& name) const {
    for (const auto& way : ways_)
      if (way->name() == name) return way.get();
    return nullptr;
  }

  absl::Status Measure(const std::vector<AgentTurn>& turns, int rounds,
                       const std::map<std::string, std::vector<Treatments>>* replayed) {
    std::map<std::pair<std::string, int64_t>, std::vector<double>> bounds;
    std::map<std::string, double> calls, whole, reused, beyond;
    for (const AgentTurn& turn : turns) {
      std::map<std::string, std::vector<double>> here;
      std::map<std::string, TurnResult> last;
      for (int round = 0; round <= rounds; ++round) {  // the first one warms up
        for (size_t i = 0; i < ways_.size(); ++i) {
          AgentWay& way = *ways_[round % 2 == 0 ? i : ways_.size() - 1 - i];
          if (turn.agent == 0) way.Forget(turn);
          const Treatments* treatments = nullptr;
          if (replayed != nullptr && way.name() != "dense" && way.name() != "prefix")
            treatments = &replayed->at(way.name())[turn.agent];
          absl::StatusOr<TurnResult> result = way.Run(turn, turn.prompt, treatments);
          if (!result.ok()) return result.status();
          if (absl::Status s = way.Idle(turn).status(); !s.ok()) return s;
          if (round > 0) here[way.name()].push_back(result->seconds);
          last[way.name()] = *std::move(result);
        }
      }
      const double dense = Median(here["dense"]);
      for (auto& [name, result] : last) {
        auto& all = times_[{name, turn.agent}];
        all.insert(all.end(), here[name].begin(), here[name].end());
        bounds[{name, turn.agent}].push_back(BoundOf(turn, result, dense));
        auto& known = treatments_[name];
        if (static_cast<int64_t>(known.size()) == turn.agent)
          known.push_back(TreatmentsOf(result.decision));
        calls[name] += 1;
        whole[name] += AllCorrected(turn, result.decision);
        const int64_t exact = result.decision.tokens(Treatment::kExact);
        reused[name] += static_cast<double>(result.decision.reused_tokens() - exact);
        beyond[name] += static_cast<double>(result.decision.tokens() - exact);
      }
    }
    Print(bounds);
    for (const auto& way : ways_) {
      const std::string& name = way->name();
      if (name == "dense" || name == "prefix") continue;
      reporter_.PrintValue("reuse", absl::StrCat(prefix_, name, "/reused/calls"),
                           whole[name] / calls[name], "share", "all placeholders corrected");
      reporter_.PrintValue("reuse", absl::StrCat(prefix_, name, "/reused/tokens"),
                           reused[name] / beyond[name], "share",
                           "of those behind the exact prefix, without recomputed ones");
      const ReuseCounts counts = way->runner().counts();
      for (int refusal = 1; refusal < kOffsetRefusals; ++refusal) {
        if (counts.offsets[refusal] == 0) continue;
        reporter_.PrintValue("reuse",
                             absl::StrCat(prefix_, name, "/refused/",
                                          OffsetRefusalName(static_cast<OffsetRefusal>(refusal))),
                             static_cast<double>(counts.offsets[refusal]), "placeholders",
                             "over all measured calls");
      }
    }
    double worst = 1e9;
    for (int64_t agent = 0; agent < workload_.options().agents; ++agent)
      worst = std::min(worst, Median(times_[{"dense", agent}]) / Median(times_[{"auto", agent}]));
    reporter_.Print({.bench = "reuse",
                     .name = prefix_ + "auto/slowest-agent/vs-dense",
                     .value = worst,
                     .unit = "times",
                     .baseline = "dense",
                     .ratio = worst,
                     .note = "the agent that gains least; 0.95 or more is wanted"});
    return absl::OkStatus();
  }

  double BoundOf(const AgentTurn& turn, const TurnResult& result, double dense_seconds) const {
    const ModelConfig& config = model_.config();
    const auto tokens = static_cast<int64_t>(turn.prompt.tokens.size());
    const double rate = DenseOperations(config, tokens) / dense_seconds;
    double operations = result.operations;
    if (result.bases_computed > 0) operations += DenseOperations(config, result.bases_computed);
    const double weights = 4.0 * static_cast<double>(model_.parameters());
    const double row = static_cast<double>(config.layers * config.kv_heads * config.head_size) * 2;
    const ReuseDecision& d = result.decision;
    const auto corrected = static_cast<double>(d.tokens(Treatment::kCorrected));
    const auto moved = corrected + static_cast<double>(d.tokens(Treatment::kRecomputed));
    const auto exact = static_cast<double>(d.tokens(Treatment::kExact));
    // Anchors in fp32 once; base and written row in the KV's type.
    const double bytes = corrected * row * 4.0 * kAnchors + (2 * moved + exact) * row * 2.0;
    return std::max(operations / rate, weights / copy_rate_) + bytes / copy_rate_;
  }

  void Print(const std::map<std::pair<std::string, int64_t>, std::vector<double>>& bounds) {
    const auto figure = [&](const std::string& what, const std::string& way, int64_t agent,
                            const std::string& baseline) {
      const std::vector<double>& ours = times_[{way, agent}];
      const std::vector<double>& theirs = times_[{baseline, agent}];
      Figure line{.bench = "reuse",
                  .name = absl::StrCat(prefix_, way, "/agent", agent + 1, "/", what),
                  .value = 1e3 * Median(ours),
                  .unit = "ms",
                  .baseline = baseline,
                  .baseline_value = 1e3 * Median(theirs),
                  .ratio = Median(theirs) / Median(ours),
                  .spread = Spread(ours),
                  .baseline_spread = Spread(theirs),
                  .is_void = Spread(theirs) > kVoidSpread,
                  .note = note_};
      reporter_.Print(line);
    };
    for (int64_t agent = 0; agent < workload_.options().agents; ++agent) {
      for (const auto& way : ways_) {
        const std::string& name = way->name();
        if (name == "dense") continue;
        figure("ttft", name, agent, "dense");
        if (name == "prefix") continue;
        figure("vs-prefix", name, agent, "prefix");
        const double bound = Median(bounds.at({name, agent}));
        const double ours = Median(times_[{name, agent}]);
        reporter_.Print({.bench = "reuse",
                         .name = absl::StrCat(prefix_, name, "/agent", agent + 1, "/of-bound"),
                         .value = 1e3 * ours,
                         .unit = "ms",
                         .baseline = "count",
                         .baseline_value = 1e3 * bound,
                         .ratio = bound / ours,
                         .spread = Spread(times_[{name, agent}]),
                         .note = "operations and bytes, none of them overlapped"});
      }
    }
  }

  absl::Status PrintAnswers(const std::vector<AgentTurn>& turns) {
    std::map<std::string, std::pair<double, double>> right;
    double dense_right = 0;
    std::map<std::string, double> lost;
    double asked = 0;
    for (const AgentTurn& turn : turns) {
      std::vector<bool> dense;
      for (const auto& way : ways_) {
        absl::StatusOr<std::vector<bool>> answers = way->Answers(turn);
        if (!answers.ok()) return answers.status();
        if (way->name() == "dense") {
          dense = *answers;
          asked += static_cast<double>(dense.size());
          for (const bool one : dense) dense_right += one;
        }
        for (size_t i = 0; i < dense.size(); ++i)
          lost[way->name()] += static_cast<double>(dense[i]) - static_cast<double>((*answers)[i]);
      }
    }
    reporter_.PrintValue("reuse", prefix_ + "dense/accuracy/agents", dense_right / asked, "",
                         absl::StrFormat("%d facts asked", static_cast<int>(asked)));
    for (const auto& way : ways_) {
      if (way->name() == "dense") continue;
      reporter_.PrintValue("reuse", absl::StrCat(prefix_, way->name(), "/points_lost/agents"),
                           100 * lost[way->name()] / asked, "points");
    }
    return absl::OkStatus();
  }

  void PrintStream(std::map<std::string, std::vector<double>>& seconds, int64_t requests) {
    const auto mean = [](const std::vector<double>& values) {
      double sum = 0;
      for (const double value : values) sum += value;
      return sum / static_cast<double>(values.size());
    };
    for (const char* name : {"auto", "kvcomm"}) {
      const std::string stream = std::string(name) == "auto" ? "stream" : "stream-kvcomm";
      for (const char* baseline : {"prefix", "dense"}) {
        const auto line = [&](const char* what, double ours, double theirs) {
          reporter_.Print(
              {.bench = "reuse",
               .name = absl::StrCat(prefix_, stream, "/", what, "/vs-", baseline),
               .value = 1e3 * ours,
               .unit = "ms",
               .baseline = baseline,
               .baseline_value = 1e3 * theirs,
               .ratio = theirs / ours,
               .note = absl::StrFormat("%d users from empty pools; %s", requests, note_)});
        };
        line("mean", mean(seconds[name]), mean(seconds[baseline]));
        line("p50", Median(seconds[name]), Median(seconds[baseline]));
        line("p99", Percentile(seconds[name], 99), Percentile(seconds[baseline], 99));
      }
    }
  }

  Model& model_;
  const AgentWorkload workload_;
  const std::string prefix_;
  const Flags& flags_;
  Reporter& reporter_;
  ReuseRates rates_;
  int64_t check_layer_ = 1;
  double copy_rate_ = 1;
  std::string note_;
  std::vector<std::unique_ptr<AgentWay>> ways_;
  Times times_;
  std::map<std::string, std::vector<Treatments>> treatments_;
  std::map<std::string, std::vector<std::pair<int64_t, Treatments>>> stream_;  // [way][call]
};

// More layers and longer prompts than the evaluation model's; its vocabulary.
ModelConfig MidSize(const ModelConfig& eval) {
  ModelConfig config = eval;
  config.hidden_size = 512;
  config.intermediate_size = 1408;
  config.layers = 12;
  config.heads = 8;
  config.kv_heads = 4;
  config.head_size = 64;
  config.max_positions = 2048;
  return config;
}

// A folder that is gone at the end.
class ScratchFolder {
 public:
  ScratchFolder()
      : path_((std::filesystem::temp_directory_path() / "kedge-reuse-XXXXXX").string()) {
    if (::mkdtemp(path_.data()) == nullptr) path_.clear();
  }
  ~ScratchFolder() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

absl::StatusOr<AgentWorkload> Workload(const quality::EvalModel& eval, const AgentOptions& options,
                                       int64_t max_tokens) {
  const std::vector<int32_t> bos = {static_cast<int32_t>(0)};
  return AgentWorkload::Create(
      options, [&eval](const std::string& text) { return eval.tokenizer.Encode(text); }, bos,
      max_tokens);
}

absl::Status Run(const Flags& flags) {
  Reporter reporter(flags.json);
  absl::StatusOr<quality::EvalModel> eval = quality::ReadEvalModel(flags.model);
  if (!eval.ok()) return eval.status();
  CpuDevice device(flags.threads);
  absl::StatusOr<std::unique_ptr<Model>> model = Model::Load(flags.model, device);
  if (!model.ok()) return model.status();
  const int rounds = flags.quick ? 3 : 5;
  ScratchFolder scratch;

  absl::StatusOr<AgentWorkload> workload = Workload(*eval, {}, eval->evaluated_tokens);
  if (!workload.ok()) return workload.status();
  AgentsBench agents(**model, *workload, "", flags, reporter);
  if (flags.Wants("agents")) {
    if (absl::Status s = agents.Start(3); !s.ok()) return s;
    if (absl::Status s = agents.Warm(flags.quick ? 6 : 20, flags.quick ? 1 : 4, rounds); !s.ok())
      return s;
    if (absl::Status s = agents.Stream(flags.quick ? 4 : 12); !s.ok()) return s;
  }
  if (!flags.quick && (flags.Wants("agents") || flags.Wants("dhd"))) {
    const ModelConfig config = MidSize((*model)->config());
    if (absl::Status s = WriteRandomCheckpoint(scratch.path(), config, 5); !s.ok()) return s;
    absl::StatusOr<std::unique_ptr<Model>> mid = Model::Load(scratch.path(), device);
    if (!mid.ok()) return mid.status();
    if (flags.Wants("agents")) {
      absl::StatusOr<AgentWorkload> larger =
          Workload(*eval, {.input_tokens = 192, .prefix_tokens = 128, .output_tokens = 128}, 2048);
      if (!larger.ok()) return larger.status();
      AgentsBench replay(**mid, *larger, "mid/", flags, reporter);
      if (absl::Status s = replay.Start(3); !s.ok()) return s;
      if (absl::Status s = replay.Replay(agents.treatments(), 3); !s.ok()) return s;
      if (absl::Status s = replay.ReplayStream(agents, 3); !s.ok()) return s;
    }
    if (flags.Wants("dhd")) {
      if (absl::Status s = RunCurve(**mid, rounds, reporter); !s.ok()) return s;
    }
  }
  ReuseQuality quality(*eval, flags.generator, scratch.path(), flags.threads, flags.quick,
                       reporter);
  if (flags.Wants("gate") || flags.Wants("auto") || flags.Wants("ablations")) {
    if (absl::Status s = quality.Prepare(); !s.ok()) return s;
  }
  if (flags.Wants("gate")) {
    if (absl::Status s = quality.Gate(); !s.ok()) return s;
  }
  if (flags.Wants("auto")) {
    if (absl::Status s = quality.Auto(flags.mix); !s.ok()) return s;
  }
  if (flags.Wants("ablations") && !flags.quick) return quality.Ablations();
  return absl::OkStatus();
}

}  // namespace
}  // namespace kedge::bench

int main(int argc, char** argv) {
  kedge::bench::Flags flags;
  CLI::App app("Measures reuse beyond exact prefixes: time, and answers.", "reuse_bench");
  app.add_option("--model", flags.model, "The evaluation model")->type_name("DIR");
  app.add_option("--generator", flags.generator, "Makes the task files")->type_name("FILE");
  app.add_option("--mix", flags.mix, "The frozen mix that auto is judged on")->type_name("FILE");
  app.add_option("--only", flags.parts, "agents, dhd, gate, auto, ablations")
      ->delimiter(',')
      ->check(CLI::IsMember({"agents", "dhd", "gate", "auto", "ablations"}));
  app.add_option("--threads", flags.threads, "Of the model")->check(CLI::Range(1, 1024));
  app.add_flag("--quick", flags.quick, "Within a minute");
  app.add_flag("--json", flags.json, "One JSON object a line");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  const absl::Status status = kedge::bench::Run(flags);
  if (status.ok()) return 0;
  std::fprintf(stderr, "reuse_bench: %s\n", std::string(status.message()).c_str());
  return absl::IsInvalidArgument(status) || absl::IsNotFound(status) ? 2 : 1;
}
