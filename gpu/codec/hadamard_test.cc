#include "gpu/codec/hadamard.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "gpu/kernels/random_floats.h"

namespace kedge::codec {
namespace {

TEST(Hadamard, IsTheMatrixOfParities) {
  for (int64_t head_size : {1, 8, 96, 128}) {
    const int64_t block = HadamardBlock(head_size);
    const std::vector<float> before = kernels::RandomFloats(2 * head_size, 1);
    std::vector<float> after = before;
    Hadamard(2, head_size, after.data());
    for (int64_t i = 0; i < 2 * head_size; ++i) {
      double sum = 0.0;
      for (int64_t j = 0; j < block; ++j) {
        const bool odd = __builtin_popcountll((i % block) & j) % 2 != 0;
        sum += (odd ? -1.0 : 1.0) * before[i - i % block + j];
      }
      EXPECT_NEAR(after[i], sum / std::sqrt(static_cast<double>(block)), 1e-5);
    }
    Hadamard(2, head_size, after.data());
    for (int64_t i = 0; i < 2 * head_size; ++i) EXPECT_NEAR(after[i], before[i], 1e-6);
  }
  EXPECT_EQ(HadamardBlock(96), 32);
  EXPECT_EQ(HadamardBlock(128), 128);
}

}  // namespace
}  // namespace kedge::codec
