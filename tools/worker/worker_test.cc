#include "tools/worker/worker.h"

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gpu/device/device_cpu.h"
#include "gpu/model/random_checkpoint.h"
#include "gtest/gtest.h"
#include "proto/block_key.h"
#include "tools/worker/kv_blocks.h"

namespace kedge {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kBlockTokens = 32;
constexpr int64_t kNewTokens = 6;
const WorkerOptions kOptions = {
    .weights_id = "test", .tokenizer_id = "test", .keep_logits = true, .lease_ms = 5000};

ModelConfig TinyLlama() {
  return {.hidden_size = 48,
          .intermediate_size = 96,
          .layers = 3,
          .heads = 4,
          .kv_heads = 2,
          .head_size = 12,
          .vocabulary = 97,
          .max_positions = 2048};
}

std::vector<int32_t> Prompt(int64_t tokens, int32_t seed) {
  std::vector<int32_t> prompt(tokens);
  for (int64_t i = 0; i < tokens; ++i)
    prompt[i] = static_cast<int32_t>((seed + i * i * 31 + i * 7) % 97);
  return prompt;
}

class WorkerTest : public ::testing::Test {
 protected:
  WorkerTest() {
    const char* directory = std::getenv("TEST_TMPDIR");
    const std::string checkpoint =
        std::string(directory != nullptr ? directory : "/tmp") + "/tiny_llama";
    EXPECT_TRUE(WriteRandomCheckpoint(checkpoint, TinyLlama(), 11).ok());
    auto model = Model::Load(checkpoint, device_, {.block_tokens = kBlockTokens});
    EXPECT_TRUE(model.ok()) << model.status().message();
    model_ = *std::move(model);
    auto client = sdk::Client::Open({.address = "embedded:?host=128MiB", .salt = "worker test"});
    EXPECT_TRUE(client) << client.text();
    client_.emplace(std::move(*client));
  }

  std::unique_ptr<Worker> MakeWorker(const sdk::Client* client, const WorkerOptions& options) {
    auto worker = Worker::Create(*model_, client, options);
    EXPECT_TRUE(worker.ok()) << worker.status().message();
    return *std::move(worker);
  }
  Served Serve(Worker& worker, std::span<const int32_t> prompt) {
    auto served = worker.Serve(prompt, kNewTokens);
    EXPECT_TRUE(served.ok()) << served.status().message();
    return served.ok() ? *std::move(served) : Served();
  }
  Served Dense(std::span<const int32_t> prompt) {
    return Serve(*MakeWorker(nullptr, kOptions), prompt);
  }
  // Takes the first block of a run (kPlacementRunBlocks of them) away from the node: it lies where
  // its key alone says.
  void Remove(std::span<const int32_t> prompt, uint32_t block) {
    ASSERT_EQ(block % kPlacementRunBlocks, 0u);
    auto model = client_->OpenModel(StoreModel(*model_, "test", "test"));
    auto sequence = model->FromTokens(prompt);
    const sdk::Key key = *sequence->key(block);
    auto request = client_->Remove({&key, 1});
    ASSERT_TRUE(request) << request.text();
    auto status = sdk::Client::Finish(*request);
    ASSERT_TRUE(status) << status.text();
  }

  CpuDevice device_{2};
  std::unique_ptr<Model> model_;
  std::optional<sdk::Client> client_;
};

void ExpectSameBits(const Served& a, const Served& b) {
  EXPECT_EQ(a.tokens, b.tokens);
  ASSERT_EQ(a.logits.size(), static_cast<size_t>(kNewTokens));
  ASSERT_EQ(b.logits.size(), static_cast<size_t>(kNewTokens));
  for (size_t i = 0; i < a.logits.size(); ++i) {
    ASSERT_EQ(a.logits[i].values.size(), b.logits[i].values.size());
    EXPECT_EQ(std::memcmp(a.logits[i].values.data(), b.logits[i].values.data(),
                          a.logits[i].values.size() * sizeof(float)),
              0)
        << "logits of new token " << i;
  }
}

TEST_F(WorkerTest, WarmIsDenseBitByBit) {
  const std::vector<int32_t> prompt = Prompt(150, 1);
  const Served dense = Dense(prompt);
  EXPECT_EQ(dense.computed_tokens, 150);
  EXPECT_EQ(dense.matched_tokens, 0);

  const Served cold = Serve(*MakeWorker(&*client_, kOptions), prompt);
  EXPECT_EQ(cold.trouble, "");
  EXPECT_EQ(cold.matched_tokens, 0);
  EXPECT_EQ(cold.stored_blocks, 4u);
  EXPECT_EQ(cold.stored_bytes, 4u * 3 * 2 * kBlockTokens * 2 * 12 * 4);
  ExpectSameBits(cold, dense);

  for (bool overlap : {true, false}) {
    WorkerOptions options = kOptions;
    options.overlap = overlap;
    const Served warm = Serve(*MakeWorker(&*client_, options), prompt);
    EXPECT_EQ(warm.trouble, "");
    EXPECT_EQ(warm.fetched_tokens, 128);
    EXPECT_EQ(warm.computed_tokens, 22);
    EXPECT_EQ(warm.fetched_bytes, cold.stored_bytes);
    EXPECT_EQ(warm.stored_blocks, 0u);
    ExpectSameBits(warm, dense);
  }
}

TEST_F(WorkerTest, ASharedBeginningIsReused) {
  std::vector<int32_t> first = Prompt(130, 2), second = first;
  second.resize(100);
  for (int32_t token : Prompt(90, 3)) second.push_back(token);
  Serve(*MakeWorker(&*client_, kOptions), first);
  const Served served = Serve(*MakeWorker(&*client_, kOptions), second);
  EXPECT_EQ(served.fetched_tokens, 96);
  EXPECT_EQ(served.stored_blocks, 2u) << "190 tokens have 5 blocks, 3 of them were held";
  ExpectSameBits(served, Dense(second));
}

TEST_F(WorkerTest, TheLastTokenIsAlwaysComputed) {
  const std::vector<int32_t> prompt = Prompt(96, 4);  // whole blocks only
  Serve(*MakeWorker(&*client_, kOptions), prompt);
  const Served warm = Serve(*MakeWorker(&*client_, kOptions), prompt);
  EXPECT_EQ(warm.matched_tokens, 96);
  EXPECT_EQ(warm.fetched_tokens, 64);
  EXPECT_EQ(warm.computed_tokens, 32);
  EXPECT_EQ(warm.stored_blocks, 0u);
  EXPECT_EQ(warm.trouble, "");
  ExpectSameBits(warm, Dense(prompt));
}

TEST_F(WorkerTest, AFetchThatFailsIsADensePrefill) {
  const std::vector<int32_t> prompt = Prompt(150, 5);
  const Served dense = Dense(prompt);
  for (bool overlap : {true, false}) {
    Serve(*MakeWorker(&*client_, kOptions), prompt);
    WorkerOptions options = kOptions;
    options.overlap = overlap;
    options.lease_ms = 0;  // nothing holds the blocks between match and fetch
    options.after_match = [&] { Remove(prompt, 0); };
    const Served served = Serve(*MakeWorker(&*client_, options), prompt);
    EXPECT_EQ(served.matched_tokens, 128);
    EXPECT_EQ(served.fetched_tokens, 0);
    EXPECT_EQ(served.computed_tokens, 150);
    EXPECT_EQ(served.stored_blocks, 1u) << "what was gone is stored again";
    EXPECT_THAT(served.trouble, HasSubstr("fetch"));
    ExpectSameBits(served, dense);
  }
}

TEST_F(WorkerTest, APartialFetchIsAUsablePrefix) {
  const std::vector<int32_t> prompt = Prompt(34 * kBlockTokens + 10, 6);
  const Served dense = Dense(prompt);
  for (bool overlap : {true, false}) {
    Serve(*MakeWorker(&*client_, kOptions), prompt);
    WorkerOptions options = kOptions;
    options.overlap = overlap;
    options.lease_ms = 0;
    options.after_match = [&] { Remove(prompt, 32); };
    const Served served = Serve(*MakeWorker(&*client_, options), prompt);
    EXPECT_EQ(served.matched_tokens, 34 * kBlockTokens);
    EXPECT_EQ(served.fetched_tokens, 32 * kBlockTokens);
    EXPECT_EQ(served.computed_tokens, 2 * kBlockTokens + 10);
    EXPECT_EQ(served.stored_blocks, 1u) << "the block after the gap is held";
    EXPECT_THAT(served.trouble, HasSubstr("fetch"));
    ExpectSameBits(served, dense);
  }
}

TEST_F(WorkerTest, ReadOnlyStoresNothing) {
  const std::vector<int32_t> prompt = Prompt(100, 7);
  WorkerOptions options = kOptions;
  options.store = false;
  Serve(*MakeWorker(&*client_, options), prompt);
  const Served again = Serve(*MakeWorker(&*client_, options), prompt);
  EXPECT_EQ(again.matched_tokens, 0);
  EXPECT_EQ(again.stored_blocks, 0u);
  ExpectSameBits(again, Dense(prompt));
}

TEST_F(WorkerTest, OtherWeightsShareNothing) {
  const std::vector<int32_t> prompt = Prompt(100, 8);
  Serve(*MakeWorker(&*client_, kOptions), prompt);
  WorkerOptions options = kOptions;
  options.weights_id = "others";
  EXPECT_EQ(Serve(*MakeWorker(&*client_, options), prompt).matched_tokens, 0);
}

TEST_F(WorkerTest, BadPromptsAreNamed) {
  std::unique_ptr<Worker> worker = MakeWorker(&*client_, kOptions);
  EXPECT_THAT(std::string(worker->Serve({}, 1).status().message()), HasSubstr("prompt"));
  EXPECT_THAT(std::string(worker->Serve(Prompt(3, 9), 0).status().message()),
              HasSubstr("max_new_tokens: 0"));
  EXPECT_THAT(std::string(worker->Serve(std::vector<int32_t>{1, 97}, 1).status().message()),
              HasSubstr("97"));
  EXPECT_FALSE(worker->Serve(Prompt(2048, 9), 1).ok()) << "more than max_positions";
}

}  // namespace
}  // namespace kedge
