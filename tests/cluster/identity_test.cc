// Decoding after a fetch is decoding after a dense prefill, bit by bit: the raw variant, the same
// runner, Llama and Qwen2; from an embedded node, from a kedged over tcp and over shared memory,
// and from a kedged that was killed and has only its SSD left.
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "client/kv_client.h"
#include "gpu/device/device_cpu.h"
#include "gpu/model/model.h"
#include "gpu/model/random_checkpoint.h"
#include "gtest/gtest.h"
#include "tests/cluster/kedged_process.h"
#include "tools/worker/worker.h"

namespace kedge {
namespace {

constexpr int64_t kPromptTokens = 300;
constexpr int64_t kNewTokens = 24;
constexpr int64_t kVocabulary = 131;

std::string TemporaryDirectory(const std::string& name) {
  const char* base = std::getenv("TEST_TMPDIR");
  std::string path = std::string(base != nullptr ? base : "/tmp") + "/identity_" +
                     std::to_string(getpid()) + "_" + name;
  std::filesystem::create_directories(path);
  return path;
}

ModelConfig Tiny(Architecture architecture) {
  return {.architecture = architecture,
          .hidden_size = 64,
          .intermediate_size = 160,
          .layers = 4,
          .heads = 4,
          .kv_heads = 2,
          .head_size = 16,
          .vocabulary = kVocabulary,
          .max_positions = 1024,
          .qkv_bias = architecture == Architecture::kQwen2,
          .dtype = DType::kBf16};
}

class IdentityTest : public ::testing::TestWithParam<Architecture> {
 protected:
  IdentityTest() {
    const std::string checkpoint = TemporaryDirectory(ArchitectureName(GetParam()));
    EXPECT_TRUE(WriteRandomCheckpoint(checkpoint, Tiny(GetParam()), 5).ok());
    auto model = Model::Load(checkpoint, device_);
    EXPECT_TRUE(model.ok()) << model.status().message();
    model_ = *std::move(model);
    for (int64_t i = 0; i < kPromptTokens; ++i)
      prompt_.push_back(static_cast<int32_t>((i * i * 13 + i * 5 + 3) % kVocabulary));
    dense_ = Serve(nullptr);
    EXPECT_EQ(dense_.computed_tokens, kPromptTokens);
  }

  Served Serve(const sdk::Client* client, sdk::Durability durability = sdk::Durability::kDefault) {
    auto worker = Worker::Create(*model_, client,
                                 {.weights_id = "identity",
                                  .tokenizer_id = "identity",
                                  .keep_logits = true,
                                  .durability = durability});
    EXPECT_TRUE(worker.ok()) << worker.status().message();
    auto served = (*worker)->Serve(prompt_, kNewTokens);
    EXPECT_TRUE(served.ok()) << served.status().message();
    return served.ok() ? *std::move(served) : Served();
  }

  // A client of its own for each: nothing can be remembered on this side.
  Served ServeThrough(const std::string& address,
                      sdk::Durability durability = sdk::Durability::kDefault) {
    auto client = sdk::Client::Open({.address = address, .salt = "identity"});
    EXPECT_TRUE(client) << client.text();
    return client ? Serve(&*client, durability) : Served();
  }

  void ExpectDense(const Served& served) {
    EXPECT_EQ(served.tokens, dense_.tokens);
    ASSERT_EQ(served.logits.size(), static_cast<size_t>(kNewTokens));
    for (size_t i = 0; i < served.logits.size(); ++i) {
      const std::vector<float>& ours = served.logits[i].values;
      const std::vector<float>& theirs = dense_.logits[i].values;
      ASSERT_EQ(ours.size(), static_cast<size_t>(kVocabulary));
      ASSERT_EQ(std::memcmp(ours.data(), theirs.data(), ours.size() * sizeof(float)), 0)
          << "logits of new token " << i;
    }
  }
  void ExpectStored(const Served& cold) {
    EXPECT_EQ(cold.trouble, "");
    EXPECT_EQ(cold.matched_tokens, 0);
    EXPECT_EQ(cold.stored_blocks, 4u);
    ExpectDense(cold);
  }
  void ExpectFetched(const Served& warm) {
    EXPECT_EQ(warm.trouble, "");
    EXPECT_EQ(warm.fetched_tokens, 256);
    EXPECT_EQ(warm.computed_tokens, kPromptTokens - 256);
    ExpectDense(warm);
  }

  std::unique_ptr<KedgedProcess> StartKedged(const std::string& listen,
                                             std::vector<std::string> flags) {
    flags.push_back("--host-capacity=128MiB");
    auto kedged = KedgedProcess::Start({.listen = listen, .flags = flags});
    EXPECT_TRUE(kedged.ok()) << kedged.status().message();
    return kedged.ok() ? *std::move(kedged) : nullptr;
  }

  CpuDevice device_;
  std::unique_ptr<Model> model_;
  std::vector<int32_t> prompt_;
  Served dense_;
};

TEST_P(IdentityTest, Embedded) {
  auto client = sdk::Client::Open({.address = "embedded:?host=128MiB", .salt = "identity"});
  ASSERT_TRUE(client) << client.text();
  ExpectStored(Serve(&*client));
  ExpectFetched(Serve(&*client));
}

TEST_P(IdentityTest, OverTcp) {
  auto kedged = StartKedged("tcp://127.0.0.1:0", {});
  ASSERT_NE(kedged, nullptr);
  ExpectStored(ServeThrough(kedged->data_address()));
  ExpectFetched(ServeThrough(kedged->data_address()));
}

TEST_P(IdentityTest, OverSharedMemory) {
  auto kedged = StartKedged("shm://127.0.0.1:0", {});
  ASSERT_NE(kedged, nullptr);
  ASSERT_EQ(kedged->data_address().substr(0, 6), "shm://");
  ExpectStored(ServeThrough(kedged->data_address()));
  ExpectFetched(ServeThrough(kedged->data_address()));
}

TEST_P(IdentityTest, AfterKillAndRestartFromSsd) {
  const std::string ssd = TemporaryDirectory("ssd");
  auto kedged = StartKedged("tcp://127.0.0.1:0", {"--ssd-path=" + ssd});
  ASSERT_NE(kedged, nullptr);
  ExpectStored(ServeThrough(kedged->data_address(), sdk::Durability::kSsd));
  kedged->Kill();
  ASSERT_TRUE(kedged->Restart().ok());
  const Served warm = ServeThrough(kedged->data_address());
  EXPECT_EQ(warm.matched_blocks_ssd, 4u) << "nothing else can have survived";
  ExpectFetched(warm);
  kedged->Kill();
  std::filesystem::remove_all(ssd);
}

INSTANTIATE_TEST_SUITE_P(Architectures, IdentityTest,
                         ::testing::Values(Architecture::kLlama, Architecture::kQwen2),
                         [](const auto& info) {
                           return info.param == Architecture::kLlama ? "Llama" : "Qwen2";
                         });

}  // namespace
}  // namespace kedge
