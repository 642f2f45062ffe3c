// Lossy variants through the whole client: stored, fetched, decoded, gated.
#include <algorithm>

#include "gpu/codec/block_codec.h"
#include "gpu/codec/codec_chain.h"
#include "tests/client/client_suite.h"

namespace kedge {

std::vector<uint8_t> ClientSuite::Values(uint64_t bytes, uint64_t seed) {
  std::vector<uint8_t> out = Bytes(bytes, seed);
  for (size_t at = 1; at < out.size(); at += 2) {
    out[at] = static_cast<uint8_t>((out[at] & 0x80) | 0x3f);  // 0.5 to 2, of either sign
  }
  return out;
}

sdk::Model ClientSuite::LossyModel() const {
  sdk::ModelOptions options = ModelOf();
  options.allow_unprofiled = true;
  return std::move(client_->OpenModel(options).value());
}

namespace {

// What encoding and decoding here makes of blocks, part by part: what a fetch must bring.
std::vector<uint8_t> DecodedHere(const std::vector<uint8_t>& memory, const char* name,
                                 uint32_t blocks) {
  const auto chain = *codec::CodecChain::Parse(name);
  const KvShape shape = KvShape::KeysAndValues(6, 4, 32, 64, DType::kBf16);
  const auto rotation = *codec::KeyRotation::Of(1e4, "", 32);
  const uint64_t part_bytes = shape.raw_part_bytes();
  std::vector<uint8_t> out(memory.size());
  for (uint32_t block = 0; block < blocks; ++block) {
    const auto rope = rotation.Table(block * 64, 64);
    for (uint32_t part = 0; part < shape.part_count(); ++part) {
      const codec::PartPlace place = codec::PlaceOfPart(shape, part);
      const codec::PartTask task{shape, place.layer, place.component, &*rope};
      const uint64_t at = (block * shape.part_count() + part) * part_bytes;
      std::vector<uint8_t> encoded(*chain.MaxPartBytes(shape, place.component, block == 0));
      encoded.resize(
          *chain.EncodePart(task, block == 0, std::span(memory).subspan(at, part_bytes), encoded));
      const std::span<uint8_t> page = std::span(out).subspan(at, part_bytes);
      EXPECT_TRUE(chain.DecodePart(task, encoded, {{&page, 1}, 64}).ok());
    }
  }
  return out;
}

}  // namespace

TEST_P(ClientSuite, StoresAndFetchesLossyVariants) {
  const sdk::Model model = LossyModel();
  const sdk::Sequence sequence = std::move(model.FromTokens(Tokens(3, 20)).value());
  std::vector<uint8_t> memory = Values(3 * model.block_bytes(), 20);
  const auto buffers = Blocks(memory, model.block_bytes());
  auto store = sequence.Store({.block_count = 3, .variant = "kivi4g32"}, buffers);
  ASSERT_TRUE(store) << store.text();
  ASSERT_TRUE(store->Wait());
  ASSERT_TRUE(store->all_ok()) << store->text();
  EXPECT_LT(store->items()[1].bytes, model.block_bytes() / 2);
  auto again = sequence.Store({.block_count = 3, .variant = "kivi4g32"}, buffers);
  ASSERT_TRUE(again && again->Wait());
  EXPECT_EQ(again->code(0), sdk::Code::kExists);

  // Not under anybody's feet.
  EXPECT_EQ(sequence.MatchRun()->blocks(), 0u);
  const auto match = sequence.MatchRun({.variants = {"raw", "kivi4g32"}});
  ASSERT_TRUE(match) << match.text();
  EXPECT_EQ(match->blocks(), 3u);
  EXPECT_EQ(match->fidelity(), sdk::Fidelity::kQuantized);
  EXPECT_EQ(match->result().blocks_lossy, 3u);

  const std::vector<uint8_t> want = DecodedHere(memory, "kivi4g32", 3);
  EXPECT_NE(want, memory);
  for (const uint32_t group : {0u, 1u}) {
    std::vector<uint8_t> landed(memory.size(), 0xEE);
    auto fetch =
        sequence.Fetch({.block_count = 3, .layer_group = group, .variants = {"raw", "kivi4g32"}},
                       Blocks(landed, model.block_bytes()));
    ASSERT_TRUE(fetch) << fetch.text();
    ASSERT_TRUE(fetch->Wait());
    ASSERT_TRUE(fetch->all_ok()) << fetch->text();
    EXPECT_EQ(landed, want);
    EXPECT_EQ(fetch->variant(2), "kivi4g32");
    EXPECT_EQ(fetch->items()[2].fidelity, KEDGE_FIDELITY_QUANTIZED);
    EXPECT_EQ(fetch->items()[2].bytes, model.block_bytes());
  }
  // Pieces of odd sizes, and a range of layers.
  std::vector<uint8_t> landed(memory.size(), 0xEE);
  std::vector<sdk::BlockBuffer> pieces(1);
  const uint64_t range = 2 * model.layer_bytes();
  for (uint64_t at = 0; at < range; at += 1000) {
    pieces[0].push_back({&landed[at], std::min<uint64_t>(1000, range - at)});
  }
  auto part = sequence.Fetch({.block_begin = 1,
                              .block_count = 1,
                              .layer_begin = 3,
                              .layer_count = 2,
                              .lowest_fidelity = sdk::Fidelity::kQuantized},
                             pieces);
  ASSERT_TRUE(part) << part.text();
  ASSERT_TRUE(part->Wait());
  ASSERT_TRUE(part->all_ok()) << part->text();
  EXPECT_EQ(part->variant(), "kivi4g32");
  EXPECT_TRUE(std::equal(landed.begin(), landed.begin() + range,
                         want.begin() + model.block_bytes() + 3 * model.layer_bytes()));

  // A lossless copy comes first where both are held; a lossy one stays what it is.
  const sdk::Sequence fresh = std::move(model.FromTokens(Tokens(3, 20)).value());
  auto raw = fresh.Store({.block_count = 1}, std::span(buffers).first(1));
  ASSERT_TRUE(raw) << raw.text();
  ASSERT_TRUE(raw->Wait() && raw->all_ok()) << raw->text();
  const auto landing = Blocks(landed, model.block_bytes());
  auto both =
      fresh.Fetch({.block_count = 2, .variants = {"raw", "kivi4g32"}}, std::span(landing).first(2));
  ASSERT_TRUE(both && both->Wait() && both->all_ok());
  EXPECT_EQ(both->variant(0), "raw");
  EXPECT_EQ(both->variant(1), "kivi4g32");
  EXPECT_TRUE(std::equal(landed.begin(), landed.begin() + model.block_bytes(), memory.begin()));
}

TEST_P(ClientSuite, OnlyExactAndDenseKvIsPublished) {
  const sdk::Model model = LossyModel();
  const sdk::Sequence sequence = std::move(model.FromTokens(Tokens(1, 23)).value());
  std::vector<uint8_t> memory = Values(model.block_bytes(), 23);
  const auto buffers = Blocks(memory, model.block_bytes());
  for (const auto& [provenance, name] : {std::pair{sdk::Provenance::kCorrected, "corrected"},
                                         {sdk::Provenance::kRecomputed, "recomputed"},
                                         {sdk::Provenance::kMoved, "moved"}}) {
    for (const char* variant : {"", "kivi4g32"}) {
      sdk::StoreOptions options{.block_count = 1, .variant = variant, .provenance = provenance};
      // A promise about lossy KV says nothing about this.
      options.computed_over = sdk::Fidelity::kLossless;
      const auto refused = sequence.Store(options, buffers);
      EXPECT_EQ(refused.code(), sdk::Code::kDenied);
      EXPECT_NE(refused.text().find(name), std::string::npos) << refused.text();
      EXPECT_EQ(sequence.StoreBegin(options).code(), sdk::Code::kDenied);
    }
  }
  EXPECT_EQ(sequence.MatchRun()->blocks(), 0u) << "nothing of it can be found";
  sdk::StoreOptions unknown{.block_count = 1};
  unknown.provenance = static_cast<sdk::Provenance>(6);
  EXPECT_EQ(sequence.Store(unknown, buffers).code(), sdk::Code::kInvalid);
  for (const auto provenance : {sdk::Provenance::kExact, sdk::Provenance::kDense}) {
    auto stored = sequence.Store({.block_count = 1, .provenance = provenance}, buffers);
    ASSERT_TRUE(stored && stored->Wait()) << stored.text();
  }
  EXPECT_EQ(sequence.MatchRun()->blocks(), 1u);
}

TEST_P(ClientSuite, KvOverLossyKvIsNotPublishedAsLossless) {
  const sdk::Model model = LossyModel();
  const sdk::Sequence sequence = std::move(model.FromTokens(Tokens(3, 21)).value());
  std::vector<uint8_t> memory = Values(3 * model.block_bytes(), 21);
  const auto buffers = Blocks(memory, model.block_bytes());
  auto store =
      sequence.Store({.block_count = 1, .variant = "kivi4g32"}, std::span(buffers).first(1));
  ASSERT_TRUE(store && store->Wait() && store->all_ok());
  std::vector<uint8_t> landed(model.block_bytes());
  auto fetch = sequence.Fetch({.block_count = 1, .variants = {"kivi4g32"}},
                              Blocks(landed, model.block_bytes()));
  ASSERT_TRUE(fetch && fetch->Wait() && fetch->all_ok());

  const sdk::StoreOptions rest{.block_begin = 1, .block_count = 2};
  const auto computed = std::span(buffers).subspan(1);
  const auto refused = sequence.Store(rest, computed);
  EXPECT_EQ(refused.code(), sdk::Code::kDenied);
  EXPECT_NE(refused.text().find("kivi4g32"), std::string::npos) << refused.text();
  EXPECT_EQ(sequence.StoreBegin(rest).code(), sdk::Code::kDenied);
  sdk::StoreOptions other = rest;
  other.variant = "kivi8g32";
  EXPECT_EQ(sequence.Store(other, computed).code(), sdk::Code::kDenied);
  sdk::StoreOptions promised = rest;
  promised.computed_over = sdk::Fidelity::kQuantized;
  EXPECT_EQ(sequence.Store(promised, computed).code(), sdk::Code::kDenied);
  promised.computed_over = sdk::Fidelity::kLossless;
  auto good = sequence.Store(promised, computed);
  ASSERT_TRUE(good) << good.text();
  EXPECT_TRUE(good->Wait() && good->all_ok());

  // As that chain it may, layer by layer too. A block that lacks a part is not stored.
  sdk::StoreOptions same = rest;
  same.variant = "kivi4g32";
  auto writer = sequence.StoreBegin(same);
  ASSERT_TRUE(writer) << writer.text();
  for (uint32_t layer = 0; layer < kLayers; ++layer) {
    for (const sdk::Component component : {sdk::Component::kK, sdk::Component::kV}) {
      const uint64_t at = model.block_bytes() + layer * model.layer_bytes() +
                          (component == sdk::Component::kV ? model.part_bytes() : 0);
      const auto status =
          writer->Part(0, layer, component, std::span(memory).subspan(at, model.part_bytes()));
      ASSERT_TRUE(status) << status.text();
    }
  }
  auto committed = writer->Commit();
  ASSERT_TRUE(committed) << committed.text();
  ASSERT_TRUE(committed->Wait());
  EXPECT_EQ(committed->code(0), sdk::Code::kOk) << committed->text();
  EXPECT_EQ(committed->code(1), sdk::Code::kInvalid);
}

TEST_P(ClientSuite, LossyVariantsPassTheGateOrAreRefused) {
  const sdk::Sequence sequence = SequenceOf(1, 22);  // of a model that nobody measured
  std::vector<uint8_t> memory = Values(model_->block_bytes(), 22);
  const auto buffers = Blocks(memory, model_->block_bytes());
  EXPECT_EQ(sequence.Store({.block_count = 1, .variant = "kivi4g32"}, buffers).code(),
            sdk::Code::kDenied);
  EXPECT_EQ(sequence.Fetch({.block_count = 1, .variants = {"kivi4g32"}}, buffers).code(),
            sdk::Code::kDenied);
  EXPECT_EQ(sequence.MatchRun({.variants = {"kivi4g32"}}).code(), sdk::Code::kDenied);

  sdk::ModelOptions missing = ModelOf();
  missing.profile = "/nonexistent/profile";
  EXPECT_NE(client_->OpenModel(missing).text().find("/nonexistent/profile"), std::string::npos);

  // A NaN cannot be quantized: the block, the layer and the token are named, nothing is stored.
  const sdk::Model model = LossyModel();
  const sdk::Sequence lossy = std::move(model.FromTokens(Tokens(1, 22)).value());
  const uint64_t token_9 = 2 * model.part_bytes() + 9 * (model.part_bytes() / kTokens);
  memory[token_9 + 1] = 0x7f;
  memory[token_9] = 0xff;
  const auto nan = lossy.Store({.block_count = 1, .variant = "kivi4g32"}, buffers);
  EXPECT_EQ(nan.code(), sdk::Code::kInvalid);
  EXPECT_NE(nan.text().find("block 0"), std::string::npos) << nan.text();
  EXPECT_NE(nan.text().find("layer 1 k"), std::string::npos) << nan.text();
}

}  // namespace kedge
