#include "tools/replay/replay.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kedge {
namespace {

using ::testing::HasSubstr;

TraceRequest Request(uint64_t input_length, std::vector<uint64_t> hash_ids) {
  return {.input_length = input_length, .output_length = 1, .hash_ids = std::move(hash_ids)};
}

// Two requests behind one shared block, the first of them once more.
const std::vector<TraceRequest> kTrace = {
    Request(4 * 512 + 10, {0, 1, 2, 3, 4}), Request(2 * 512, {0, 5}),
    Request(4 * 512 + 10, {0, 1, 2, 3, 4}), Request(100, {9}),  // no whole block
};

sdk::Client Open(const std::string& address) {
  auto client = sdk::Client::Open({.address = address, .salt = "replay test"});
  EXPECT_TRUE(client) << client.text();
  return std::move(*client);
}

TEST(ReplayTest, CountsWhatATraceFindsAndStores) {
  sdk::Client client = Open("embedded:?host=128MiB");
  auto sums = ReplayTrace(client, kTrace, {.batch_blocks = 3});
  ASSERT_TRUE(sums.ok()) << sums.status().message();
  EXPECT_EQ(sums->requests, 4u);
  EXPECT_EQ(sums->block_bytes, 128u << 10);
  EXPECT_EQ(sums->input_tokens, 2u * 2058 + 1024 + 100);
  EXPECT_EQ(sums->hits.blocks(), 10u);
  EXPECT_EQ(sums->hits.host_blocks, 5u);
  EXPECT_EQ(sums->hits.miss_blocks, 5u);
  EXPECT_EQ(sums->hit_tokens, 5u * 512);
  EXPECT_EQ(sums->fetched_blocks, 5u);
  EXPECT_EQ(sums->stored_blocks, 5u);
  EXPECT_EQ(sums->stored_bytes, 5u * (128 << 10));
  EXPECT_EQ(sums->held_blocks, 0u);
  EXPECT_EQ(sums->evicted_blocks, 0u);
  EXPECT_EQ(sums->refused_blocks, 0u);
  EXPECT_GT(sums->fetch_gb_per_second(), 0);

  auto again = ReplayTrace(client, kTrace, {});
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->hits.miss_blocks, 0u) << "the node holds all of it now";
  EXPECT_EQ(again->stored_blocks, 0u);
}

TEST(ReplayTest, WrongBytesAreFound) {
  sdk::Client client = Open("embedded:?host=128MiB");
  auto model = client.OpenModel({.weights_id = "kedge/replay",
                                 .tokenizer_id = "kedge/replay",
                                 .dtype = sdk::DType::kBf16,
                                 .layer_count = 4,
                                 .kv_heads = 1,
                                 .head_size = 16,
                                 .block_tokens = 512});
  ASSERT_TRUE(model) << model.text();
  const uint64_t id = 0;
  auto sequence = model->FromHashes({reinterpret_cast<const uint8_t*>(&id), 8}, 8);
  std::vector<uint8_t> block(model->block_bytes(), 7);
  std::vector<sdk::BlockBuffer> buffers = {{{block.data(), block.size()}}};
  auto store = sequence->Store({.block_count = 1}, buffers);
  ASSERT_TRUE(store && sdk::Client::Finish(*store));

  auto sums = ReplayTrace(client, kTrace, {});
  EXPECT_EQ(sums.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(sums.status().message()), HasSubstr("block 0 (hash id 0), part 0"));
}

TEST(ReplayTest, EndsWhenItIsTold) {
  sdk::Client client = Open("embedded:?host=128MiB");
  ReplayOptions options;
  options.on_request = [](uint64_t done) { return done < 2; };
  auto sums = ReplayTrace(client, kTrace, options);
  ASSERT_TRUE(sums.ok());
  EXPECT_EQ(sums->requests, 2u);
}

TEST(ReplayTest, NamesBadOptions) {
  sdk::Client client = Open("embedded:?host=128MiB");
  EXPECT_THAT(std::string(ReplayTrace(client, kTrace, {.batch_blocks = 0}).status().message()),
              HasSubstr("batch_blocks: 0"));
  EXPECT_EQ(ReplayTrace(client, kTrace, {.layers = 0}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace kedge
