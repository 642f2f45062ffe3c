#include "client/match/placeholder_match.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "store/world/random.h"

namespace kedge::match {
namespace {

std::vector<float> Sketch(uint32_t tokens, float value) {
  return std::vector<float>(tokens * kSketchDimensions, value);
}
BlockKey Key(uint8_t value) {
  BlockKey key;
  key.bytes.fill(value);
  return key;
}

TEST(PlaceholderMatch, OrdersByDistanceThenKeyAndWantsTheLength) {
  const auto near = Sketch(9, 1.5f), far = Sketch(8, 3.0f), shorter = Sketch(7, 1.0f);
  const AnchorSketch anchors[] = {{Key(4), far}, {Key(3), near}, {Key(2), shorter}, {Key(1), near}};
  const PlaceholderMatch match = MatchPlaceholder(Sketch(8, 1.0f), anchors, 0.5f);
  ASSERT_EQ(match.verdict, PlaceholderVerdict::kMatched);
  ASSERT_EQ(match.anchors.size(), 3u);
  EXPECT_EQ(match.anchors[0].anchor, 3u);
  EXPECT_EQ(match.anchors[1].anchor, 1u);
  EXPECT_EQ(match.anchors[2].anchor, 0u);
  EXPECT_FLOAT_EQ(match.anchors[0].distance, 1.0f);  // 0.5, in units of 0.5
  EXPECT_FLOAT_EQ(match.anchors[2].distance, 4.0f);
}

TEST(PlaceholderMatch, SaysWhyThereIsNone) {
  const auto eight = Sketch(8, 1.0f);
  const AnchorSketch anchors[] = {{Key(1), eight}};
  EXPECT_EQ(MatchPlaceholder({}, anchors, 1).verdict, PlaceholderVerdict::kEmptyFilling);
  EXPECT_EQ(MatchPlaceholder(Sketch(9, 1), anchors, 1).verdict, PlaceholderVerdict::kTooLong);
  EXPECT_EQ(MatchPlaceholder(eight, {}, 1).verdict, PlaceholderVerdict::kNoAnchors);
  auto bad = eight;
  bad.pop_back();
  EXPECT_EQ(MatchPlaceholder(bad, anchors, 1).verdict, PlaceholderVerdict::kBadSketch);
  const AnchorSketch odd[] = {{Key(1), bad}};
  EXPECT_EQ(MatchPlaceholder(eight, odd, 1).verdict, PlaceholderVerdict::kNoAnchors);
  bad = eight;
  bad[5] = std::nanf("");
  EXPECT_EQ(MatchPlaceholder(bad, anchors, 1).verdict, PlaceholderVerdict::kBadSketch);
  const AnchorSketch poisoned[] = {{Key(1), bad}};
  EXPECT_EQ(MatchPlaceholder(eight, poisoned, 1).verdict, PlaceholderVerdict::kNoAnchors);
  for (float scale : {0.0f, -1.0f, std::nanf(""), std::numeric_limits<float>::infinity()}) {
    EXPECT_EQ(MatchPlaceholder(eight, anchors, scale).anchors.at(0).distance, 0.0f);
  }
}

TEST(PlaceholderMatch, ScaleIsThePoolsOwn) {
  const auto a = Sketch(8, 0.0f), b = Sketch(9, 4.0f);
  const AnchorSketch anchors[] = {{Key(1), a}, {Key(2), b}};
  EXPECT_FLOAT_EQ(PoolScale(anchors), 4.0f);
  EXPECT_FLOAT_EQ(PoolScale({anchors, 1}), 1.0f);
  const AnchorSketch equal[] = {{Key(1), a}, {Key(2), a}};
  EXPECT_FLOAT_EQ(PoolScale(equal), 1.0f);
}

TEST(SketchProjection, KeepsDistancesAndDependsOnTheSeed) {
  Random random(1);
  const uint32_t width = 512;
  const SketchProjection one(1, width), two(2, width);
  double ratio = 0.0;
  const int rounds = 200;
  for (int round = 0; round < rounds; ++round) {
    std::vector<float> values(width);
    double norm = 0.0;
    for (float& value : values) {
      value = static_cast<float>(random.Unit() - 0.5);
      norm += double{value} * value;
    }
    double projected = 0.0;
    for (float value : one.Project(values)) projected += double{value} * value;
    ratio += projected / norm / rounds;
    EXPECT_EQ(one.Project(values), SketchProjection(1, width).Project(values));
    EXPECT_NE(one.Project(values), two.Project(values));
  }
  EXPECT_NEAR(ratio, 1.0, 0.15);
}

}  // namespace
}  // namespace kedge::match
