// What an inference worker does with Kedge, without the inference: match a prompt, fetch the KV
// that is there layer by layer, compute the rest, store it. The "prefill" here fills memory with
// numbers made of the tokens.
//
//   prefix_worker [ADDRESS]

#include <cstdio>
#include <numeric>
#include <vector>

#include "client/kv_client.h"

namespace {

using namespace kedge::sdk;  // NOLINT

constexpr uint32_t kLayers = 8;
constexpr uint32_t kBlockTokens = 64;

// Serves one prompt; returns how many of its tokens did not have to be computed.
Result<uint64_t> Serve(const Model& model, const std::vector<int32_t>& prompt) {
  auto sequence = model.FromTokens(prompt);
  if (!sequence) return sequence.status();
  const uint32_t blocks = sequence->blocks();
  std::vector<std::vector<uint8_t>> kv(blocks, std::vector<uint8_t>(model.block_bytes()));
  std::vector<BlockBuffer> buffers;
  for (auto& block : kv) buffers.push_back({{block.data(), block.size()}});
  const std::span<const BlockBuffer> all(buffers);

  uint32_t usable = 0;
  auto match = sequence->MatchRun({.lease_ms = 5000});
  if (match && match->blocks() > 0) {
    auto fetch = sequence->Fetch({.block_count = match->blocks(), .layer_group = 1},
                                 all.first(match->blocks()));
    if (!fetch) return fetch.status();
    for (uint32_t layer = 1; layer <= kLayers; ++layer) {
      fetch->WaitLayers(layer);  // a real worker attends over this layer now
    }
    fetch->Wait();
    usable = fetch->prefix();
  }  // no answer is a miss: compute all of it

  for (uint32_t block = usable; block < blocks; ++block) {
    std::iota(kv[block].begin(), kv[block].end(),
              static_cast<uint8_t>(prompt[block * kBlockTokens]));
  }
  if (usable < blocks) {
    auto store = sequence->Store({.block_begin = usable, .block_count = blocks - usable},
                                 all.subspan(usable));
    if (!store) return store.status();
    store->Wait();
    if (!store->all_ok()) std::fprintf(stderr, "store: %s\n", store->text().c_str());
  }
  return uint64_t{usable} * kBlockTokens;
}

}  // namespace

int main(int argc, char** argv) {
  auto client =
      Client::Open({.address = argc > 1 ? argv[1] : "embedded:", .salt = "the tenant's secret"});
  if (!client) {
    std::fprintf(stderr, "%s\n", client.text().c_str());
    return 1;
  }
  auto model = client->OpenModel({.weights_id = "example/model@1",
                                  .tokenizer_id = "example/tokenizer",
                                  .dtype = DType::kBf16,
                                  .layer_count = kLayers,
                                  .kv_heads = 2,
                                  .head_size = 64,
                                  .block_tokens = kBlockTokens,
                                  .rope_theta = 1e4});
  if (!model) {
    std::fprintf(stderr, "%s\n", model.text().c_str());
    return 1;
  }
  // Four questions behind the same 1,000 tokens of instructions.
  std::vector<int32_t> instructions(1000);
  std::iota(instructions.begin(), instructions.end(), 1);
  for (int32_t question = 0; question < 4; ++question) {
    std::vector<int32_t> prompt = instructions;
    for (int32_t i = 0; i < 200; ++i) prompt.push_back(10'000 * (question + 1) + i);
    auto saved = Serve(*model, prompt);
    if (!saved) {
      std::fprintf(stderr, "%s\n", saved.text().c_str());
      return 1;
    }
    std::printf("question %d: %zu tokens, %llu of them reused\n", question, prompt.size(),
                static_cast<unsigned long long>(*saved));
  }
  return 0;
}
