#include "gpu/offset/kv_rows.h"

#include <algorithm>
#include <cmath>

#include "absl/base/internal/raw_logging.h"

namespace kedge::offset {

KvRows KvRows::Of(int64_t layers, int64_t tokens, int64_t width) {
  KvRows rows{.layers = layers, .tokens = tokens, .width = width};
  rows.keys.resize(layers * tokens * width);
  rows.values.resize(rows.keys.size());
  return rows;
}

KvRows OffsetOf(const KvRows& real, const KvRows& base) {
  ABSL_RAW_CHECK(real.SameShape(base), "an offset is of rows of one shape");
  KvRows offset = KvRows::Of(real.layers, real.tokens, real.width);
  for (size_t i = real.tokens * real.width; i < real.keys.size(); ++i) {
    offset.keys[i] = real.keys[i] - base.keys[i];
    offset.values[i] = real.values[i] - base.values[i];
  }
  return offset;
}

void AddOffset(const KvRows& offset, KvRows& base) {
  ABSL_RAW_CHECK(offset.SameShape(base), "an offset is added to rows of its shape");
  for (size_t i = base.tokens * base.width; i < base.keys.size(); ++i) {
    base.keys[i] += offset.keys[i];
    base.values[i] += offset.values[i];
  }
}

double OffsetError::TokenShare(double quantile) const {
  if (by_token.empty()) return 0;
  std::vector<float> sorted = by_token;
  const auto at = static_cast<size_t>(quantile * static_cast<double>(sorted.size() - 1));
  std::nth_element(sorted.begin(), sorted.begin() + static_cast<ptrdiff_t>(at), sorted.end());
  return sorted[at];
}

void OffsetError::Add(const OffsetError& other) {
  left += other.left;
  offsets += other.offsets;
  tokens += other.tokens;
  by_token.insert(by_token.end(), other.by_token.begin(), other.by_token.end());
}

OffsetError ErrorOf(const KvRows& predicted, const KvRows& real) {
  ABSL_RAW_CHECK(predicted.SameShape(real), "errors are of rows of one shape");
  OffsetError error{.tokens = real.tokens};
  std::vector<double> by_token(real.tokens);
  // Each layer and component counts once, in units of its own offset.
  const auto component = [&](const std::vector<float>& p, const std::vector<float>& r,
                             int64_t layer) {
    std::vector<double> left(real.tokens);
    double all = 0;
    for (int64_t token = 0; token < real.tokens; ++token) {
      const int64_t row = (layer * real.tokens + token) * real.width;
      for (int64_t i = row; i < row + real.width; ++i) {
        const double miss = double{r[i]} - p[i];
        left[token] += miss * miss;
        all += double{r[i]} * r[i];
      }
    }
    if (all <= 0) return;
    error.offsets += static_cast<double>(real.tokens);
    for (int64_t token = 0; token < real.tokens; ++token) {
      const double share = left[token] * static_cast<double>(real.tokens) / all;
      error.left += share;
      by_token[token] += share / static_cast<double>(2 * (real.layers - 1));
    }
  };
  for (int64_t layer = 1; layer < real.layers; ++layer) {
    component(predicted.keys, real.keys, layer);
    component(predicted.values, real.values, layer);
  }
  error.by_token.assign(by_token.begin(), by_token.end());
  return error;
}

}  // namespace kedge::offset
