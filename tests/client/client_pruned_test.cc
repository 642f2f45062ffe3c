// Pruned sequences through the whole client: stored by one worker and fetched by another, pruned
// from what the store holds, gated, and never taken for more than they are.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/client/testing_pruned.h"
#include "tests/cluster/kedged_process.h"

namespace kedge {
namespace {

using ::testing::HasSubstr;
using Layers = std::vector<PrunedModel::Layer>;

constexpr char kKeyDiff[] = "prefixkv0.5-keydiff+kivi4g32";
constexpr char kCrush[] = "prefixkv0.5+kvcrush0.1+kivi4g32";

// Memory for a fetch: pages of 16 rows, and layers whose last page is not full.
struct Pages {
  Pages(const std::vector<uint32_t>& rows) {
    for (const uint32_t count : rows) {
      PrunedModel::Layer& layer = layers.emplace_back();
      layer.positions.assign(count, -1);
      layer.keys.assign(count * PrunedModel::kRowBytes, 0xEE);
      layer.values.assign(count * PrunedModel::kRowBytes, 0xEE);
    }
    for (PrunedModel::Layer& layer : layers)
      targets.push_back({Cut(layer.keys), Cut(layer.values), layer.positions});
  }
  static sdk::BlockBuffer Cut(std::vector<uint8_t>& bytes) {
    constexpr uint64_t kPageBytes = 16 * PrunedModel::kRowBytes;
    sdk::BlockBuffer pages;
    for (uint64_t at = 0; at < bytes.size(); at += kPageBytes)
      pages.push_back({&bytes[at], std::min<uint64_t>(kPageBytes, bytes.size() - at)});
    return pages;
  }

  Layers layers;
  std::vector<sdk::PrunedLayer> targets;
};

class ClientPrunedTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto client = sdk::Client::Open(
        {.address = "embedded:?host=128MiB&profile=" + made_.ProfilePath(), .salt = "a tenant's"});
    ASSERT_TRUE(client) << client.text();
    client_ = std::move(*client);
    auto model = client_->OpenModel(made_.Options());
    ASSERT_TRUE(model) << model.text();
    model_ = std::move(*model);
  }

  sdk::Sequence SequenceOf(uint32_t blocks, int32_t seed) const {
    return std::move(model_->FromTokens(PrunedModel::Tokens(blocks, seed)).value());
  }
  static Layers Fetched(const sdk::Sequence& sequence, uint32_t blocks, const std::string& chain,
                        uint32_t layer_group = 0) {
    const auto rows = sequence.PrunedRows(blocks, chain, PrunedModel::kLayers);
    EXPECT_TRUE(rows) << rows.text();
    Pages pages(*rows);
    auto fetch = sequence.FetchPruned(
        {.block_count = blocks, .variant = chain, .layer_group = layer_group}, pages.targets);
    EXPECT_TRUE(fetch) << fetch.text();
    EXPECT_TRUE(fetch->Wait() && fetch->all_ok()) << fetch->text();
    EXPECT_EQ(fetch->items()[0].fidelity, KEDGE_FIDELITY_PRUNED);
    EXPECT_EQ(fetch->variant(), chain);
    uint64_t bytes = 0;
    for (const uint32_t count : *rows) bytes += 2 * count * PrunedModel::kRowBytes;
    EXPECT_EQ(fetch->items()[0].bytes, bytes);
    return std::move(pages.layers);
  }

  const PrunedModel made_;
  std::optional<sdk::Client> client_;
  std::optional<sdk::Model> model_;
};

TEST_F(ClientPrunedTest, StoresAndFetchesWhatPruningHereGives) {
  std::vector<uint8_t> kv = PrunedModel::Kv(3, 5);
  const codec::ScoreSidecar scores = PrunedModel::Scores(3, 6);
  const std::vector<uint8_t> sidecar = codec::EncodeSidecar(scores);
  for (const std::string chain :
       {kKeyDiff, kCrush, "prefixkv0.5-keydiff+raw", "prefixkv0.5-expect+kivi4g32"}) {
    SCOPED_TRACE(chain);
    const sdk::Sequence sequence = SequenceOf(4, 1);  // one block more than is pruned
    auto store = sequence.StorePruned({.block_count = 3, .variant = chain, .scores = sidecar},
                                      PrunedModel::Buffers(kv));
    ASSERT_TRUE(store) << store.text();
    ASSERT_TRUE(store->Wait() && store->all_ok()) << store->text();
    EXPECT_LT(store->items()[0].bytes, kv.size() * 6 / 10);

    const sdk::Sequence other = SequenceOf(4, 1);
    const auto match = other.MatchPruned({.lease_ms = 5000, .variants = {chain}});
    ASSERT_TRUE(match) << match.text();
    EXPECT_EQ(match->blocks(), 3u);
    EXPECT_EQ(match->tokens(), 192u);
    EXPECT_EQ(match->variant(), chain);
    EXPECT_EQ(match->payload_bytes(), store->items()[0].bytes);
    EXPECT_EQ(match->fidelity(), sdk::Fidelity::kPruned);
    EXPECT_TRUE(match->leased());
    const Layers want = made_.PrunedHere(chain, kv, scores);
    EXPECT_EQ(Fetched(other, 3, chain), want);
    EXPECT_EQ(Fetched(other, 3, chain, 1), want);
    // Ragged: the profile gives layers different budgets. The mean is the chain's.
    EXPECT_NE(want[0].positions.size(), want[2].positions.size());
    // Two layers of the three.
    const auto rows = other.PrunedRows(3, chain, PrunedModel::kLayers);
    Pages two({(*rows)[1], (*rows)[2]});
    auto part =
        other.FetchPruned({.block_count = 3, .variant = chain, .layer_begin = 1}, two.targets);
    ASSERT_TRUE(part && part->Wait() && part->all_ok());
    EXPECT_EQ(two.layers, (Layers{want[1], want[2]}));
  }
  // Blocks know nothing of it.
  EXPECT_EQ(SequenceOf(4, 1).MatchRun()->blocks(), 0u);
  // Longest first, then the chain that comes first; by default the one that loses least.
  std::vector<uint8_t> first(kv.begin(), kv.begin() + kv.size() / 3);
  auto shorter = SequenceOf(4, 1).StorePruned({.block_count = 1, .variant = kKeyDiff},
                                              PrunedModel::Buffers(first));
  ASSERT_TRUE(shorter && shorter->Wait() && shorter->all_ok());
  EXPECT_EQ(SequenceOf(4, 1).MatchPruned()->variant(), kKeyDiff);
  EXPECT_EQ(SequenceOf(4, 1).MatchPruned()->blocks(), 3u);
  EXPECT_EQ(SequenceOf(2, 1).MatchPruned()->blocks(), 1u);
  EXPECT_EQ(SequenceOf(2, 1).MatchPruned({.block_count_min = 2})->blocks(), 0u);
  EXPECT_EQ(SequenceOf(4, 1).MatchPruned({.variants = {kCrush, kKeyDiff}})->variant(), kCrush);
}

TEST_F(ClientPrunedTest, PrunesFromRawBlocksAndScoresInTheStore) {
  std::vector<uint8_t> kv = PrunedModel::Kv(3, 15);
  const codec::ScoreSidecar scores = PrunedModel::Scores(3, 16);
  const auto buffers = PrunedModel::Buffers(kv);
  const sdk::Sequence worker = SequenceOf(3, 2);
  auto raw = worker.Store({.block_count = 2}, std::span(buffers).first(2));
  ASSERT_TRUE(raw && raw->Wait() && raw->all_ok());

  const sdk::Sequence pruner = SequenceOf(3, 2);
  const auto lacks = pruner.Prune(3, kKeyDiff);
  EXPECT_EQ(lacks.code(), sdk::Code::kAbsent);
  EXPECT_THAT(lacks.text(), HasSubstr("block 2"));
  raw = worker.Store({.block_begin = 2, .block_count = 1}, std::span(buffers).subspan(2));
  ASSERT_TRUE(raw && raw->Wait() && raw->all_ok());
  const auto no_scores = pruner.Prune(3, kCrush);
  EXPECT_EQ(no_scores.code(), sdk::Code::kAbsent);
  EXPECT_THAT(no_scores.text(), HasSubstr("scores"));
  auto beside = worker.StoreScores(codec::EncodeSidecar(scores));
  ASSERT_TRUE(beside) << beside.text();
  ASSERT_TRUE(beside->Wait() && beside->all_ok()) << beside->text();
  // Those of all queries are another object.
  EXPECT_EQ(pruner.Prune(3, "prefixkv0.5-sum+kivi4g32").code(), sdk::Code::kAbsent);

  for (const std::string chain : {kKeyDiff, kCrush, "prefixkv0.5-expect+kivi4g32"}) {
    SCOPED_TRACE(chain);
    const auto pruned = pruner.Prune(3, chain);
    ASSERT_TRUE(pruned) << pruned.text();
    EXPECT_EQ(pruned->code, KEDGE_OK);
    EXPECT_EQ(Fetched(SequenceOf(3, 2), 3, chain), made_.PrunedHere(chain, kv, scores));
    EXPECT_EQ(pruner.Prune(3, chain)->code, KEDGE_EXISTS);
    // The very object that the worker would have stored: bytes under a key never change.
    auto same = worker.StorePruned(
        {.block_count = 3, .variant = chain, .scores = codec::EncodeSidecar(scores)}, buffers);
    ASSERT_TRUE(same && same->Wait());
    EXPECT_EQ(same->code(), sdk::Code::kExists) << same->text();
  }
}

TEST_F(ClientPrunedTest, KvOverPrunedKvIsNotPublished) {
  std::vector<uint8_t> kv = PrunedModel::Kv(3, 25);
  const auto buffers = PrunedModel::Buffers(kv);
  const auto two = std::span(buffers).first(2);
  const sdk::Sequence sequence = SequenceOf(3, 3);
  auto store = sequence.StorePruned({.block_count = 2, .variant = kKeyDiff}, two);
  ASSERT_TRUE(store && store->Wait() && store->all_ok());
  EXPECT_FALSE(Fetched(sequence, 2, kKeyDiff).empty());

  const auto behind = std::span(buffers).subspan(2);
  const auto raw = sequence.Store({.block_begin = 2, .block_count = 1}, behind);
  EXPECT_EQ(raw.code(), sdk::Code::kDenied);
  EXPECT_THAT(raw.text(), HasSubstr(kKeyDiff));
  // Not as the same chain either: what a longer prefix would be pruned from is not there.
  EXPECT_EQ(sequence.StorePruned({.block_count = 3, .variant = kKeyDiff}, buffers).code(),
            sdk::Code::kDenied);
  const std::vector<uint8_t> scores = codec::EncodeSidecar(PrunedModel::Scores(3, 1));
  EXPECT_EQ(sequence.StoreScores(scores).code(), sdk::Code::kDenied);
  for (const sdk::Fidelity lossy : {sdk::Fidelity::kQuantized, sdk::Fidelity::kPruned}) {
    const sdk::StorePrunedOptions options{
        .block_count = 3, .variant = kKeyDiff, .computed_over = lossy};
    EXPECT_EQ(SequenceOf(3, 3).StorePruned(options, buffers).code(), sdk::Code::kDenied);
  }
  auto promised = sequence.Store(
      {.block_begin = 2, .block_count = 1, .computed_over = sdk::Fidelity::kLossless}, behind);
  EXPECT_TRUE(promised && promised->Wait() && promised->all_ok());
}

TEST_F(ClientPrunedTest, TheGateRefusesWithItsFigure) {
  std::vector<uint8_t> kv = PrunedModel::Kv(2, 35);
  const auto buffers = PrunedModel::Buffers(kv);
  const sdk::Sequence sequence = SequenceOf(2, 4);
  const char* failed = "prefixkv0.25-keydiff+kivi2g32";
  const auto refused = sequence.StorePruned({.block_count = 2, .variant = failed}, buffers);
  EXPECT_EQ(refused.code(), sdk::Code::kDenied);
  EXPECT_THAT(refused.text(), HasSubstr("12.5"));
  EXPECT_EQ(sequence.MatchPruned({.variants = {failed}}).code(), sdk::Code::kDenied);
  EXPECT_EQ(sequence.Prune(2, failed).code(), sdk::Code::kDenied);
  EXPECT_EQ(sequence.PrunedRows(2, failed, 3).code(), sdk::Code::kDenied);
  EXPECT_EQ(sequence.PrunedRows(2, "prefixkv0.9-keydiff+raw", 3).code(), sdk::Code::kDenied)
      << "never measured";

  // Without a profile nobody knows what a layer keeps, whatever was allowed.
  sdk::ModelOptions bare = made_.Options();
  bare.profile.clear();
  bare.allow_unprofiled = true;
  const auto unprofiled = std::move(client_->OpenModel(bare).value());
  const auto blind = std::move(unprofiled.FromTokens(PrunedModel::Tokens(2, 4)).value());
  EXPECT_EQ(blind.StorePruned({.block_count = 2, .variant = kKeyDiff}, buffers).code(),
            sdk::Code::kDenied);
  EXPECT_EQ(blind.MatchPruned()->blocks(), 0u);

  // Chains of blocks and of sequences are not taken for each other.
  EXPECT_EQ(sequence.StorePruned({.block_count = 2, .variant = "kivi4g32"}, buffers).code(),
            sdk::Code::kInvalid);
  const auto as_block = sequence.Store({.block_count = 2, .variant = kKeyDiff}, buffers);
  EXPECT_EQ(as_block.code(), sdk::Code::kInvalid);
  EXPECT_THAT(as_block.text(), HasSubstr("kedge_store_pruned"));
}

TEST_F(ClientPrunedTest, BadArgumentsAreNamed) {
  std::vector<uint8_t> kv = PrunedModel::Kv(2, 45);
  const auto buffers = PrunedModel::Buffers(kv);
  const sdk::Sequence sequence = SequenceOf(2, 5);
  const auto text = [](const auto& result) {
    EXPECT_FALSE(result);
    return result.text();
  };
  EXPECT_THAT(text(sequence.PrunedRows(3, kKeyDiff, 3)), HasSubstr("block_count: 3"));
  EXPECT_THAT(text(sequence.PrunedRows(2, kKeyDiff, 4)), HasSubstr("layer_count: 4"));
  EXPECT_THAT(text(sequence.StorePruned({.block_count = 1, .variant = kKeyDiff}, buffers)),
              HasSubstr("buffers: 2"));
  EXPECT_THAT(text(sequence.StorePruned({.block_count = 2, .variant = kCrush}, buffers)),
              HasSubstr("needs a score sidecar"));
  // A sidecar must be of these blocks and no others: scores of later tokens have no way in.
  std::vector<uint8_t> longer = codec::EncodeSidecar(PrunedModel::Scores(3, 1));
  EXPECT_THAT(
      text(sequence.StorePruned({.block_count = 2, .variant = kCrush, .scores = longer}, buffers)),
      HasSubstr("sidecar: tokens: 192, expected 128"));
  EXPECT_THAT(text(sequence.StoreScores(longer)), HasSubstr("tokens: 192"));
  longer[longer.size() / 2] ^= 1;
  EXPECT_EQ(sequence.StoreScores(longer).code(), sdk::Code::kCorrupt);
  codec::ScoreSidecar other = PrunedModel::Scores(2, 1);
  other.window = 64;
  EXPECT_THAT(text(sequence.StoreScores(codec::EncodeSidecar(other))), HasSubstr("window: 64"));
  other.window = 32;
  other.layers = 2;
  other.codes.resize(other.codes.size() / 3 * 2);
  EXPECT_THAT(text(sequence.StoreScores(codec::EncodeSidecar(other))), HasSubstr("layers: 2"));
  // A NaN: part and token.
  std::vector<uint8_t> nan = kv;
  const uint64_t layer_1_keys = 2 * PrunedModel::kBlockTokens * PrunedModel::kRowBytes;
  nan[layer_1_keys + 1] = 0x7e;
  EXPECT_THAT(text(sequence.StorePruned({.block_count = 2, .variant = kKeyDiff},
                                        PrunedModel::Buffers(nan))),
              HasSubstr("layer 1 k: score of token"));

  // Room.
  const auto rows = sequence.PrunedRows(2, kKeyDiff, 3);
  ASSERT_TRUE(rows);
  Pages pages(*rows);
  pages.targets[1].values.pop_back();
  const sdk::FetchPrunedOptions fetch{.block_count = 2, .variant = kKeyDiff};
  EXPECT_THAT(text(sequence.FetchPruned(fetch, pages.targets)),
              HasSubstr("options.layers[1].values has"));
  Pages few(*rows);
  few.targets[2].positions = few.targets[2].positions.subspan(1);
  EXPECT_THAT(text(sequence.FetchPruned(fetch, few.targets)),
              HasSubstr("options.layers[2].position_count"));
  Pages good(*rows);
  auto absent = sequence.FetchPruned(fetch, good.targets);
  ASSERT_TRUE(absent && absent->Wait());
  EXPECT_EQ(absent->code(), sdk::Code::kAbsent);
}

// Two workers and a daemon; what an operator sees; a worker with another profile.
TEST(ClientPrunedNodeTest, OneWorkerStoresAnotherFetches) {
  const PrunedModel made;
  KedgedProcess::Options options;
  options.flags = {"--host-capacity=256MiB", "--profiles=" + made.ProfilePath()};
  auto node = KedgedProcess::Start(options);
  ASSERT_TRUE(node.ok()) << node.status();
  const sdk::ClientOptions address{.address = (*node)->data_address(), .salt = "a tenant's"};
  std::vector<uint8_t> kv = PrunedModel::Kv(3, 55);
  const codec::ScoreSidecar scores = PrunedModel::Scores(3, 56);
  std::string key;
  {
    const auto client = std::move(sdk::Client::Open(address).value());
    const auto model = std::move(client.OpenModel(made.Options()).value());
    const auto sequence = std::move(model.FromTokens(PrunedModel::Tokens(3, 6)).value());
    auto store = sequence.StorePruned(
        {.block_count = 3, .variant = kCrush, .scores = codec::EncodeSidecar(scores)},
        PrunedModel::Buffers(kv));
    ASSERT_TRUE(store) << store.text();
    ASSERT_TRUE(store->Wait() && store->all_ok()) << store->text();
    key = sdk::ToHex(*sequence.PrunedKey(3, kCrush));
  }
  const auto client = std::move(sdk::Client::Open(address).value());
  const auto model = std::move(client.OpenModel(made.Options()).value());
  const auto sequence = std::move(model.FromTokens(PrunedModel::Tokens(4, 6)).value());
  const auto match = sequence.MatchPruned();
  ASSERT_TRUE(match) << match.text();
  ASSERT_EQ(match->blocks(), 3u);
  const auto rows = sequence.PrunedRows(3, match->variant(), PrunedModel::kLayers);
  Pages pages(*rows);
  auto fetch = sequence.FetchPruned({.block_count = 3, .variant = match->variant()}, pages.targets);
  ASSERT_TRUE(fetch && fetch->Wait() && fetch->all_ok());
  EXPECT_EQ(pages.layers, made.PrunedHere(kCrush, kv, scores));

  // Another profile keeps other tokens: what it names is not held.
  const PrunedModel other(2);
  const auto foreign = std::move(client.OpenModel(other.Options()).value());
  const auto same_text = std::move(foreign.FromTokens(PrunedModel::Tokens(4, 6)).value());
  EXPECT_EQ(same_text.MatchPruned()->blocks(), 0u);
  auto missed = same_text.FetchPruned({.block_count = 3, .variant = kCrush},
                                      Pages(*same_text.PrunedRows(3, kCrush, 3)).targets);
  ASSERT_TRUE(missed && missed->Wait());
  EXPECT_EQ(missed->code(), sdk::Code::kAbsent);

  const std::string command = "tools/kedgectl/kedgectl inspect " + key +
                              " --output json --control " + (*node)->control_address();
  std::FILE* pipe = ::popen(command.c_str(), "r");
  ASSERT_NE(pipe, nullptr);
  std::string shown(4096, '\0');
  shown.resize(std::fread(shown.data(), 1, shown.size(), pipe));
  EXPECT_EQ(::pclose(pipe), 0);
  EXPECT_THAT(shown, HasSubstr("\"variant\": \"" + std::string(kCrush) + "\""));
  EXPECT_THAT(shown, HasSubstr("\"fidelity\": \"pruned\""));
  EXPECT_THAT(shown, HasSubstr("\"bytes\": " + std::to_string(match->payload_bytes())));
  EXPECT_THAT(shown, HasSubstr("\"depth\": 3"));
}

}  // namespace
}  // namespace kedge
