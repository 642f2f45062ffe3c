#include "gpu/profile/symmetric_eigen.h"

#include <algorithm>

#include "absl/base/internal/raw_logging.h"

// OpenBLAS carries LAPACK, its headers in Debian do not declare it.
extern "C" void dsyevd_(const char* job, const char* half, const int* n, double* a, const int* lda,
                        double* values, double* work, const int* work_size, int* integers,
                        const int* integers_size, int* info);

namespace kedge::profile {

Eigen SymmetricEigen(std::vector<double> matrix, int64_t n) {
  ABSL_RAW_CHECK(n > 0 && n <= 65535 && static_cast<int64_t>(matrix.size()) == n * n,
                 "a symmetric matrix of another size");
  const int order = static_cast<int>(n);
  std::vector<double> values(n);
  int info = 0;
  int work_size = -1;
  int integers_size = -1;
  double work_wanted = 0;
  int integers_wanted = 0;
  // Row-major "lower" is LAPACK's upper.
  dsyevd_("V", "U", &order, matrix.data(), &order, values.data(), &work_wanted, &work_size,
          &integers_wanted, &integers_size, &info);
  ABSL_RAW_CHECK(info == 0, "dsyevd: sizes");
  work_size = static_cast<int>(work_wanted);
  integers_size = integers_wanted;
  std::vector<double> work(work_size);
  std::vector<int> integers(integers_size);
  dsyevd_("V", "U", &order, matrix.data(), &order, values.data(), work.data(), &work_size,
          integers.data(), &integers_size, &info);
  ABSL_RAW_CHECK(info == 0, "dsyevd: did not converge");
  // Ascending columns of a column-major matrix are ascending rows of ours.
  Eigen eigen{.values = std::move(values), .vectors = std::move(matrix)};
  std::reverse(eigen.values.begin(), eigen.values.end());
  for (int64_t i = 0; i < n / 2; ++i) {
    std::swap_ranges(eigen.vectors.begin() + i * n, eigen.vectors.begin() + (i + 1) * n,
                     eigen.vectors.begin() + (n - 1 - i) * n);
  }
  return eigen;
}

}  // namespace kedge::profile
