#include "gpu/kernels/embedding.h"

#include <vector>

#include <gtest/gtest.h>

#include "gpu/kernels/random_floats.h"

namespace kedge::kernels {
namespace {

TEST(Embedding, CopiesTheRowOfEachToken) {
  CpuDevice device(2);
  constexpr int64_t kWidth = 9;
  const std::vector<float> table = RandomFloats(5 * kWidth, 1);
  const std::vector<int32_t> tokens = {4, 0, 4, 2};
  std::vector<float> out(tokens.size() * kWidth);
  Embedding(device, table.data(), tokens.data(), 4, kWidth, out.data());
  for (size_t r = 0; r < tokens.size(); ++r) {
    for (int64_t i = 0; i < kWidth; ++i) {
      ASSERT_EQ(out[r * kWidth + i], table[tokens[r] * kWidth + i]);
    }
  }
}

}  // namespace
}  // namespace kedge::kernels
