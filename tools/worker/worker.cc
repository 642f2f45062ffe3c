#include "tools/worker/worker.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gpu/kernels/sampling.h"
#include "tools/worker/kv_blocks.h"
#include "tools/worker/layer_store.h"

namespace kedge {
namespace {

using SteadyClock = std::chrono::steady_clock;

double MsSince(SteadyClock::time_point start) {
  return std::chrono::duration<double, std::milli>(SteadyClock::now() - start).count();
}

}  // namespace

// Declared in the order of its making: requests end before the cache that they fill goes.
struct Worker::Journey {
  Journey(std::span<const int32_t> prompt_tokens, KvCache kv)
      : prompt(prompt_tokens), cache(std::move(kv)) {
    served.prompt_tokens = static_cast<int64_t>(prompt.size());
  }
  void Trouble(const char* step, const std::string& text) {
    if (served.trouble.empty()) served.trouble = absl::StrCat(step, ": ", text);
  }

  const std::span<const int32_t> prompt;
  KvCache cache;
  Served served;
  std::optional<sdk::Sequence> sequence;  // nothing: the node is not asked
  std::optional<sdk::Match> match;
  uint32_t blocks = 0;  // to fetch
  uint32_t held = 0;    // leading blocks that need not be stored
  std::optional<sdk::Request> fetch;
  SteadyClock::time_point fetch_start;
  std::optional<LayerStore> store;
};

absl::StatusOr<std::unique_ptr<Worker>> Worker::Create(Model& model, const sdk::Client* client,
                                                       const WorkerOptions& options) {
  std::optional<sdk::Model> blocks;
  if (client != nullptr) {
    sdk::ModelOptions model_options = StoreModel(model, options.weights_id, options.tokenizer_id);
    model_options.profile = options.profile;
    model_options.allow_unprofiled = options.allow_unprofiled;
    auto opened = client->OpenModel(model_options);
    if (!opened) return absl::InvalidArgumentError(absl::StrCat("model: ", opened.text()));
    blocks = std::move(*opened);
  }
  return std::unique_ptr<Worker>(new Worker(model, std::move(blocks), options));
}

Worker::Worker(Model& model, std::optional<sdk::Model> blocks, const WorkerOptions& options)
    : model_(model), blocks_(std::move(blocks)), options_(options) {
  if (!options_.variant.empty()) accepted_ = {"raw", options_.variant};
}

absl::StatusOr<Served> Worker::Serve(std::span<const int32_t> prompt, int64_t max_new_tokens) {
  const SteadyClock::time_point start = SteadyClock::now();
  if (prompt.empty()) return absl::InvalidArgumentError("prompt: has no token");
  if (max_new_tokens < 1)
    return absl::InvalidArgumentError(
        absl::StrCat("max_new_tokens: ", max_new_tokens, " is less than 1"));
  absl::StatusOr<KvCache> cache =
      model_.NewCache(static_cast<int64_t>(prompt.size()) + max_new_tokens);
  if (!cache.ok()) return cache.status();

  Journey journey(prompt, *std::move(cache));
  Match(journey);
  if (options_.after_match) options_.after_match();
  BeginFetch(journey);
  absl::StatusOr<Logits> logits = Prefill(journey);
  if (!logits.ok()) return logits.status();
  journey.served.tokens.push_back(kernels::ArgMax(logits->row(logits->rows() - 1)));
  journey.served.ttft_ms = MsSince(start);

  if (journey.store) journey.store->Commit();
  if (journey.fetch) journey.fetch->Wait();
  journey.match.reset();  // gives the lease back
  if (absl::Status s = Decode(journey, *std::move(logits), max_new_tokens); !s.ok()) return s;
  if (journey.store) {
    journey.store->Wait();
    journey.served.stored_blocks = journey.store->stored_blocks();
    journey.served.stored_bytes = journey.store->stored_bytes();
    if (journey.served.trouble.empty()) journey.served.trouble = journey.store->trouble();
  }
  journey.served.total_ms = MsSince(start);
  return std::move(journey.served);
}

void Worker::Match(Journey& journey) {
  if (!blocks_) return;
  const SteadyClock::time_point start = SteadyClock::now();
  auto sequence = blocks_->FromTokens(journey.prompt);
  if (!sequence) return journey.Trouble("sequence", sequence.text());
  auto match = sequence->MatchRun(
      {.lease_ms = options_.lease_ms, .variants = accepted_, .deadline_ms = options_.deadline_ms});
  journey.served.match_ms = MsSince(start);
  if (!match) return journey.Trouble("match", match.text());

  journey.served.matched_tokens = static_cast<int64_t>(match->tokens());
  journey.served.matched_blocks_ssd = match->result().blocks_ssd;
  journey.served.lossy_blocks = match->result().blocks_lossy;
  journey.held = match->blocks();
  // The last token is computed in any case, and its block with it.
  const int64_t fetchable = (journey.served.prompt_tokens - 1) / model_.block_tokens();
  journey.blocks =
      static_cast<uint32_t>(std::min<int64_t>({journey.held, fetchable, int64_t{KEDGE_BATCH_MAX}}));
  journey.sequence = std::move(*sequence);
  journey.match = std::move(*match);
}

void Worker::BeginFetch(Journey& journey) {
  if (journey.blocks == 0) return;
  journey.fetch_start = SteadyClock::now();
  auto fetch =
      journey.sequence->Fetch({.block_count = journey.blocks,
                               .layer_group = options_.layer_group,
                               .variants = accepted_,
                               .deadline_ms = options_.deadline_ms},
                              BlockSpans(journey.cache, model_.block_tokens(), 0, journey.blocks));
  if (fetch) {
    journey.fetch = std::move(*fetch);
  } else {
    journey.Trouble("fetch", fetch.text());
    journey.blocks = 0;
    journey.held = 0;
  }
}

absl::StatusOr<Logits> Worker::Prefill(Journey& journey) {
  if (!journey.fetch) return PrefillOver(journey, 0, false);
  if (options_.overlap) {
    absl::StatusOr<Logits> logits = PrefillOver(journey, journey.blocks, true);
    // Aborted: a layer of some block did not come. What is whole is still good.
    if (logits.ok() || !absl::IsAborted(logits.status())) return logits;
  }
  journey.fetch->Wait();
  journey.served.fetch_ms = MsSince(journey.fetch_start);
  const uint32_t arrived = journey.fetch->prefix();
  if (arrived < journey.blocks) {
    journey.Trouble("fetch", journey.fetch->text());
    journey.held = arrived;
  }
  return PrefillOver(journey, arrived, false);
}

absl::StatusOr<Logits> Worker::PrefillOver(Journey& journey, uint32_t blocks, bool wait) {
  const int64_t block_tokens = model_.block_tokens();
  journey.store.reset();  // one of an attempt that was given up: its blocks are computed again
  if (journey.sequence && options_.store) {
    const uint32_t begin = std::max(blocks, journey.held);
    const uint32_t count = std::min(journey.sequence->blocks() - begin, KEDGE_BATCH_MAX);
    journey.store.emplace(*journey.sequence, journey.cache, block_tokens,
                          sdk::StoreOptions{.block_begin = begin,
                                            .block_count = count,
                                            .durability = options_.durability,
                                            .deadline_ms = options_.deadline_ms,
                                            .variant = options_.variant});
  }
  PrefillOptions options;
  if (journey.store)
    options.on_layer_done = [&](int64_t layer, int64_t first_token, int64_t tokens) {
      journey.store->OnLayerDone(layer, first_token, tokens);
    };
  if (wait)
    options.wait_for_layer = [&](int64_t layer) {
      std::optional<uint32_t> there = journey.fetch->WaitLayers(static_cast<uint32_t>(layer) + 1);
      if (!there || *there < blocks) return absl::AbortedError("fetch");
      journey.served.fetch_ms = MsSince(journey.fetch_start);
      return absl::OkStatus();
    };
  journey.cache.set_length(blocks * block_tokens);
  absl::StatusOr<Logits> logits = model_.Prefill(journey.prompt, journey.cache, options);
  if (!logits.ok()) return logits;
  journey.served.fetched_tokens = blocks * block_tokens;
  journey.served.computed_tokens = journey.served.prompt_tokens - blocks * block_tokens;
  if (blocks > 0) journey.served.fetched_bytes = blocks * blocks_->block_bytes();
  return logits;
}

absl::Status Worker::Decode(Journey& journey, Logits logits, int64_t max_new_tokens) {
  std::vector<int32_t>& tokens = journey.served.tokens;
  for (;;) {
    if (options_.keep_logits) journey.served.logits.push_back(std::move(logits));
    if (static_cast<int64_t>(tokens.size()) >= max_new_tokens) return absl::OkStatus();
    absl::StatusOr<Logits> next = model_.Decode(tokens.back(), journey.cache);
    if (!next.ok()) return next.status();
    tokens.push_back(kernels::ArgMax(next->row(0)));
    logits = *std::move(next);
  }
}

}  // namespace kedge
