#include "tests/client/client_suite.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <thread>

namespace kedge {

using namespace sdk;  // NOLINT: this file is written as a user's would be

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(ClientSuite);

std::vector<uint8_t> ClientSuite::Bytes(uint64_t bytes, uint64_t seed) {
  std::vector<uint8_t> out(bytes);
  uint64_t state = seed * 0x9E3779B97F4A7C15ull + 1;
  for (uint8_t& byte : out) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    byte = static_cast<uint8_t>(state >> 56);
  }
  return out;
}

std::vector<BlockBuffer> ClientSuite::Blocks(std::vector<uint8_t>& memory, uint64_t each) const {
  std::vector<BlockBuffer> buffers;
  for (uint64_t at = 0; at < memory.size(); at += each) buffers.push_back({{&memory[at], each}});
  return buffers;
}

void ClientSuite::StoreAll(const Sequence& sequence, std::vector<uint8_t>& memory) const {
  const auto buffers = Blocks(memory, model_->block_bytes());
  auto request = sequence.Store({.block_count = static_cast<uint32_t>(buffers.size())}, buffers);
  ASSERT_TRUE(request) << request.text();
  ASSERT_TRUE(request->Wait());
  ASSERT_TRUE(request->all_ok()) << request->text();
}

TEST_P(ClientSuite, PutsAndGetsValues) {
  ASSERT_TRUE(client_->Put("greeting", "hello"));
  auto value = client_->Get("greeting");
  ASSERT_TRUE(value) << value.text();
  EXPECT_EQ(*value, "hello");
  EXPECT_EQ(client_->Get("nothing").code(), Code::kAbsent);
}

TEST_P(ClientSuite, PutsAndGetsBatchesOfManySizes) {
  const uint64_t sizes[] = {1,     2,       100,     4095,    4096,    4097,         65536,
                            65537, 1000003, 1 << 20, 3 << 20, 5000000, (9 << 20) + 1};
  std::vector<std::vector<uint8_t>> values;
  std::vector<PutItem> puts;
  for (uint64_t size : sizes) {
    values.push_back(Bytes(size, size));
    puts.push_back({client_->KeyOf("size " + std::to_string(size)), values.back().data(), size});
  }
  auto put = client_->Put(puts);
  ASSERT_TRUE(put) << put.text();
  ASSERT_TRUE(put->Wait());
  ASSERT_TRUE(put->all_ok()) << put->text();

  std::vector<std::vector<uint8_t>> landed;
  std::vector<GetItem> gets;
  for (const PutItem& item : puts) {
    landed.emplace_back(item.bytes + 7, 0xEE);  // more room than needed
    gets.push_back({item.key, landed.back().data(), landed.back().size()});
  }
  auto get = client_->Get(gets);
  ASSERT_TRUE(get) << get.text();
  ASSERT_TRUE(get->Wait());
  ASSERT_TRUE(get->all_ok()) << get->text();
  const std::vector<Item> items = get->items();
  for (size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(items[i].bytes, values[i].size());
    EXPECT_EQ(items[i].provenance, KEDGE_PROVENANCE_EXACT);
    EXPECT_EQ(items[i].fidelity, KEDGE_FIDELITY_LOSSLESS);
    EXPECT_EQ(items[i].tier, KEDGE_TIER_HOST);
    EXPECT_EQ(0, std::memcmp(values[i].data(), landed[i].data(), values[i].size())) << sizes[i];
    EXPECT_TRUE(
        std::all_of(landed[i].end() - 7, landed[i].end(), [](uint8_t b) { return b == 0xEE; }));
  }
}

TEST_P(ClientSuite, AnswersEachItemOfABatch) {
  const std::vector<uint8_t> value = Bytes(5000, 1);
  ASSERT_TRUE(client_->Put("held", {reinterpret_cast<const char*>(value.data()), value.size()}));
  std::vector<uint8_t> a(5000), b(5000), c(4999);
  const Key held = client_->KeyOf("held");
  const GetItem gets[] = {{held, a.data(), a.size()},
                          {client_->KeyOf("not held"), b.data(), b.size()},
                          {held, c.data(), c.size()}};
  auto get = client_->Get(gets);
  ASSERT_TRUE(get);
  ASSERT_TRUE(get->Wait());
  EXPECT_EQ(get->code(0), Code::kOk);
  EXPECT_EQ(get->code(1), Code::kAbsent);
  EXPECT_EQ(get->code(2), Code::kTooSmall);
  EXPECT_EQ(get->prefix(), 1u);
  EXPECT_EQ(a, value);

  const Key keys[] = {held, client_->KeyOf("not held")};
  auto exists = client_->Exists(keys);
  ASSERT_TRUE(exists && exists->Wait());
  EXPECT_EQ(exists->code(0), Code::kOk);
  EXPECT_EQ(exists->items()[0].bytes, 5000u);
  EXPECT_EQ(exists->code(1), Code::kAbsent);

  auto remove = client_->Remove(keys);
  ASSERT_TRUE(remove && remove->Wait());
  EXPECT_EQ(remove->code(0), Code::kOk);
  EXPECT_EQ(remove->code(1), Code::kAbsent);
  EXPECT_EQ(client_->Get("held").code(), Code::kRemoved);
}

TEST_P(ClientSuite, NeverChangesAValue) {
  ASSERT_TRUE(client_->Put("once", "first"));
  const auto again = client_->Put("once", "first");
  EXPECT_EQ(again.code(), Code::kOk) << again.text();  // held already: a success
  (void)client_->Put("once", "other");                 // answered as held or as a mismatch
  EXPECT_EQ(client_->Get("once").value(), "first");
}

TEST_P(ClientSuite, OtherSaltsDoNotMeet) {
  ASSERT_TRUE(client_->Put("secret", "value"));
  if (node_->address().rfind("embedded:", 0) == 0) GTEST_SKIP() << "one client a node";
  auto other = Client::Open({.address = node_->address(), .salt = "another tenant's"});
  ASSERT_TRUE(other) << other.text();
  EXPECT_EQ(other->Get("secret").code(), Code::kAbsent);
}

TEST_P(ClientSuite, StoresMatchesAndFetches) {
  const Sequence sequence = SequenceOf(5, 1);
  ASSERT_EQ(sequence.blocks(), 5u);
  auto before = sequence.MatchRun();
  ASSERT_TRUE(before) << before.text();
  EXPECT_EQ(before->blocks(), 0u);

  std::vector<uint8_t> memory = Bytes(5 * model_->block_bytes(), 1);
  StoreAll(sequence, memory);
  auto match = sequence.MatchRun({.lease_ms = 1000});
  ASSERT_TRUE(match) << match.text();
  EXPECT_EQ(match->blocks(), 5u);
  EXPECT_EQ(match->tokens(), 5u * kTokens);
  EXPECT_EQ(match->result().blocks_host, 5u);
  EXPECT_EQ(match->result().payload_bytes, 5 * model_->block_bytes());
  EXPECT_TRUE(match->leased());
  EXPECT_GT(match->result().lease_ms, 0u);

  std::vector<uint8_t> landed(memory.size());
  const auto buffers = Blocks(landed, model_->block_bytes());
  auto fetch = sequence.Fetch({.block_count = 5}, buffers);
  ASSERT_TRUE(fetch) << fetch.text();
  ASSERT_TRUE(fetch->Wait());
  ASSERT_TRUE(fetch->all_ok()) << fetch->text();
  EXPECT_EQ(landed, memory);
  EXPECT_EQ(fetch->items()[4].bytes, model_->block_bytes());
  match->Release();
}

TEST_P(ClientSuite, MatchesThePartThatIsShared) {
  std::vector<int32_t> tokens = Tokens(6, 2);
  const Sequence whole = std::move(model_->FromTokens(tokens).value());
  std::vector<uint8_t> memory = Bytes(6 * model_->block_bytes(), 2);
  StoreAll(whole, memory);
  tokens[4 * kTokens + 1] += 1;
  const Sequence other = std::move(model_->FromTokens(tokens).value());
  EXPECT_EQ(other.MatchRun()->blocks(), 4u);

  std::vector<uint8_t> landed(memory.size());
  auto fetch = other.Fetch({.block_count = 6}, Blocks(landed, model_->block_bytes()));
  ASSERT_TRUE(fetch && fetch->Wait());
  EXPECT_EQ(fetch->prefix(), 4u);
  EXPECT_EQ(fetch->code(4), Code::kAbsent);
  EXPECT_TRUE(
      std::equal(landed.begin(), landed.begin() + 4 * model_->block_bytes(), memory.begin()));
}

TEST_P(ClientSuite, EngineHashesNameBlocksToo) {
  const std::vector<uint8_t> hashes = Bytes(3 * 16, 3);
  auto sequence = model_->FromHashes(hashes, 16);
  ASSERT_TRUE(sequence) << sequence.text();
  ASSERT_EQ(sequence->blocks(), 3u);
  std::vector<uint8_t> memory = Bytes(3 * model_->block_bytes(), 3);
  StoreAll(*sequence, memory);
  EXPECT_EQ(sequence->MatchRun()->blocks(), 3u);
  EXPECT_EQ(model_->FromHashes(hashes, 17).code(), Code::kInvalid);
  EXPECT_EQ(model_->FromHashes(hashes, 0).code(), Code::kInvalid);
}

TEST_P(ClientSuite, FetchesARangeOfLayersIntoScatteredMemory) {
  const Sequence sequence = SequenceOf(3, 4);
  std::vector<uint8_t> memory = Bytes(3 * model_->block_bytes(), 4);
  StoreAll(sequence, memory);

  // Layers 2 to 4; K and V of each go to memory of their own, in pieces of odd sizes.
  const uint64_t part = model_->part_bytes();
  constexpr uint32_t kFirst = 2, kCount = 3;
  std::vector<uint8_t> k(3 * kCount * part, 0xEE), v(3 * kCount * part, 0xEE);
  std::vector<BlockBuffer> buffers(3);
  for (uint32_t block = 0; block < 3; ++block) {
    for (uint32_t layer = 0; layer < kCount; ++layer) {
      const uint64_t at = (block * kCount + layer) * part;
      buffers[block].push_back({&k[at], 1});
      buffers[block].push_back({&k[at + 1], part - 1});
      buffers[block].push_back({&v[at], part});
    }
  }
  auto fetch =
      sequence.Fetch({.block_count = 3, .layer_begin = kFirst, .layer_count = kCount}, buffers);
  ASSERT_TRUE(fetch) << fetch.text();
  ASSERT_TRUE(fetch->Wait());
  ASSERT_TRUE(fetch->all_ok()) << fetch->text();
  for (uint32_t block = 0; block < 3; ++block) {
    for (uint32_t layer = 0; layer < kCount; ++layer) {
      const uint64_t at = (block * kCount + layer) * part;
      const uint64_t from = block * model_->block_bytes() + (kFirst + layer) * 2 * part;
      EXPECT_EQ(0, std::memcmp(&k[at], &memory[from], part));
      EXPECT_EQ(0, std::memcmp(&v[at], &memory[from + part], part));
    }
  }
}

TEST_P(ClientSuite, FetchesLayerByLayer) {
  constexpr uint32_t kBlocks = 40;
  const Sequence sequence = SequenceOf(kBlocks, 5);
  std::vector<uint8_t> memory = Bytes(kBlocks * model_->block_bytes(), 5);
  StoreAll(sequence, memory);
  std::vector<uint8_t> landed(memory.size(), 0xEE);
  auto fetch = sequence.Fetch({.block_count = kBlocks, .layer_group = 1},
                              Blocks(landed, model_->block_bytes()));
  ASSERT_TRUE(fetch) << fetch.text();
  const uint64_t layer_bytes = model_->layer_bytes();
  for (uint32_t layers = 1; layers <= kLayers; ++layers) {
    const auto blocks = fetch->WaitLayers(layers);
    ASSERT_TRUE(blocks.has_value());
    ASSERT_EQ(*blocks, kBlocks);
    for (uint32_t block = 0; block < kBlocks; ++block) {
      const uint64_t at = block * model_->block_bytes() + (layers - 1) * layer_bytes;
      ASSERT_EQ(0, std::memcmp(&landed[at], &memory[at], layer_bytes))
          << "layer " << layers - 1 << " block " << block;
    }
  }
  ASSERT_TRUE(fetch->Wait());
  EXPECT_TRUE(fetch->all_ok()) << fetch->text();
}

TEST_P(ClientSuite, StoresLayerByLayer) {
  constexpr uint32_t kBlocks = 3;
  const Sequence sequence = SequenceOf(kBlocks, 6);
  std::vector<uint8_t> memory = Bytes(kBlocks * model_->block_bytes(), 6);
  const uint64_t part = model_->part_bytes();
  auto writer = sequence.StoreBegin({.block_count = kBlocks});
  ASSERT_TRUE(writer) << writer.text();
  for (uint32_t layer = 0; layer < kLayers; ++layer) {
    if (layer % 2 == 0) {  // whole layers of all blocks
      std::vector<BlockBuffer> buffers;
      for (uint32_t block = 0; block < kBlocks; ++block) {
        uint8_t* at = &memory[block * model_->block_bytes() + layer * 2 * part];
        buffers.push_back({{at, part / 2}, {at + part / 2, part + part / 2}});
      }
      auto given = writer->Layer(layer, buffers);
      ASSERT_TRUE(given) << given.text();
      continue;
    }
    for (uint32_t block = 0; block < kBlocks; ++block) {  // or part by part, V first
      const uint8_t* at = &memory[block * model_->block_bytes() + layer * 2 * part];
      ASSERT_TRUE(writer->Part(block, layer, Component::kV, {at + part, part}));
      ASSERT_TRUE(writer->Part(block, layer, Component::kK, {at, part}));
    }
    EXPECT_EQ(sequence.MatchRun()->blocks(), 0u) << "visible before its commit";
  }
  EXPECT_EQ(writer->Part(0, 0, Component::kK, {memory.data(), part}).code(), Code::kInvalid);
  EXPECT_EQ(writer->Part(0, kLayers, Component::kK, {memory.data(), part}).code(), Code::kInvalid);
  EXPECT_EQ(writer->Part(0, 0, Component::kLatent, {memory.data(), part}).code(), Code::kInvalid);
  EXPECT_EQ(writer->Part(kBlocks, 0, Component::kK, {memory.data(), part}).code(), Code::kInvalid);
  auto request = writer->Commit();
  ASSERT_TRUE(request) << request.text();
  ASSERT_TRUE(request->Wait());
  ASSERT_TRUE(request->all_ok()) << request->text();

  EXPECT_EQ(sequence.MatchRun()->blocks(), kBlocks);
  std::vector<uint8_t> landed(memory.size());
  auto fetch = sequence.Fetch({.block_count = kBlocks}, Blocks(landed, model_->block_bytes()));
  ASSERT_TRUE(fetch && fetch->Wait());
  ASSERT_TRUE(fetch->all_ok()) << fetch->text();
  EXPECT_EQ(landed, memory);
}

TEST_P(ClientSuite, AnIncompleteOrAbortedStoreIsNeverVisible) {
  const Sequence sequence = SequenceOf(2, 7);
  std::vector<uint8_t> memory = Bytes(2 * model_->block_bytes(), 7);
  const auto buffers = Blocks(memory, model_->block_bytes());
  {
    auto writer = sequence.StoreBegin({.block_count = 2});
    ASSERT_TRUE(writer);
    // All of block 0, and all but one part of block 1.
    for (uint32_t block = 0; block < 2; ++block) {
      for (uint32_t part = 0; part < 2 * kLayers - block; ++part) {
        ASSERT_TRUE(
            writer->Part(block, part / 2, part % 2 ? Component::kV : Component::kK,
                         {&memory[block * model_->block_bytes() + part * model_->part_bytes()],
                          model_->part_bytes()}));
      }
    }
    auto request = writer->Commit();
    ASSERT_TRUE(request && request->Wait());
    EXPECT_EQ(request->code(0), Code::kOk) << request->text();
    EXPECT_EQ(request->code(1), Code::kInvalid);
  }
  EXPECT_EQ(sequence.MatchRun()->blocks(), 1u);
  {
    auto writer = sequence.StoreBegin({.block_begin = 1, .block_count = 1});
    ASSERT_TRUE(writer);
    ASSERT_TRUE(writer->Part(0, 0, Component::kK, {memory.data(), model_->part_bytes()}));
  }  // aborts
  EXPECT_EQ(sequence.MatchRun()->blocks(), 1u);
  // And the slot is free again for one that succeeds.
  auto store = sequence.Store({.block_begin = 1, .block_count = 1}, std::span(buffers).subspan(1));
  ASSERT_TRUE(store && store->Wait());
  EXPECT_TRUE(store->all_ok()) << store->text();
  EXPECT_EQ(sequence.MatchRun()->blocks(), 2u);
}

TEST_P(ClientSuite, NothingIsWrittenAfterACancel) {
  constexpr uint32_t kBlocks = 100;
  const Sequence sequence = SequenceOf(kBlocks, 8);
  std::vector<uint8_t> memory = Bytes(kBlocks * model_->block_bytes(), 8);
  StoreAll(sequence, memory);
  for (int round = 0; round < 12; ++round) {
    std::vector<uint8_t> landed(memory.size());
    auto fetch = sequence.Fetch({.block_count = kBlocks}, Blocks(landed, model_->block_bytes()));
    ASSERT_TRUE(fetch);
    fetch->Wait(std::chrono::milliseconds(round));
    fetch->Cancel();
    std::fill(landed.begin(), landed.end(), 0xEE);
    EXPECT_TRUE(fetch->ended());
    const std::vector<Item> items = fetch->items();
    for (const Item& item : items) {
      ASSERT_TRUE(item.code == KEDGE_OK || item.code == KEDGE_CANCELLED);
    }
    // A whole other request later, what was on the way has long arrived.
    std::vector<uint8_t> other(model_->block_bytes());
    auto next = sequence.Fetch({.block_count = 1}, Blocks(other, model_->block_bytes()));
    ASSERT_TRUE(next && next->Wait());
    ASSERT_TRUE(next->all_ok()) << next->text();
    ASSERT_TRUE(
        std::all_of(landed.begin(), landed.end(), [](uint8_t byte) { return byte == 0xEE; }));
  }
}

TEST_P(ClientSuite, ManyThreadsShareAClient) {
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i) {
        const std::string name = std::to_string(t) + "/" + std::to_string(i);
        const std::vector<uint8_t> bytes = Bytes(1 + (t * 7919 + i * 104729) % 200'000, t * 50 + i);
        const std::string_view value(reinterpret_cast<const char*>(bytes.data()), bytes.size());
        if (!client_->Put(name, value)) ++wrong;
        auto got = client_->Get(name);
        if (!got || *got != value) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST_P(ClientSuite, ChecksRegisteredMemory) {
  std::vector<uint8_t> memory(10'000);
  ASSERT_TRUE(client_->RegisterMemory(memory.data(), memory.size()));
  EXPECT_EQ(client_->RegisterMemory(memory.data() + 1, 5).code(), Code::kInvalid);
  const PutItem inside{client_->KeyOf("inside"), memory.data() + 5000, 5000};
  const PutItem outside{client_->KeyOf("outside"), memory.data() + 5000, 5001};
  EXPECT_TRUE(client_->Put(std::span(&inside, 1)));
  EXPECT_EQ(client_->Put(std::span(&outside, 1)).code(), Code::kInvalid);
  EXPECT_TRUE(client_->UnregisterMemory(memory.data()));
  EXPECT_EQ(client_->UnregisterMemory(memory.data()).code(), Code::kInvalid);
}

TEST_P(ClientSuite, RefusesWhatContradictsItself) {
  const Sequence sequence = SequenceOf(2, 9);
  std::vector<uint8_t> memory(2 * model_->block_bytes());
  const auto buffers = Blocks(memory, model_->block_bytes());
  const auto text = [](const auto& result) { return result ? "" : result.text(); };
  EXPECT_NE(
      text(sequence.Fetch({.block_begin = 1, .block_count = 2}, buffers)).find("block_begin: 1"),
      std::string::npos);
  EXPECT_NE(text(sequence.Fetch({.block_count = 2, .layer_begin = 5, .layer_count = 2}, buffers))
                .find("layer_begin: 5"),
            std::string::npos);
  EXPECT_NE(text(sequence.Fetch({.block_count = 2, .variants = {"NO"}}, buffers)).find("NO"),
            std::string::npos);
  EXPECT_EQ(sequence.Fetch({.block_count = 1}, buffers).code(), Code::kInvalid);
  const auto half = Blocks(memory, model_->block_bytes() / 2);
  EXPECT_NE(text(sequence.Store({.block_count = 1}, std::span(half).first(1))).find("buffers[0]"),
            std::string::npos);
  EXPECT_EQ(client_->Put("empty", "").code(), Code::kInvalid);
  EXPECT_EQ(KeyFromHex("12").code(), Code::kInvalid);
  EXPECT_EQ(client_
                ->OpenModel({.weights_id = "x",
                             .layer_count = 2,
                             .kv_heads = 1,
                             .head_size = 8,
                             .block_tokens = 33})
                .code(),
            Code::kInvalid);
}

TEST_P(ClientSuite, ClosesWithRequestsUnderWay) {
  std::vector<uint8_t> memory = Bytes(100 * model_->block_bytes(), 10);
  const Sequence sequence = SequenceOf(100, 10);
  auto request = sequence.Store({.block_count = 100}, Blocks(memory, model_->block_bytes()));
  ASSERT_TRUE(request) << request.text();
  client_.reset();
  EXPECT_TRUE(request->ended());
  EXPECT_EQ(sequence.Store({.block_count = 100}, Blocks(memory, model_->block_bytes())).code(),
            Code::kUnavailable);
}

}  // namespace kedge
