// A Session over an embedded node, driven by the reference runner.
#include "tools/worker/runner_session.h"

#include <gtest/gtest.h>

#include <cstring>

#include "gpu/model/testing_model.h"
#include "tools/worker/kv_blocks.h"

namespace kedge {
namespace {

constexpr int64_t kTokens = 300;

class RunnerSessionTest : public testing::Test {
 protected:
  void SetUp() override {
    model_ = MakeTestingModel(Architecture::kLlama, device_,
                              {.block_tokens = 64, .kv_dtype = DType::kBf16});
    prompt_ = TestingPrompt(kTokens);
    auto client = sdk::Client::Open({.address = "embedded:", .salt = "test"});
    ASSERT_TRUE(client) << client.text();
    client_.emplace(std::move(*client));
    auto blocks = client_->OpenModel(StoreModel(*model_, "weights", "bytes"));
    ASSERT_TRUE(blocks) << blocks.text();
    blocks_.emplace(std::move(*blocks));
    dense_ = std::make_unique<KvCache>(*model_->NewCache(kTokens));
    logits_ = *model_->Prefill(prompt_, *dense_);
    options_.rates = {.layers = 3, .token = 1.0, .token_key = 1e-6, .place = 1e-6};
    options_.rules.config = {.policy = RecomputePolicy::kDeviation, .check_layer = 1, .ratio = 0.2};
  }

  struct Served {
    KvCache cache;
    Logits logits;
    SessionPrefill prefill;
    uint32_t published = 0;
  };
  Served Serve(const std::vector<OfferedRun>& runs, bool donors = true) {
    Served served{.cache = *model_->NewCache(kTokens)};
    RunnerSession engine(*model_, served.cache,
                         [&](const OfferedRun& run) -> absl::StatusOr<KvSpan> {
                           if (!donors) return absl::NotFoundError("evicted");
                           return ComputeAlone(*model_, std::span(prompt_).first(1),
                                               std::span(prompt_).subspan(run.first, run.count));
                         });
    Session session(*blocks_, 64, options_);
    absl::StatusOr<SessionPrefill> prefill = session.Prefill(prompt_, runs, engine);
    EXPECT_TRUE(prefill.ok()) << prefill.status();
    served.prefill = *std::move(prefill);
    served.logits = *engine.LastLogits();
    absl::StatusOr<uint32_t> published = session.Publish(served.prefill, engine);
    EXPECT_TRUE(published.ok()) << published.status();
    served.published = *published;
    return served;
  }
  bool IsDense(const Served& served) const {
    for (int64_t layer = 0; layer < 3; ++layer) {
      for (const Component component : {Component::kK, Component::kV}) {
        const auto a = dense_->PartSpan(layer, component, 0, kTokens);
        const auto b = served.cache.PartSpan(layer, component, 0, kTokens);
        if (std::memcmp(a.data(), b.data(), a.size()) != 0) return false;
      }
    }
    return served.logits.values == logits_.values;
  }

  CpuDevice device_{1};
  std::unique_ptr<Model> model_;
  std::vector<int32_t> prompt_;
  std::optional<sdk::Client> client_;
  std::optional<sdk::Model> blocks_;
  std::unique_ptr<KvCache> dense_;
  Logits logits_;
  SessionOptions options_;
};

TEST_F(RunnerSessionTest, ComputesThenFetchesTheSameBits) {
  const Served first = Serve({});
  EXPECT_TRUE(IsDense(first));
  EXPECT_EQ(first.published, 4u);
  EXPECT_EQ(first.prefill.computed_rows, kTokens);
  const Served second = Serve({});
  EXPECT_TRUE(IsDense(second));
  EXPECT_EQ(second.prefill.fetched_blocks, 4u);
  EXPECT_EQ(second.prefill.computed_rows, kTokens - 256);
  EXPECT_EQ(second.prefill.provenance.At(255), Provenance::kExact);
  EXPECT_EQ(second.prefill.provenance.worst(), Provenance::kDense);
  EXPECT_EQ(second.published, 0u) << "all of it is there";
}

TEST_F(RunnerSessionTest, MovedRunsAreRecomputedAndNotPublished) {
  const Served served = Serve({{.first = 80, .count = 100}});
  EXPECT_EQ(served.prefill.decision.tokens(Treatment::kRecomputed), 100);
  EXPECT_EQ(served.prefill.computed_rows, 200 + 20);
  EXPECT_FALSE(IsDense(served));
  EXPECT_EQ(served.prefill.provenance.worst(), Provenance::kRecomputed);
  EXPECT_EQ(served.published, 1u) << "the block before the run alone";
  // The next one finds that block, and what the prefix covers of a run is left alone.
  const Served next = Serve({{.first = 10, .count = 20}, {.first = 80, .count = 100}});
  EXPECT_EQ(next.prefill.fetched_blocks, 1u);
  EXPECT_EQ(next.prefill.decision.tokens(Treatment::kRecomputed), 100);
  EXPECT_EQ(next.logits.values, served.logits.values);
}

TEST_F(RunnerSessionTest, WhatIsLostIsComputed) {
  const Served served = Serve({{.first = 80, .count = 100}}, /*donors=*/false);
  EXPECT_TRUE(IsDense(served));
  EXPECT_EQ(served.prefill.decision.segments[1].why, WhyNot::kLost);
  EXPECT_EQ(served.published, 4u);
}

TEST_F(RunnerSessionTest, ExactDemandedIsDenseToTheBit) {
  options_.rules.exact_only = true;
  EXPECT_TRUE(IsDense(Serve({{.first = 80, .count = 100}})));
  const Served second = Serve({{.first = 80, .count = 100}});
  EXPECT_TRUE(IsDense(second));
  EXPECT_EQ(second.prefill.fetched_blocks, 4u);
}

TEST_F(RunnerSessionTest, RefusesRunsOutside) {
  KvCache cache = *model_->NewCache(kTokens);
  RunnerSession engine(*model_, cache,
                       [](const OfferedRun&) { return absl::NotFoundError("none"); });
  Session session(*blocks_, 64, options_);
  const std::vector<OfferedRun> runs = {{.first = 290, .count = 20}};
  EXPECT_EQ(session.Prefill(prompt_, runs, engine).status().message(),
            "runs[0]: 20 tokens at 290 do not ascend inside [0, 300)");
}

}  // namespace
}  // namespace kedge
