#include "gpu/offset/linear_map.h"

#include <algorithm>
#include <cmath>

#include "absl/base/internal/raw_logging.h"

namespace kedge::offset {
namespace {

constexpr int kRankSteps = 12;  // of subspace iteration

// [features] of a token.
void Features(const KvRows& base, int64_t layer, int64_t token, std::vector<double>& x) {
  const std::span<const float> key = base.Key(layer, token);
  const std::span<const float> value = base.Value(layer, token);
  std::copy(key.begin(), key.end(), x.begin());
  std::copy(value.begin(), value.end(), x.begin() + base.width);
  // What stands before the run draws less attention the further into it a token is.
  x[2 * base.width] = 1.0;
  x[2 * base.width + 1] = 1.0 / std::sqrt(1.0 + static_cast<double>(token));
  x[2 * base.width + 2] = 1.0 / (1.0 + static_cast<double>(token));
}

// a = L L', in place in the lower triangle.
void Cholesky(std::vector<double>& a, int64_t n) {
  for (int64_t j = 0; j < n; ++j) {
    double* row = a.data() + j * n;
    for (int64_t i = 0; i < j; ++i) {
      const double* other = a.data() + i * n;
      double sum = row[i];
      for (int64_t k = 0; k < i; ++k) sum -= row[k] * other[k];
      row[i] = sum / other[i];
    }
    double sum = row[j];
    for (int64_t k = 0; k < j; ++k) sum -= row[k] * row[k];
    row[j] = std::sqrt(std::max(sum, 1e-300));
  }
}

// Solves L L' x = b for `columns` right-hand sides at once; b is [n][columns].
void CholeskySolve(const std::vector<double>& l, int64_t n, int64_t columns,
                   std::vector<double>& b) {
  const auto subtract = [&](int64_t row, int64_t other, double factor) {
    double* to = b.data() + row * columns;
    const double* from = b.data() + other * columns;
    for (int64_t c = 0; c < columns; ++c) to[c] -= factor * from[c];
  };
  const auto divide = [&](int64_t row) {
    double* to = b.data() + row * columns;
    for (int64_t c = 0; c < columns; ++c) to[c] /= l[row * n + row];
  };
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t k = 0; k < i; ++k) subtract(i, k, l[i * n + k]);
    divide(i);
  }
  for (int64_t i = n - 1; i >= 0; --i) {
    for (int64_t k = i + 1; k < n; ++k) subtract(i, k, l[k * n + i]);
    divide(i);
  }
}

// [rows][columns] times [columns][other].
std::vector<double> Times(const std::vector<double>& a, const std::vector<double>& b, int64_t rows,
                          int64_t columns, int64_t other) {
  std::vector<double> product(rows * other);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t k = 0; k < columns; ++k) {
      const double factor = a[i * columns + k];
      for (int64_t j = 0; j < other; ++j) product[i * other + j] += factor * b[k * other + j];
    }
  }
  return product;
}

std::vector<double> Transposed(const std::vector<double>& a, int64_t rows, int64_t columns) {
  std::vector<double> t(a.size());
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j) t[j * rows + i] = a[i * columns + j];
  return t;
}

// Makes the rows of q, [rank][n], orthonormal (Gram and Schmidt, twice is enough).
void Orthonormal(std::vector<double>& q, int64_t rank, int64_t n) {
  for (int pass = 0; pass < 2; ++pass) {
    for (int64_t i = 0; i < rank; ++i) {
      double* row = q.data() + i * n;
      for (int64_t j = 0; j < i; ++j) {
        const double* other = q.data() + j * n;
        double dot = 0;
        for (int64_t k = 0; k < n; ++k) dot += row[k] * other[k];
        for (int64_t k = 0; k < n; ++k) row[k] -= dot * other[k];
      }
      double norm = 0;
      for (int64_t k = 0; k < n; ++k) norm += row[k] * row[k];
      const double factor = norm > 0 ? 1.0 / std::sqrt(norm) : 0.0;
      for (int64_t k = 0; k < n; ++k) row[k] *= factor;
    }
  }
}

// The leading directions of what a map predicts, orthonormal rows [rank][outputs]: of the symmetric
// matrix w' xx w.
std::vector<double> Leading(const std::vector<double>& w, const std::vector<double>& xx,
                            int64_t features, int64_t outputs, int64_t rank) {
  const std::vector<double> moments =
      Times(Transposed(w, features, outputs), Times(xx, w, features, features, outputs), outputs,
            features, outputs);
  std::vector<double> q(rank * outputs);
  for (size_t i = 0; i < q.size(); ++i)  // any start that is not degenerate
    q[i] = std::cos(static_cast<double>(i * i % 7919) + 0.5);
  Orthonormal(q, rank, outputs);
  for (int step = 0; step < kRankSteps; ++step) {
    q = Times(q, moments, rank, outputs, outputs);
    Orthonormal(q, rank, outputs);
  }
  return q;
}

std::vector<float> Narrow(const std::vector<double>& values) {
  return {values.begin(), values.end()};
}

}  // namespace

LinearFit::LinearFit(int64_t layers, int64_t width, const LinearOptions& options)
    : options_(options), layers_(layers), width_(width), features_(2 * width + kExtraFeatures) {
  ABSL_RAW_CHECK(layers > 0 && width > 0, "a model has layers and heads");
  xx_.resize(layers - 1, std::vector<double>(features_ * features_));
  xy_.resize(layers - 1, std::vector<double>(features_ * 2 * width));
}

void LinearFit::Update(const KvRows& base, const KvRows& offset) {
  ABSL_RAW_CHECK(base.SameShape(offset) && base.layers == layers_ && base.width == width_,
                 "runs of the shape that is learnt");
  if (base.tokens == 0) return;
  std::vector<double> x(features_);
  for (int64_t layer = 1; layer < layers_; ++layer) {
    std::vector<double>& xx = xx_[layer - 1];
    std::vector<double>& xy = xy_[layer - 1];
    if (options_.forget != 1.0) {
      for (double& value : xx) value *= options_.forget;
      for (double& value : xy) value *= options_.forget;
    }
    for (int64_t token = 0; token < base.tokens; ++token) {
      Features(base, layer, token, x);
      const std::span<const float> key = offset.Key(layer, token);
      const std::span<const float> value = offset.Value(layer, token);
      for (int64_t i = 0; i < features_; ++i) {
        for (int64_t j = 0; j < features_; ++j) xx[i * features_ + j] += x[i] * x[j];
        double* row = xy.data() + i * 2 * width_;
        for (int64_t j = 0; j < width_; ++j) row[j] += x[i] * key[j];
        for (int64_t j = 0; j < width_; ++j) row[width_ + j] += x[i] * value[j];
      }
    }
  }
  tokens_ += base.tokens;
  ++runs_;
}

void LinearFit::Merge(const LinearFit& other) {
  ABSL_RAW_CHECK(layers_ == other.layers_ && width_ == other.width_, "fits of one shape");
  for (size_t layer = 0; layer < xx_.size(); ++layer) {
    for (size_t i = 0; i < xx_[layer].size(); ++i) xx_[layer][i] += other.xx_[layer][i];
    for (size_t i = 0; i < xy_[layer].size(); ++i) xy_[layer][i] += other.xy_[layer][i];
  }
  tokens_ += other.tokens_;
  runs_ += other.runs_;
}

LinearMap LinearFit::Solve() const {
  LinearMap map;
  map.layers_ = layers_;
  map.width_ = width_;
  map.features_ = features_;
  const int64_t outputs = 2 * width_;
  const int64_t rank =
      options_.rank > 0 && options_.rank < std::min(outputs, features_) ? options_.rank : 0;
  map.rank_ = rank;
  for (int64_t layer = 1; layer < layers_; ++layer) {
    const std::vector<double>& xx = xx_[layer - 1];
    std::vector<double> regular = xx;
    double trace = 0;
    for (int64_t i = 0; i < features_; ++i) trace += xx[i * features_ + i];
    const double ridge = options_.ridge * trace / static_cast<double>(features_) + 1e-9;
    for (int64_t i = 0; i < features_; ++i) regular[i * features_ + i] += ridge;
    Cholesky(regular, features_);
    std::vector<double> w = xy_[layer - 1];
    CholeskySolve(regular, features_, outputs, w);
    if (rank == 0) {
      map.in_.push_back(Narrow(w));
      continue;
    }
    const std::vector<double> q = Leading(w, xx, features_, outputs, rank);
    map.in_.push_back(Narrow(Times(w, Transposed(q, rank, outputs), features_, outputs, rank)));
    map.out_.push_back(Narrow(q));
  }
  return map;
}

int64_t LinearFit::bytes() const {
  return static_cast<int64_t>(xx_.size()) * features_ * (features_ + 2 * width_) * 8;
}

KvRows LinearMap::Predict(const KvRows& base) const {
  ABSL_RAW_CHECK(base.layers == layers_ && base.width == width_, "rows of the shape learnt");
  KvRows offset = KvRows::Of(layers_, base.tokens, width_);
  const int64_t outputs = 2 * width_;
  std::vector<double> x(features_);
  std::vector<float> inner, y(outputs);
  // y = x * w, row by row of w
  const auto multiply = [](const auto& from, const std::vector<float>& w, std::vector<float>& to) {
    std::fill(to.begin(), to.end(), 0.0f);
    for (size_t i = 0; i < from.size(); ++i) {
      const auto factor = static_cast<float>(from[i]);
      const float* row = w.data() + i * to.size();
      for (size_t j = 0; j < to.size(); ++j) to[j] += factor * row[j];
    }
  };
  for (int64_t layer = 1; layer < layers_; ++layer) {
    for (int64_t token = 0; token < base.tokens; ++token) {
      Features(base, layer, token, x);
      if (rank_ == 0) {
        multiply(x, in_[layer - 1], y);
      } else {
        inner.resize(rank_);
        multiply(x, in_[layer - 1], inner);
        multiply(inner, out_[layer - 1], y);
      }
      std::copy(y.begin(), y.begin() + width_, offset.Key(layer, token).begin());
      std::copy(y.begin() + width_, y.end(), offset.Value(layer, token).begin());
    }
  }
  return offset;
}

}  // namespace kedge::offset
