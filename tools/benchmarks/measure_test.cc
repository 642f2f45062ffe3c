#include "tools/benchmarks/measure.h"

#include <gtest/gtest.h>

namespace kedge::bench {
namespace {

TEST(Measure, MedianAndPercentilesAreNearestRank) {
  EXPECT_EQ(Median({3, 1, 2}), 2);
  EXPECT_EQ(Percentile({1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, 99), 10);
  EXPECT_EQ(Percentile({1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, 50), 5);
  EXPECT_EQ(Median({}), 0);
}

TEST(Measure, InterleavesOursAndTheYardstick) {
  std::string order;
  auto figure = Compare(
      "b", "c", "GB/s", "y", Direction::kLargerIsBetter, 2,
      [&]() -> absl::StatusOr<double> {
        order += 'A';
        return 3.0;
      },
      [&]() -> absl::StatusOr<double> {
        order += 'B';
        return 2.0;
      });
  ASSERT_TRUE(figure.ok());
  EXPECT_EQ(order,
            "AB"
            "ABBAABBA");  // a warm-up first
  EXPECT_DOUBLE_EQ(*figure->ratio, 1.5);
  EXPECT_FALSE(figure->is_void);
}

TEST(Measure, ARatioOfTimesIsLargerWhenOursIsShorter) {
  auto figure = Compare(
      "b", "c", "us", "y", Direction::kSmallerIsBetter, 1,
      []() -> absl::StatusOr<double> { return 10.0; },
      []() -> absl::StatusOr<double> { return 20.0; });
  ASSERT_TRUE(figure.ok());
  EXPECT_DOUBLE_EQ(*figure->ratio, 2.0);
}

TEST(Measure, AYardstickThatVariesVoidsTheCase) {
  double next = 1;
  auto figure = Compare(
      "b", "c", "us", "y", Direction::kSmallerIsBetter, 3,
      []() -> absl::StatusOr<double> { return 1.0; },
      [&]() -> absl::StatusOr<double> { return next *= 1.5; });
  ASSERT_TRUE(figure.ok());
  EXPECT_TRUE(figure->is_void);
}

TEST(Measure, TheFirstErrorEndsIt) {
  int calls = 0;
  auto figure = Compare(
      "b", "c", "us", "y", Direction::kSmallerIsBetter, 3,
      [&]() -> absl::StatusOr<double> {
        ++calls;
        return absl::InternalError("gone");
      },
      []() -> absl::StatusOr<double> { return 1.0; });
  EXPECT_EQ(figure.status().message(), "gone");
  EXPECT_EQ(calls, 1);
}

}  // namespace
}  // namespace kedge::bench
