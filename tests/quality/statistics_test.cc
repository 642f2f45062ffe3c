#include "tests/quality/statistics.h"

#include <memory>
#include <vector>

#include "gtest/gtest.h"
#include "tests/quality/testing_eval.h"

namespace kedge::quality {
namespace {

TEST(Statistics, TheTwinHasLargeChannelsAndTheSameAttention) {
  const EvalModel eval = MakeTestingEvalModel("statistics");
  const EvalTask task = MakeTestingTask(eval);
  std::vector<ModelStatistics> found;
  for (float scale : {1.0f, 8.0f}) {
    absl::StatusOr<std::vector<Runner>> runners = MakeRunners(eval, 1, {.twin_scale = scale});
    ASSERT_TRUE(runners.ok()) << runners.status();
    absl::StatusOr<ModelStatistics> statistics =
        MeasureModel(*(*runners)[0].model, task.contexts, 2);
    ASSERT_TRUE(statistics.ok()) << statistics.status();
    found.push_back(*std::move(statistics));
  }
  ASSERT_EQ(found[0].sink.size(), 2u);
  EXPECT_EQ(found[0].sink, found[1].sink);
  EXPECT_GT(found[0].sink[0], 0);
  EXPECT_LT(found[0].sink[0], 0.5);
  // Rows 16 to 92 of two contexts of 93 tokens: the mean of 1 / (row + 1).
  double uniform = 0;
  for (int row = 16; row < 93; ++row) uniform += 1.0 / (row + 1) / (93 - 16);
  EXPECT_NEAR(found[0].uniform, uniform, 1e-9);
  EXPECT_LT(MeanOverLayers(found[0].key_channels), 3);
  EXPECT_GT(MeanOverLayers(found[1].key_channels), 6);
}

}  // namespace
}  // namespace kedge::quality
