// Eigenvectors of a symmetric matrix, by LAPACK (OpenBLAS). For profiling time: which of two equal
// machines finds which sign is not promised.
#pragma once

#include <cstdint>
#include <vector>

namespace kedge::profile {

struct Eigen {
  std::vector<double> values;   // descending
  std::vector<double> vectors;  // [n][n], row i belongs to values[i]; rows are orthonormal
};

// `matrix` is [n][n], symmetric (the lower half is read), finite. Aborts where LAPACK does not
// converge, which it does for every finite matrix.
Eigen SymmetricEigen(std::vector<double> matrix, int64_t n);

}  // namespace kedge::profile
