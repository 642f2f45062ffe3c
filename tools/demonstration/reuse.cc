#include "tools/demonstration/reuse.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/client_limits.h"
#include "client/engine.h"
#include "client/reuse/node_pools.h"
#include "gpu/device/device_cpu.h"
#include "tests/quality/eval_model.h"
#include "tools/agents/agent_way.h"
#include "tools/demonstration/interrupt.h"
#include "tools/demonstration/progress.h"

namespace kedge {
namespace {

constexpr int64_t kBlockTokens = 32;  // as in agents.cc
constexpr int64_t kCheckLayer = 2;    // of 8; see client/README.md
constexpr double kRatio = 0.15;
constexpr int64_t kLearntFrom = 1000;  // other users than those who are answered
constexpr const char* kWays[] = {"dense", "prefix", "kvcomm", "dhd", "auto"};

// The node's pools, over a connection of their own; salt and model name them there.
class Pools {
 public:
  ~Pools() {
    pools_.reset();
    if (engine_ != nullptr) engine_->Close();
  }
  absl::Status Open(const std::string& address) {
    absl::StatusOr<std::shared_ptr<Engine>> engine =
        Engine::Open({.address = address, .client_name = "kedge_demo"});
    if (!engine.ok()) return engine.status();
    engine_ = *std::move(engine);
    if (absl::Status s = engine_->WaitConnected(kConnectDefaultMs); !s.ok()) return s;
    pools_.emplace(engine_, *TenantSalt::FromText("the demonstration's agents"), Fingerprint{});
    return absl::OkStatus();
  }
  OffsetPools* get() { return pools_ ? &*pools_ : nullptr; }

 private:
  std::shared_ptr<Engine> engine_;
  std::optional<NodePools> pools_;
};

void Add(const TurnResult& result, const AgentTurn& turn, ReuseSums& sums) {
  sums.prompt_tokens += static_cast<int64_t>(turn.prompt.tokens.size());
  sums.ttft_ms += result.seconds * 1000;
  for (int i = 0; i < kTreatments; ++i)
    sums.tokens[static_cast<size_t>(i)] += result.decision.tokens(static_cast<Treatment>(i));
  sums.reused_tokens += result.decision.reused_tokens();
  sums.worst = std::max(sums.worst, result.decision.provenance());
}

class Run {
 public:
  Run(Model& model, const AgentWorkload& workload, const ReuseDemoOptions& options)
      : model_(model),
        workload_(workload),
        options_(options),
        progress_("Agents reuse", static_cast<uint64_t>((options.learnt + options.requests) *
                                                        workload.options().agents)) {}

  absl::Status MakeWays(OffsetPools* pools) {
    absl::StatusOr<ReuseRates> rates = MeasureReuseRates(model_);
    if (!rates.ok()) return rates.status();
    for (const char* name : kWays) {
      const bool dhd = std::string_view(name) == "dhd";
      const RecomputeConfig recompute{
          .policy = dhd ? RecomputePolicy::kDhd : RecomputePolicy::kCacheBlend,
          .check_layer = std::min(kCheckLayer, model_.config().layers - 1),
          .ratio = kRatio};
      ways_.push_back(std::make_unique<AgentWay>(
          model_, workload_,
          WayOptions{.name = name, .recompute = recompute, .rates = *rates, .pools = pools}));
      figures_.ways.push_back({name, {}});
      figures_.ways.back().agents.resize(static_cast<size_t>(workload_.options().agents));
    }
    figures_.node_pools = pools != nullptr;
    return absl::OkStatus();
  }

  // One user after the other: their calls are computed densely anyway, and learnt from.
  absl::Status Learn() {
    for (int64_t user = 0; user < options_.learnt; ++user) {
      auto turns = MakeTurns(model_, workload_, kLearntFrom + user, 1, /*decode=*/true);
      if (!turns.ok()) return turns.status();
      for (const AgentTurn& turn : *turns) {
        if (Interrupted()) return absl::CancelledError("interrupted");
        for (const auto& way : ways_) {
          const bool learns = way->name() == "kvcomm" ||
                              (way->name() == "auto" && !figures_.node_pools);  // else one pool
          if (!learns) continue;
          if (absl::Status s = way->Learn(turn); !s.ok()) return s;
        }
        progress_.Set(++done_, absl::StrCat("learning from user ", user + 1));
      }
    }
    return absl::OkStatus();
  }

  absl::Status Answer() {
    auto turns = MakeTurns(model_, workload_, 0, options_.requests, /*decode=*/true);
    if (!turns.ok()) return turns.status();
    for (const auto& way : ways_) {
      if (absl::Status s = way->Prepare(*turns); !s.ok()) return s;
      // Once for nothing, so that no way pays for what is read for the first time.
      if (absl::Status s = way->Run(turns->front(), turns->front().prompt).status(); !s.ok())
        return s;
      way->Forget(turns->front());
    }
    for (const AgentTurn& turn : *turns) {
      if (Interrupted()) return absl::CancelledError("interrupted");
      if (absl::Status s = AnswerTurn(turn); !s.ok()) return s;
      progress_.Set(++done_, absl::StrCat("agent ", turn.agent + 1, ", in every way"));
    }
    return absl::OkStatus();
  }

  ReuseFigures figures() && {
    figures_.learnt = options_.learnt;
    figures_.requests = options_.requests;
    return std::move(figures_);
  }

 private:
  absl::Status AnswerTurn(const AgentTurn& turn) {
    std::vector<std::vector<int32_t>> dense;
    for (size_t i = 0; i < ways_.size(); ++i) {
      AgentWay& way = *ways_[i];
      ReuseSums& sums = figures_.ways[i].agents[static_cast<size_t>(turn.agent)];
      absl::StatusOr<TurnResult> result = way.Run(turn, turn.prompt);
      if (!result.ok()) return result.status();
      Add(*result, turn, sums);
      absl::StatusOr<std::vector<std::vector<int32_t>>> said = way.Said(turn);
      if (!said.ok()) return said.status();
      if (i == 0) dense = *said;
      for (size_t fact = 0; fact < said->size(); ++fact) {
        sums.answers += 1;
        sums.same_answers += (*said)[fact] == dense[fact] ? 1 : 0;
      }
      if (absl::Status s = way.Idle(turn).status(); !s.ok()) return s;
    }
    return absl::OkStatus();
  }

  Model& model_;
  const AgentWorkload& workload_;
  const ReuseDemoOptions& options_;
  Progress progress_;
  uint64_t done_ = 0;
  std::vector<std::unique_ptr<AgentWay>> ways_;
  ReuseFigures figures_;
};

}  // namespace

bool CanReuse(const std::string& model) { return quality::ReadEvalModel(model).ok(); }

absl::StatusOr<ReuseFigures> RunReuse(const DemoNode& node, const ReuseDemoOptions& options) {
  absl::StatusOr<quality::EvalModel> eval = quality::ReadEvalModel(options.model);
  if (!eval.ok()) return eval.status();
  const std::optional<int32_t> bos = eval->tokenizer.Find("<bos>");
  std::vector<int32_t> lead;
  if (bos || eval->config.bos_token) lead = {bos ? *bos : *eval->config.bos_token};
  absl::StatusOr<AgentWorkload> workload = AgentWorkload::Create(
      options.workload,
      [&](const std::string& text) -> absl::StatusOr<std::vector<int32_t>> {
        return eval->tokenizer.Encode(text);
      },
      lead, eval->evaluated_tokens);
  if (!workload.ok()) return workload.status();
  CpuDevice device;
  absl::StatusOr<std::unique_ptr<Model>> model =
      Model::Load(options.model, device, {.block_tokens = kBlockTokens});
  if (!model.ok()) return model.status();

  Pools pools;
  if (!node.embedded()) {
    if (absl::Status s = pools.Open(node.address()); !s.ok()) return s;
  }
  Run run(**model, *workload, options);
  if (absl::Status s = run.MakeWays(pools.get()); !s.ok()) return s;
  if (absl::Status s = run.Learn(); !s.ok()) return s;
  if (absl::Status s = run.Answer(); !s.ok()) return s;
  return std::move(run).figures();
}

}  // namespace kedge
