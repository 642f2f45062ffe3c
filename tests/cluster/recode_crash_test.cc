// kedged with a policy is killed (SIGKILL) at random points while sequences are stored, durable and
// not, and what goes down to the SSD is recoded, twenty times over the same files. Whatever was
// acknowledged as durable is there afterwards as it was stored; whatever else is there is that, or
// to the last bit what kivi4g32 makes of it.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "client/kv_client.h"
#include "gpu/codec/codec_chain.h"
#include "gpu/kernels/rope.h"
#include "proto/model_profile.h"
#include "store/world/random.h"
#include "tests/cluster/kedged_process.h"

namespace kedge {
namespace {

using std::chrono::milliseconds;

constexpr int kKills = 20;
constexpr uint32_t kBlocks = 2;
constexpr uint32_t kBlockTokens = 32;
constexpr double kTheta = 1e4;
constexpr char kLossy[] = "kivi4g32";

KvShape Shape() { return KvShape::KeysAndValues(2, 2, 64, kBlockTokens, DType::kF16); }

// The n-th sequence: its tokens and its KV follow from n alone.
std::vector<int32_t> Tokens(uint64_t n) {
  std::vector<int32_t> tokens(kBlocks * kBlockTokens);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(n * 1000 + i);
  return tokens;
}

std::vector<uint8_t> BlockBytes(uint64_t n, uint32_t block) {
  Random random(n * 0x9e3779b97f4a7c15 + block);
  std::vector<uint8_t> bytes(Shape().raw_block_bytes());
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.Next());
  for (size_t at = 1; at < bytes.size(); at += 2) bytes[at] &= 0xbf;  // below 2
  return bytes;
}

// What a fetch of the lossy variant gives: there and back, part by part.
std::vector<uint8_t> ThereAndBack(uint32_t block, const std::vector<uint8_t>& raw) {
  const KvShape shape = Shape();
  const auto chain = *codec::CodecChain::Parse(kLossy);
  const kernels::RopeTable rope =
      kernels::MakeRopeTable(kernels::RopeFrequencies(shape.head_size, kTheta, {}),
                             int64_t{block} * kBlockTokens, kBlockTokens);
  std::vector<uint8_t> out(raw.size());
  const uint64_t part_bytes = shape.raw_part_bytes();
  for (uint32_t part = 0; part < shape.part_count(); ++part) {
    const codec::PartTask task{shape, part / 2, part % 2 == 0 ? Component::kK : Component::kV,
                               &rope};
    std::vector<uint8_t> encoded(*chain.MaxPartBytes(shape, task.component, block == 0));
    const auto used = chain.EncodePart(
        task, block == 0, std::span(raw).subspan(part * part_bytes, part_bytes), encoded);
    EXPECT_TRUE(used.ok()) << used.status();
    const std::span<uint8_t> to = std::span(out).subspan(part * part_bytes, part_bytes);
    const absl::Status s = chain.DecodePart(task, std::span(encoded).first(used.value_or(0)),
                                            {{&to, 1}, kBlockTokens});
    EXPECT_TRUE(s.ok()) << s;
  }
  return out;
}

struct Buffers {
  Buffers() : bytes(kBlocks, std::vector<uint8_t>(Shape().raw_block_bytes())) {
    for (auto& block : bytes) views.push_back({{block.data(), block.size()}});
  }
  std::vector<std::vector<uint8_t>> bytes;
  std::vector<sdk::BlockBuffer> views;
};

struct Writer {
  const sdk::Model& model;
  uint64_t next;                       // first sequence not yet begun
  std::vector<uint64_t> acknowledged;  // as durable
  std::atomic<bool> stop{false};

  // Every other sequence is durable; every fourth becomes it after it was not, so that it may have
  // been recoded before.
  void Run() {
    for (; !stop.load(); ++next) {
      if (next % 2 == 0 && !Store(next, sdk::Durability::kHost)) return;
      if (next % 4 == 2) continue;
      if (!Store(next, sdk::Durability::kSsd)) return;
      acknowledged.push_back(next);
    }
  }

  bool Store(uint64_t n, sdk::Durability durability) {
    auto sequence = model.FromTokens(Tokens(n));
    if (!sequence) return false;
    Buffers buffers;
    for (uint32_t block = 0; block < kBlocks; ++block) {
      const std::vector<uint8_t> bytes = BlockBytes(n, block);
      std::copy(bytes.begin(), bytes.end(), buffers.bytes[block].begin());
    }
    auto request = sequence->Store(
        {.block_count = kBlocks, .durability = durability, .deadline_ms = 5000}, buffers.views);
    if (!request) return false;
    request->Wait();
    for (const sdk::Item& item : request->items()) {
      if (item.code != KEDGE_OK && item.code != KEDGE_EXISTS) return false;
    }
    return true;
  }
};

struct Held {
  int raw = 0;
  int lossy = 0;
  int wrong = 0;
  int missing = 0;
};

Held Look(const sdk::Model& model, uint64_t n, const std::vector<std::string>& variants) {
  Held held;
  auto sequence = model.FromTokens(Tokens(n));
  Buffers buffers;
  auto request = sequence->Fetch({.block_count = kBlocks, .variants = variants}, buffers.views);
  if (!request) return {.missing = kBlocks};
  request->Wait();
  for (uint32_t block = 0; block < kBlocks; ++block) {
    if (request->items()[block].code != KEDGE_OK) {
      ++held.missing;
      continue;
    }
    const std::vector<uint8_t> raw = BlockBytes(n, block);
    const bool is_raw = request->variant(block) == "raw";
    ++(is_raw ? held.raw : held.lossy);
    if (buffers.bytes[block] != (is_raw ? raw : ThereAndBack(block, raw))) ++held.wrong;
  }
  return held;
}

bool WaitConnected(const sdk::Client& client) {
  for (int i = 0; i < 1000; ++i) {
    if (client.info().connected != 0) return true;
    std::this_thread::sleep_for(milliseconds(10));
  }
  return false;
}

// A node must know how the model rotates its keys, and that it may be quantized.
std::string WriteProfile(const std::string& directory) {
  const ModelProfile profile = *ModelProfile::Make(
      {.weights_id = "crash",
       .adapter_id = "",
       .rope_scaling = "",
       .rope_theta = kTheta,
       .layers = 2,
       .kv_heads = 2,
       .head_size = 64,
       .dtype = DType::kF16},
      {}, {{.chain = kLossy, .task = kGateMean, .bar = 1.0, .questions = 1, .passed = true}});
  const std::string path = directory + "/recode_crash_profile.bin";
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(profile.bytes().data()),
             static_cast<std::streamsize>(profile.bytes().size()));
  return path;
}

TEST(RecodeCrash, TwentyKillsWhileBlocksAreRecodedLoseNothingAcknowledged) {
  const char* temporary = getenv("TEST_TMPDIR");
  const std::string directory = temporary == nullptr ? "/tmp" : temporary;
  const std::string profile = WriteProfile(directory);
  std::filesystem::remove_all(directory + "/recode_crash_ssd");
  KedgedProcess::Options options;
  options.flags = {"--host-capacity=128MiB", "--ssd-path=" + directory + "/recode_crash_ssd",
                   "--ssd-capacity=4GiB",    "--recode=ssd: kivi4g32",
                   "--profiles=" + profile,  "--log-level=error"};
  auto node = KedgedProcess::Start(options);
  ASSERT_TRUE(node.ok()) << node.status();
  auto client = sdk::Client::Open(
      {.address = (*node)->data_address(), .salt = "crash", .client_name = "recode_crash_test"});
  ASSERT_TRUE(client) << client.text();
  const auto model = client->OpenModel({.weights_id = "crash",
                                        .tokenizer_id = "crash",
                                        .dtype = sdk::DType::kF16,
                                        .layer_count = 2,
                                        .kv_heads = 2,
                                        .head_size = 64,
                                        .block_tokens = kBlockTokens,
                                        .rope_theta = kTheta,
                                        .profile = profile});
  ASSERT_TRUE(model) << model.text();

  Random random(20261121);
  std::vector<uint64_t> acknowledged;
  uint64_t next = 0;
  Held all;
  for (int kill = 0; kill < kKills; ++kill) {
    Writer writer{*model, next, {}};
    std::thread thread([&] { writer.Run(); });
    std::this_thread::sleep_for(milliseconds(5 + random.Below(80)));
    (*node)->Kill();
    writer.stop = true;
    thread.join();
    const absl::Status restarted = (*node)->Restart();
    ASSERT_TRUE(restarted.ok()) << "after kill " << kill << ": " << restarted;
    ASSERT_TRUE(WaitConnected(*client)) << "after kill " << kill;
    for (uint64_t n : writer.acknowledged) {
      const Held held = Look(*model, n, {"raw"});
      ASSERT_EQ(held.raw, int{kBlocks})
          << "sequence " << n << ", acknowledged before kill " << kill;
      ASSERT_EQ(held.wrong, 0) << "sequence " << n << ", kill " << kill;
    }
    for (uint64_t n = next; n <= writer.next; ++n) {
      const Held held = Look(*model, n, {kLossy, "raw"});
      ASSERT_EQ(held.wrong, 0) << "sequence " << n << ", acknowledged or not, kill " << kill;
      all.raw += held.raw;
      all.lossy += held.lossy;
      all.missing += held.missing;
    }
    acknowledged.insert(acknowledged.end(), writer.acknowledged.begin(), writer.acknowledged.end());
    next = writer.next + 1;
  }
  for (uint64_t n : acknowledged)
    ASSERT_EQ(Look(*model, n, {"raw"}).raw, int{kBlocks}) << "sequence " << n << ", at the end";
  std::printf("%zu sequences acknowledged; blocks: %d raw, %d recoded, %d missing\n",
              acknowledged.size(), all.raw, all.lossy, all.missing);
  EXPECT_GT(acknowledged.size(), size_t{kKills});
  EXPECT_GT(all.lossy, kKills) << "too few blocks were recoded for the kills to mean anything";
}

}  // namespace
}  // namespace kedge
