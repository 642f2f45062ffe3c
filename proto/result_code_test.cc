#include "proto/result_code.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace kedge {
namespace {

TEST(ResultCode, EveryValueHasItsOwnName) {
  std::set<std::string> names;
  for (int value = 0; value <= kResultCodeMax; ++value) {
    const char* name = ResultCodeName(static_cast<ResultCode>(value));
    EXPECT_STRNE(name, "unknown") << value;
    EXPECT_TRUE(names.insert(name).second) << name;
  }
  EXPECT_STREQ(ResultCodeName(static_cast<ResultCode>(kResultCodeMax + 1)), "unknown");
}

// Values cross the wire and the C ABI: a renumbering must be noticed.
TEST(ResultCode, ValuesAreFixed) {
  EXPECT_EQ(static_cast<int>(ResultCode::kOk), 0);
  EXPECT_EQ(static_cast<int>(ResultCode::kCorrupt), 5);
  EXPECT_EQ(static_cast<int>(ResultCode::kUnavailable), 10);
  EXPECT_EQ(static_cast<int>(ResultCode::kInternal), 16);
  EXPECT_EQ(static_cast<int>(TierId::kSsd), 3);
}

TEST(ResultCode, SuccessIsOkStatus) {
  for (int value = 0; value <= kResultCodeMax; ++value) {
    const auto code = static_cast<ResultCode>(value);
    EXPECT_EQ(IsSuccess(code), ToStatusCode(code) == absl::StatusCode::kOk) << ResultCodeName(code);
  }
}

TEST(ResultCode, StatusComesBackWithTheSameStatusCode) {
  for (int value = 0; value <= kResultCodeMax; ++value) {
    const absl::StatusCode code = ToStatusCode(static_cast<ResultCode>(value));
    EXPECT_EQ(ToStatusCode(FromStatus(absl::Status(code, "why"))), code) << value;
  }
  EXPECT_EQ(FromStatus(absl::UnknownError("?")), ResultCode::kInternal);
  EXPECT_EQ(FromStatus(absl::DataLossError("?")), ResultCode::kCorrupt);
}

TEST(ResultCode, TierNames) {
  EXPECT_STREQ(TierName(TierId::kHost), "host");
  EXPECT_STREQ(TierName(static_cast<TierId>(9)), "unknown");
}

}  // namespace
}  // namespace kedge
