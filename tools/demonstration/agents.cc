#include "tools/demonstration/agents.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "gpu/codec/codec_chain.h"
#include "gpu/device/device_cpu.h"
#include "gpu/model/byte_tokenizer.h"
#include "gpu/model/model.h"
#include "gpu/profile/model_identity.h"
#include "proto/model_profile.h"
#include "tests/quality/eval_model.h"
#include "tools/demonstration/interrupt.h"
#include "tools/demonstration/progress.h"

namespace kedge {
namespace {

// Role texts are short: small blocks find more of them.
constexpr int64_t kBlockTokens = 32;

// The model's words: its tokenizer, or bytes for a checkpoint with random weights.
struct Reader {
  ModelConfig config;
  std::optional<Tokenizer> tokenizer;  // nothing: bytes
  int64_t max_tokens = 0;
  std::vector<int32_t> bos;

  absl::StatusOr<std::vector<int32_t>> Encode(const std::string& text) const {
    if (tokenizer) return tokenizer->Encode(text);
    return ByteTokenizer().Encode(text, /*add_bos=*/false);
  }
};

absl::StatusOr<Reader> ReadModel(const std::string& directory) {
  Reader reader;
  absl::StatusOr<quality::EvalModel> eval = quality::ReadEvalModel(directory);
  if (eval.ok()) {
    reader.config = eval->config;
    reader.max_tokens = eval->evaluated_tokens;
    const std::optional<int32_t> bos = eval->tokenizer.Find("<bos>");
    if (bos || eval->config.bos_token) reader.bos = {bos ? *bos : *eval->config.bos_token};
    reader.tokenizer = std::move(eval->tokenizer);
    return reader;
  }
  absl::StatusOr<ModelConfig> config = ReadModelConfig(directory);
  if (!config.ok() || config->vocabulary != ByteTokenizer::kVocabulary) return eval.status();
  reader.config = *config;
  reader.max_tokens = config->max_positions;
  reader.bos = {ByteTokenizer::kBos};
  return reader;
}

absl::StatusOr<AgentWorkload> MakeWorkload(const AgentOptions& options, const Reader& reader) {
  return AgentWorkload::Create(
      options, [&reader](const std::string& text) { return reader.Encode(text); }, reader.bos,
      reader.max_tokens);
}

absl::Status CheckVariant(const AgentsOptions& options) {
  const std::string path = ProfilePath(options.model);
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    return absl::NotFoundError(absl::StrCat(path, ": cannot be read, and without a profile ",
                                            options.variant, " is refused; tools/profile_model ",
                                            options.model, " makes one"));
  }
  absl::StatusOr<ModelProfile> profile =
      ModelProfile::Parse({std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()});
  if (!profile.ok()) {
    return absl::Status(profile.status().code(),
                        absl::StrCat(path, ": ", profile.status().message()));
  }
  const absl::Status known = codec::CodecChain::Parse(options.variant, &*profile).status();
  return known.ok() ? profile->Admits(options.variant) : known;
}

// All requests, three ways. The messages that agents read are those of the worker without Kedge.
class Run {
 public:
  Run(const AgentWorkload& workload, Model& model, AgentsFigures& figures)
      : workload_(workload), model_(model), figures_(figures) {}

  absl::Status Answer(DemoNode& node, const WorkerOptions& options, int64_t requests) {
    options_ = options;
    if (!options.variant.empty()) figures_.stored.variant = options.variant;
    absl::StatusOr<std::unique_ptr<Worker>> dense = Worker::Create(model_, nullptr, options_);
    if (!dense.ok()) return dense.status();
    if (absl::Status s = WarmUp(**dense); !s.ok()) return s;
    Progress progress("Agents answer", 3 * requests * workload_.options().agents);
    if (absl::Status s = DenseAndFirst(node, **dense, requests, progress); !s.ok()) return s;
    return Again(node, progress);
  }
  const std::vector<int32_t>& last_message() const { return last_message_; }

 private:
  // A message, or the answer to a question about one fact.
  struct Answered {
    int64_t agent;
    bool message;
    std::vector<int32_t> prompt;
    std::vector<int32_t> tokens;  // without Kedge
    bool same;
  };

  // Brings weights and code into memory, so that the first agent does not pay for it.
  absl::Status WarmUp(Worker& dense) {
    absl::StatusOr<AgentRequest> request = workload_.Request(0);
    if (!request.ok()) return request.status();
    return dense.Serve(request->question, 1).status();
  }

  absl::StatusOr<Served> Serve(Worker& worker, const std::vector<int32_t>& prompt,
                               int64_t max_new_tokens) {
    if (Interrupted()) return absl::CancelledError("interrupted");
    absl::StatusOr<Served> served = worker.Serve(prompt, max_new_tokens);
    if (served.ok() && figures_.trouble.empty()) figures_.trouble = served->trouble;
    if (served.ok()) {
      figures_.stored.Add(*served, static_cast<int64_t>(model_.kv_shape().raw_block_bytes()));
    }
    return served;
  }

  absl::Status DenseAndFirst(DemoNode& node, Worker& dense, int64_t requests, Progress& progress) {
    absl::StatusOr<const sdk::Client*> client = node.Connect();
    if (!client.ok()) return client.status();
    absl::StatusOr<std::unique_ptr<Worker>> first = Worker::Create(model_, *client, options_);
    if (!first.ok()) return first.status();
    for (int64_t number = 0; number < requests; ++number) {
      absl::StatusOr<AgentRequest> request = workload_.Request(number);
      if (!request.ok()) return request.status();
      std::vector<std::vector<int32_t>> messages;
      for (int64_t agent = 0; agent < workload_.options().agents; ++agent) {
        absl::Status status = Message(dense, **first, agent, *request, messages);
        for (const AgentFact& fact : request->facts) {
          if (status.ok()) status = Fact(dense, **first, agent, *request, messages, fact);
        }
        if (!status.ok()) return status;
        messages.push_back(last_message_);
        done_ += 2;
        progress.Set(done_, absl::StrCat("agent ", agent + 1, ", without and with Kedge"));
      }
    }
    return absl::OkStatus();
  }

  absl::Status Message(Worker& dense, Worker& first, int64_t agent, const AgentRequest& request,
                       const std::vector<std::vector<int32_t>>& messages) {
    AgentSums& sums = figures_.agents[agent];
    std::vector<int32_t> prompt = workload_.Prompt(agent, request, messages).tokens;
    absl::StatusOr<Served> without = Serve(dense, prompt, workload_.options().output_tokens);
    if (!without.ok()) return without.status();
    absl::StatusOr<Served> with = Serve(first, prompt, workload_.options().output_tokens);
    if (!with.ok()) return with.status();
    sums.prompt_tokens += without->prompt_tokens;
    sums.dense_ttft_ms += without->ttft_ms;
    sums.first_ttft_ms += with->ttft_ms;
    sums.first_matched_tokens += with->matched_tokens;
    last_message_ = without->tokens;
    answered_.push_back({agent, /*message=*/true, std::move(prompt), without->tokens,
                         without->tokens == with->tokens});
    return absl::OkStatus();
  }

  absl::Status Fact(Worker& dense, Worker& first, int64_t agent, const AgentRequest& request,
                    const std::vector<std::vector<int32_t>>& messages, const AgentFact& fact) {
    const auto length = static_cast<int64_t>(fact.answer.size());
    std::vector<int32_t> prompt = workload_.Prompt(agent, request, messages, fact.ask).tokens;
    absl::StatusOr<Served> without = Serve(dense, prompt, length);
    if (!without.ok()) return without.status();
    absl::StatusOr<Served> with = Serve(first, prompt, length);
    if (!with.ok()) return with.status();
    figures_.agents[agent].right_answers += without->tokens == fact.answer ? 1 : 0;
    answered_.push_back({agent, /*message=*/false, std::move(prompt), without->tokens,
                         without->tokens == with->tokens});
    return absl::OkStatus();
  }

  absl::Status Again(DemoNode& node, Progress& progress) {
    absl::StatusOr<const sdk::Client*> client = node.Connect();
    if (!client.ok()) return client.status();
    absl::StatusOr<std::unique_ptr<Worker>> again = Worker::Create(model_, *client, options_);
    if (!again.ok()) return again.status();
    for (const Answered& answered : answered_) {
      AgentSums& sums = figures_.agents[answered.agent];
      absl::StatusOr<Served> served =
          Serve(**again, answered.prompt, static_cast<int64_t>(answered.tokens.size()));
      if (!served.ok()) return served.status();
      const int64_t same = answered.same && served->tokens == answered.tokens ? 1 : 0;
      if (!answered.message) {
        sums.answers += 1;
        sums.same_answers += same;
        continue;
      }
      sums.again_ttft_ms += served->ttft_ms;
      sums.again_matched_tokens += served->matched_tokens;
      sums.messages += 1;
      sums.same_messages += same;
      progress.Set(++done_, "again, by another worker");
    }
    return absl::OkStatus();
  }

  const AgentWorkload& workload_;
  Model& model_;
  AgentsFigures& figures_;
  WorkerOptions options_;
  std::vector<Answered> answered_;
  std::vector<int32_t> last_message_;
  uint64_t done_ = 0;
};

}  // namespace

bool AgentsFigures::same_answers() const {
  return std::all_of(agents.begin(), agents.end(),
                     [](const AgentSums& sums) { return sums.same_answers == sums.answers; });
}

bool AgentsFigures::same_tokens() const {
  return same_answers() && std::all_of(agents.begin(), agents.end(), [](const AgentSums& sums) {
           return sums.same_messages == sums.messages;
         });
}

std::string ProfilePath(const std::string& model) {
  return (std::filesystem::path(model) / "kedge_profile.bin").string();
}

absl::Status CheckAgents(const AgentsOptions& options) {
  absl::StatusOr<Reader> reader = ReadModel(options.model);
  if (!reader.ok()) return reader.status();
  if (absl::Status s = MakeWorkload(options.workload, *reader).status(); !s.ok()) return s;
  return options.variant.empty() ? absl::OkStatus() : CheckVariant(options);
}

absl::StatusOr<AgentsFigures> RunAgents(DemoNode& node, const AgentsOptions& options) {
  absl::StatusOr<Reader> reader = ReadModel(options.model);
  if (!reader.ok()) return reader.status();
  absl::StatusOr<AgentWorkload> workload = MakeWorkload(options.workload, *reader);
  if (!workload.ok()) return workload.status();
  CpuDevice device;
  absl::StatusOr<std::unique_ptr<Model>> model =
      Model::Load(options.model, device, {.block_tokens = kBlockTokens});
  if (!model.ok()) return model.status();

  AgentsFigures figures;
  figures.model = absl::StrFormat("%s: %s with %d layers, %.1f million weights", options.model,
                                  ArchitectureName((*model)->config().architecture),
                                  (*model)->config().layers, (*model)->parameters() / 1e6);
  figures.workload = options.workload;
  figures.requests = options.requests;
  figures.block_tokens = (*model)->block_tokens();
  figures.agents.resize(options.workload.agents);
  Run run(*workload, **model, figures);
  absl::StatusOr<std::string> weights = profile::WeightsDigest(options.model);
  if (!weights.ok()) return weights.status();
  const bool lossy = !options.variant.empty();
  absl::Status status = run.Answer(node,
                                   {.weights_id = *weights,
                                    .tokenizer_id = *weights,
                                    .variant = options.variant,
                                    .profile = lossy ? ProfilePath(options.model) : ""},
                                   options.requests);
  if (!status.ok()) return status;
  if (reader->tokenizer) figures.sample = reader->tokenizer->Decode(run.last_message());
  return figures;
}

}  // namespace kedge
