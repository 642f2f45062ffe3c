#include "gpu/kernels/rope_scaling_text.h"

#include <gtest/gtest.h>

namespace kedge::kernels {
namespace {

TEST(RopeScalingText, GoesThereAndBack) {
  const RopeScaling none;
  const RopeScaling linear{.kind = RopeScalingKind::kLinear, .factor = 2.5f};
  const RopeScaling llama{.kind = RopeScalingKind::kLlama3,
                          .factor = 8,
                          .low_freq_factor = 1,
                          .high_freq_factor = 4,
                          .original_max_positions = 8192};
  EXPECT_EQ(RopeScalingText(none), "");
  EXPECT_EQ(RopeScalingText(linear), "linear factor=2.5");
  EXPECT_EQ(RopeScalingText(llama), "llama3 factor=8 low=1 high=4 original=8192");
  for (const RopeScaling& scaling : {none, linear, llama}) {
    const auto read = ParseRopeScaling(RopeScalingText(scaling));
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(*read, scaling);
  }
}

TEST(RopeScalingText, RefusesWhatItCannotTurn) {
  for (const char* text :
       {"yarn factor=4 original=32768", "linear", "linear factor=0", "linear factor=nan",
        "linear factor=2 ", "llama3 factor=8 low=4 high=4 original=8192",
        "llama3 factor=8 low=1 high=4", "llama3 factor=8 low=1 high=4 original=inf"}) {
    const auto read = ParseRopeScaling(text);
    ASSERT_FALSE(read.ok()) << text;
    EXPECT_NE(read.status().message().find(text), std::string::npos);
  }
}

}  // namespace
}  // namespace kedge::kernels
