// kedge_demo: one node, end to end, on this machine. `tools/demo` builds and runs it.
//
// Starts a kedged on loopback (or an embedded node), answers questions with and without Kedge,
// replays the opening of a request trace, and shows the node's own counts.
//
// Exits 0; 1 when something failed, or an answer differs though nothing lossy was stored (with
// --policy kivi4 and the like that is said, and no failure); 2 for usage and input files; 130 after
// Ctrl-C.
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "tools/demonstration/agents.h"
#include "tools/demonstration/interrupt.h"
#include "tools/demonstration/node.h"
#include "tools/demonstration/progress.h"
#include "tools/demonstration/question_reader.h"
#include "tools/demonstration/report.h"
#include "tools/demonstration/reuse.h"
#include "tools/demonstration/scratch_directory.h"
#include "tools/demonstration/serving.h"
#include "tools/replay/replay.h"
#include "tools/replay/trace_reader.h"

namespace kedge {
namespace {

constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;
constexpr int kExitInterrupted = 130;

// Host tiers are smaller than what the replay stores, so that the SSD tier is used.
constexpr uint64_t kHostBytes = 320ull << 20;
constexpr uint64_t kHostBytesQuick = 192ull << 20;
constexpr uint64_t kSsdBytes = 1ull << 30;
constexpr uint64_t kOtherBytes = 384ull << 20;  // checkpoint, log, the SSD tier's open segment

// Whom offsets are learnt from.
constexpr int64_t kLearntUsers = 10;
constexpr int64_t kLearntUsersQuick = 5;

struct Flags {
  std::string kedged;
  std::string transport = "tcp";
  std::string dataset = "tools/demonstration/sample/questions.jsonl";
  std::string instructions = "tools/demonstration/sample/instructions.txt";
  std::string trace = "tools/demonstration/sample/trace.jsonl";
  std::string scratch;
  std::string json;
  uint64_t questions = 0;  // 0: as many as --quick says
  uint64_t requests = 0;
  int64_t answer_tokens = 16;
  AgentsOptions agents;
  int64_t learnt_users = 0;  // 0: as many as --quick says
  std::string policy = "raw";
  bool embedded = false;
  bool quick = false;
};

struct Inputs {
  std::string instructions;
  std::vector<std::string> questions;
  std::vector<TraceRequest> trace;
};

std::string Text(const absl::Status& status) { return std::string(status.message()); }

int Fail(int code, const std::string& text) {
  std::fprintf(stderr, "kedge_demo: %s\n", text.c_str());
  return code;
}
// A step that went wrong; what Ctrl-C did is no failure.
int FailStep(const absl::Status& status) {
  if (Interrupted()) return Fail(kExitInterrupted, "interrupted");
  return Fail(kExitFailed, Text(status));
}

std::string DefaultScratch() {
  const char* directory = std::getenv("TMPDIR");
  return directory != nullptr && *directory != '\0' ? directory : "/tmp";
}

void AddFlags(CLI::App& app, Flags& flags) {
  app.add_flag("--quick", flags.quick, "End within a minute");
  app.add_flag("--embedded", flags.embedded, "A node inside this process instead of a kedged");
  app.add_option(
         "--policy", flags.policy,
         "What the agents' blocks are stored as: raw, kivi4, kivi2, or a codec chain such as "
         "archive1, if the model's profile lets it")
      ->type_name("NAME")
      ->capture_default_str();
  app.add_option("--json", flags.json, "Write all figures into this file, as one object")
      ->type_name("FILE");
  app.add_option("--dataset", flags.dataset, "Questions, one {\"question\": ...} a line")
      ->type_name("FILE");
  app.add_option("--trace", flags.trace, "Requests, in the format of Mooncake's conversation trace")
      ->type_name("FILE");
  app.add_option("--instructions", flags.instructions, "What all questions stand behind")
      ->type_name("FILE");
  app.add_option("--questions", flags.questions, "How many; 8, or 3 with --quick")
      ->check(CLI::Range(1, 1000))
      ->type_name("N");
  app.add_option("--requests", flags.requests, "How many of the trace; 500, or 200 with --quick")
      ->check(CLI::Range(1, 1000000))
      ->type_name("N");
  app.add_option("--answer-tokens", flags.answer_tokens, "Length of an answer")
      ->check(CLI::Range(1, 4096))
      ->type_name("N");
  app.add_option("--transport", flags.transport, "What carries the bytes: tcp or shm")
      ->check(CLI::IsMember({"tcp", "shm"}))
      ->type_name("NAME");
  app.add_option("--kedged", flags.kedged, "The daemon; where the build put it when not given")
      ->type_name("FILE");
  app.add_option("--scratch", flags.scratch,
                 "Parent of the temporary directory; $TMPDIR or /tmp when not given")
      ->type_name("DIR");
}

// The lengths that KVCOMM's Table 3 varies.
void AddAgentFlags(CLI::App& app, Flags& flags) {
  AgentsOptions& agents = flags.agents;
  AgentOptions& workload = agents.workload;
  app.add_option("--model", agents.model, "Checkpoint that the agents run on; none: no agents")
      ->type_name("DIR");
  app.add_option("--agents", workload.agents, "How many")
      ->check(CLI::Range(1, 16))
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--agent-requests", agents.requests, "How many users ask them")
      ->check(CLI::Range(1, 10000))
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--agent-learnt", flags.learnt_users,
                 "How many other users offsets are learnt from; 10, or 5 with --quick")
      ->check(CLI::Range(1, 10000))
      ->type_name("N");
  app.add_option("--agent-input", workload.input_tokens, "Tokens of the user's question")
      ->check(CLI::Range(1, 1 << 20))
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--agent-prefix", workload.prefix_tokens, "Tokens of a role text")
      ->check(CLI::Range(2, 1 << 20))
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--agent-output", workload.output_tokens, "Tokens of a message")
      ->check(CLI::Range(1, 1 << 20))
      ->type_name("N")
      ->capture_default_str();
}

absl::StatusOr<Inputs> ReadInputs(const Flags& flags) {
  Inputs inputs;
  auto named = [](const char* flag, const absl::Status& status) {
    return absl::InvalidArgumentError(std::string(flag) + ": " + Text(status));
  };
  absl::StatusOr<std::string> instructions = ReadInstructions(flags.instructions);
  if (!instructions.ok()) return named("--instructions", instructions.status());
  inputs.instructions = *std::move(instructions);
  absl::StatusOr<std::vector<std::string>> questions =
      ReadQuestions(flags.dataset, flags.questions);
  if (!questions.ok()) return named("--dataset", questions.status());
  inputs.questions = *std::move(questions);
  absl::StatusOr<std::vector<TraceRequest>> trace = ReadTrace(flags.trace, flags.requests);
  if (!trace.ok()) return named("--trace", trace.status());
  inputs.trace = *std::move(trace);
  if (flags.agents.model.empty()) return inputs;
  if (absl::Status s = CheckAgents(flags.agents); !s.ok()) {
    return named(flags.agents.variant.empty() ? "--model" : "--model, --policy", s);
  }
  return inputs;
}

absl::StatusOr<ReplaySums> Replay(DemoNode& node, const std::vector<TraceRequest>& trace) {
  absl::StatusOr<const sdk::Client*> client = node.Connect();
  if (!client.ok()) return client.status();
  Progress progress("Replaying requests", trace.size());
  ReplayOptions options;
  options.on_request = [&](uint64_t done) {
    progress.Set(done);
    return !Interrupted();
  };
  absl::StatusOr<ReplaySums> sums = ReplayTrace(**client, trace, options);
  if (Interrupted()) return absl::CancelledError("interrupted");
  return sums;
}

// The codec chain of a policy; "" for raw.
std::string VariantOf(const std::string& policy) {
  if (policy == "raw") return "";
  if (policy == "kivi4" || policy == "kivi2") return policy + "g32";
  return policy;
}

int Run(const Flags& flags, const Inputs& inputs) {
  const auto start = std::chrono::steady_clock::now();
  DemoFigures figures;
  figures.dataset = flags.dataset;
  figures.trace = flags.trace;
  figures.quick = flags.quick;
  figures.questions = inputs.questions;
  const bool lossy = !flags.agents.variant.empty();
  if (lossy) figures.policy = flags.agents.variant;
  figures.host_bytes = flags.quick ? kHostBytesQuick : kHostBytes;
  figures.ssd_bytes = kSsdBytes;

  auto scratch = ScratchDirectory::Create(flags.scratch, figures.ssd_bytes + kOtherBytes);
  if (!scratch.ok()) return Fail(kExitUsage, Text(scratch.status()));
  auto node = DemoNode::Start({.embedded = flags.embedded,
                               .kedged = flags.kedged,
                               .transport = flags.transport,
                               .directory = (*scratch)->path(),
                               .host_bytes = figures.host_bytes,
                               .ssd_bytes = figures.ssd_bytes,
                               .profile = lossy ? ProfilePath(flags.agents.model) : ""});
  if (!node.ok()) return FailStep(node.status());
  figures.node = (*node)->address();
  std::fprintf(stderr, "Node at %s\n", figures.node.c_str());

  auto serving = ServeQuestions(**node, {.directory = (*scratch)->path() + "/checkpoint",
                                         .instructions = inputs.instructions,
                                         .questions = inputs.questions,
                                         .answer_tokens = flags.answer_tokens});
  if (!serving.ok()) return FailStep(serving.status());
  figures.serving = *std::move(serving);
  figures.wire = (*node)->wire();
  PrintServing(figures);
  std::fflush(stdout);

  if (!flags.agents.model.empty()) {
    auto agents = RunAgents(**node, flags.agents);
    if (!agents.ok()) return FailStep(agents.status());
    figures.agents = *std::move(agents);
    PrintAgents(figures);
    std::fflush(stdout);
  }

  if (!flags.agents.model.empty() && CanReuse(flags.agents.model)) {
    auto reuse = RunReuse(**node, {.model = flags.agents.model,
                                   .workload = flags.agents.workload,
                                   .learnt = flags.learnt_users,
                                   .requests = flags.agents.requests});
    if (!reuse.ok()) return FailStep(reuse.status());
    figures.reuse = *std::move(reuse);
    PrintReuse(figures);
    std::fflush(stdout);
  }

  PrintStored(figures);
  std::fflush(stdout);

  auto replay = Replay(**node, inputs.trace);
  if (!replay.ok()) return FailStep(replay.status());
  figures.replay = *std::move(replay);
  PrintReplay(figures);

  if (!flags.embedded) {
    auto metrics = (*node)->Metrics();
    if (!metrics.ok()) return FailStep(metrics.status());
    figures.metrics = *std::move(metrics);
  }
  PrintNode(figures);
  std::fflush(stdout);
  if (absl::Status s = (*node)->Stop(); !s.ok()) return FailStep(s);

  figures.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::printf("\nDone in %.0f seconds.\n", figures.seconds);
  if (!flags.json.empty()) {
    std::ofstream file(flags.json, std::ios::trunc);
    file << FiguresJson(figures);
    file.close();
    if (!file) return Fail(kExitFailed, "--json: " + flags.json + ": cannot be written");
  }
  if (!lossy &&
      (!figures.serving.same_tokens() || (figures.agents && !figures.agents->same_tokens())))
    return Fail(kExitFailed, "an answer with Kedge differs from the one without");
  return 0;
}

int Main(int argc, char** argv) {
  Flags flags;
  flags.scratch = DefaultScratch();
  CLI::App app("Kedge, end to end on this machine: reuse of KV by a real node, measured.",
               "kedge_demo");
  AddFlags(app, flags);
  AddAgentFlags(app, flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kExitUsage;
  }
  if (flags.questions == 0) flags.questions = flags.quick ? 3 : 8;
  if (flags.learnt_users == 0) flags.learnt_users = flags.quick ? kLearntUsersQuick : kLearntUsers;
  if (flags.requests == 0) flags.requests = flags.quick ? 200 : 500;
  if (!flags.json.empty() && !std::ofstream(flags.json, std::ios::app))
    return Fail(kExitUsage, "--json: " + flags.json + ": cannot be written");
  flags.agents.variant = VariantOf(flags.policy);
  if (!flags.agents.variant.empty() && flags.agents.model.empty())
    return Fail(kExitUsage, "--policy " + flags.policy + ": needs --model, and its profile");
  absl::StatusOr<Inputs> inputs = ReadInputs(flags);
  if (!inputs.ok()) return Fail(kExitUsage, Text(inputs.status()));
  CatchInterrupts();
  return Run(flags, *inputs);
}

}  // namespace
}  // namespace kedge

int main(int argc, char** argv) { return kedge::Main(argc, argv); }
