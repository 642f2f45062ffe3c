#include "gpu/model/score_capture.h"

#include <cmath>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gpu/kernels/attention_mass.h"
#include "gpu/model/prune_profile.h"
#include "gpu/model/testing_model.h"
#include "gtest/gtest.h"

namespace kedge {
namespace {

using ::testing::HasSubstr;

class ScoreCaptureTest : public ::testing::Test {
 protected:
  codec::ScoreSidecar Capture(const std::vector<int32_t>& tokens, int64_t extent, int64_t window) {
    absl::StatusOr<KvCache> cache = model_->NewCache(400);
    ScoreCapture capture(*model_, extent, window);
    PrefillOptions options;
    capture.Attach(options);
    EXPECT_TRUE(model_->Prefill(tokens, *cache, options).ok());
    absl::StatusOr<codec::ScoreSidecar> sidecar = capture.Finish();
    EXPECT_TRUE(sidecar.ok()) << sidecar.status();
    return *std::move(sidecar);
  }

  CpuDevice device_{2};
  std::unique_ptr<Model> model_ =
      MakeTestingModel(Architecture::kLlama, device_, {.kv_dtype = DType::kBf16});
};

// Against attention_mass.h, in double, over the same prefill.
TEST_F(ScoreCaptureTest, IsTheMeanWeightOfTheObservers) {
  const std::vector<int32_t> tokens = TestingPrompt(150);
  for (const int64_t window : {0, 32, 64}) {
    const int64_t extent = 128;
    std::vector<double> expected(3 * 4 * extent);
    PrefillOptions options;
    options.on_attention = [&](int64_t layer, const kernels::AttentionArgs& args) {
      kernels::AttentionArgs rows = args;
      rows.rows = std::min(args.rows, extent - args.first_position);
      const int64_t from = window == 0 ? 0 : extent - window;
      const int64_t skipped = std::max<int64_t>(0, from - args.first_position);
      if (skipped >= rows.rows) return;
      rows.q += skipped * rows.q_stride;
      rows.first_position += skipped;
      rows.rows -= skipped;
      const int64_t keys = rows.first_position + rows.rows;
      std::vector<double> mass(4 * keys);
      kernels::AttentionMass(device_, rows, mass);
      for (int64_t head = 0; head < 4; ++head) {
        for (int64_t key = 0; key < keys; ++key)
          expected[(layer * 4 + head) * extent + key] += mass[head * keys + key];
      }
    };
    absl::StatusOr<KvCache> cache = model_->NewCache(400);
    ASSERT_TRUE(model_->Prefill(tokens, *cache, options).ok());
    const codec::ScoreSidecar sidecar = Capture(tokens, extent, window);
    EXPECT_EQ(sidecar.window, window);
    const codec::TokenScores scores = codec::ScoresOf(sidecar);
    for (size_t i = 0; i < expected.size(); ++i) {
      const auto token = static_cast<int64_t>(i) % extent;
      const auto observers = static_cast<double>(window == 0 ? extent - token : window);
      const double score = expected[i] / observers;
      ASSERT_NEAR(scores.values[i], score, score * 0.046 + 1e-5) << "window " << window;
    }
  }
}

// The rule: what is stored under a key depends on nothing behind the key's last token.
TEST_F(ScoreCaptureTest, WhatFollowsTheExtentLeavesNoTrace) {
  const std::vector<int32_t> alone = TestingPrompt(128);
  for (const int64_t window : {0, 32}) {
    const codec::ScoreSidecar expected = Capture(alone, 128, window);
    std::vector<int32_t> asked = TestingPrompt(170);
    EXPECT_EQ(Capture(asked, 128, window).codes, expected.codes);
    for (size_t i = 128; i < asked.size(); ++i) asked[i] = (asked[i] + 1 + i) % 250;
    EXPECT_EQ(Capture(asked, 128, window).codes, expected.codes);
    asked[100] = (asked[100] + 1) % 250;
    EXPECT_NE(Capture(asked, 128, window).codes, expected.codes) << "what precedes its end does";
  }
}

TEST_F(ScoreCaptureTest, QueriesThatCameFromAStoreAreMissed) {
  const std::vector<int32_t> tokens = TestingPrompt(192);
  absl::StatusOr<KvCache> cache = model_->NewCache(400);
  ASSERT_TRUE(model_->Prefill(std::span(tokens).first(64), *cache).ok());
  ScoreCapture capture(*model_, 128, 128);
  ScoreCapture late(*model_, 128, 64);
  for (ScoreCapture* each : {&capture, &late}) {
    PrefillOptions options;
    each->Attach(options);
    cache->set_length(64);
    ASSERT_TRUE(model_->Prefill(tokens, *cache, options).ok());
  }
  EXPECT_THAT(std::string(capture.Finish().status().message()),
              HasSubstr("layer 0: 64 of 128 queries were computed"));
  EXPECT_TRUE(late.Finish().ok());
}

TEST_F(ScoreCaptureTest, AProfileIsOfWhatWasSeen) {
  PruneProfiler profiler(*model_);
  EXPECT_FALSE(profiler.Build().ok());
  std::vector<double> sums(64);  // of layer 2's queries from the fifth one on
  for (const int64_t tokens : {100, 70}) {
    ASSERT_TRUE(profiler.Add(*model_, TestingPrompt(tokens)).ok());
    PrefillOptions options;
    options.on_queries = [&](int64_t layer, int64_t first, int64_t rows, const float* q,
                             int64_t stride) {
      for (int64_t row = 0; layer == 2 && row < rows; ++row) {
        for (int64_t i = 0; first + row >= 4 && i < 64; ++i) sums[i] += q[row * stride + i];
      }
    };
    absl::StatusOr<KvCache> cache = model_->NewCache(400);
    ASSERT_TRUE(model_->Prefill(TestingPrompt(tokens), *cache, options).ok());
  }
  const absl::StatusOr<codec::PruneProfile> profile = profiler.Build();
  ASSERT_TRUE(profile.ok()) << profile.status();
  EXPECT_EQ(profile->budgets.samples, 2u);
  EXPECT_EQ(profile->budgets.curves.size(), 3u);
  EXPECT_EQ(profile->queries->queries, 96u + 66u);
  for (int64_t i = 0; i < 64; ++i)
    EXPECT_NEAR(profile->queries->mean_of(2, 0)[i], sums[i] / 162, 1e-5);
}

}  // namespace
}  // namespace kedge
