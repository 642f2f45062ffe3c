#include "gpu/profile/symmetric_eigen.h"

#include <gtest/gtest.h>

#include <random>

namespace kedge::profile {
namespace {

TEST(SymmetricEigen, KnownByHand) {
  const Eigen eigen = SymmetricEigen({2, 1, 1, 2}, 2);
  EXPECT_NEAR(eigen.values[0], 3, 1e-12);
  EXPECT_NEAR(eigen.values[1], 1, 1e-12);
  EXPECT_NEAR(eigen.vectors[0], eigen.vectors[1], 1e-12);   // (1, 1)
  EXPECT_NEAR(eigen.vectors[2], -eigen.vectors[3], 1e-12);  // (1, -1)
}

TEST(SymmetricEigen, VectorsMakeTheMatrixAgain) {
  constexpr int64_t kN = 33;
  std::mt19937 random(1);
  std::normal_distribution<double> normal;
  std::vector<double> matrix(kN * kN);
  for (int64_t i = 0; i < kN; ++i) {
    for (int64_t j = 0; j <= i; ++j) matrix[i * kN + j] = matrix[j * kN + i] = normal(random);
  }
  const Eigen eigen = SymmetricEigen(matrix, kN);
  for (int64_t i = 0; i < kN; ++i) {
    if (i > 0) {
      EXPECT_GE(eigen.values[i - 1], eigen.values[i]);
    }
    for (int64_t j = 0; j < kN; ++j) {
      double sum = 0;
      for (int64_t e = 0; e < kN; ++e)
        sum += eigen.values[e] * eigen.vectors[e * kN + i] * eigen.vectors[e * kN + j];
      EXPECT_NEAR(sum, matrix[i * kN + j], 1e-10);
    }
  }
}

}  // namespace
}  // namespace kedge::profile
