#include "gpu/codec/prefixkv.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "absl/base/internal/raw_logging.h"
#include "absl/strings/str_cat.h"
#include "gpu/codec/token_scores.h"
#include "proto/wire.h"

namespace kedge::codec {
namespace {

constexpr uint16_t kVersion = 1;
constexpr uint64_t kHeaderBytes = 12;
constexpr uint16_t kPointsMax = 4097;
constexpr double kCodeMax = 4294967295.0;

double Mean(std::span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

absl::Status Bad(const char* field, uint64_t value, const char* why) {
  return absl::InvalidArgumentError(
      absl::StrCat("profile section prefixkv: ", field, ": ", value, " ", why));
}

// Hands `units` more (or takes, when negative) one by one to the layers that are furthest from
// what they should have.
void Settle(std::span<const double> ideal, int64_t smallest, int64_t largest, int64_t units,
            std::vector<int64_t>& rows) {
  const bool give = units > 0;
  for (int64_t left = std::abs(units); left > 0; --left) {
    int64_t best = -1;
    double best_gap = 0.0;
    for (size_t layer = 0; layer < rows.size(); ++layer) {
      if (give ? rows[layer] >= largest : rows[layer] <= smallest) continue;
      const double gap = (ideal[layer] - static_cast<double>(rows[layer])) * (give ? 1.0 : -1.0);
      if (best >= 0 && gap <= best_gap) continue;
      best = static_cast<int64_t>(layer);
      best_gap = gap;
    }
    rows[best] += give ? 1 : -1;
  }
}

}  // namespace

PriorityCurve CurveOf(std::span<const double> importance) {
  std::vector<double> sorted(importance.begin(), importance.end());
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  const double sum = std::accumulate(sorted.begin(), sorted.end(), 0.0);
  const auto tokens = static_cast<double>(sorted.size());
  PriorityCurve curve = {0.0};
  double held = 0.0;
  for (const double value : sorted) {
    held += sum > 0.0 ? value / sum : 1.0 / tokens;
    curve.push_back(std::min(held, 1.0));
  }
  curve.back() = 1.0;
  return curve;
}

PriorityCurve Resampled(const PriorityCurve& curve, int64_t points) {
  PriorityCurve resampled(points);
  const auto last = static_cast<int64_t>(curve.size()) - 1;
  for (int64_t i = 0; i < points; ++i) {
    const double at = static_cast<double>(i * last) / static_cast<double>(points - 1);
    const int64_t below = std::min(static_cast<int64_t>(at), last - 1);
    const double part = at - static_cast<double>(below);
    resampled[i] = curve[below] * (1.0 - part) + curve[below + 1] * part;
  }
  return resampled;
}

double ShareFor(const PriorityCurve& curve, double priority) {
  const auto steps = static_cast<double>(curve.size() - 1);
  const auto above = std::lower_bound(curve.begin(), curve.end(), priority);
  if (above == curve.begin()) return 0.0;
  if (above == curve.end()) return 1.0;
  const auto below = static_cast<double>(above - curve.begin() - 1);
  return (below + (priority - above[-1]) / (above[0] - above[-1])) / steps;
}

std::vector<double> EqualMassShares(std::span<const PriorityCurve> curves, double budget) {
  std::vector<double> shares(curves.size());
  const auto set = [&](double priority) {
    for (size_t layer = 0; layer < curves.size(); ++layer)
      shares[layer] = ShareFor(curves[layer], priority);
    return Mean(shares);
  };
  double low = 0.0;
  double high = 1.0;
  for (int64_t i = 0; i < kBisections; ++i) {
    const double middle = (low + high) / 2.0;
    (set(middle) < budget ? low : high) = middle;
  }
  const double mean = set(high);
  // What is left: the last step of the bisection, or, where all importance is held by fewer tokens
  // than the budget, tokens that matter in no layer.
  for (double& share : shares) {
    if (mean < budget) {
      share += (1.0 - share) * (budget - mean) / (1.0 - mean);
    } else if (mean > 0.0) {
      share *= budget / mean;
    }
  }
  return shares;
}

absl::StatusOr<std::vector<int64_t>> BudgetRows(std::span<const double> shares, double budget,
                                                int64_t tokens, int64_t group, int64_t least) {
  least = std::max(least, kProtectedFirst + kProtectedLast);
  const int64_t smallest = (least + group - 1) / group;
  const int64_t largest = tokens / group;
  if (smallest > largest) {
    return absl::InvalidArgumentError(absl::StrCat("prefixkv: ", least,
                                                   " protected tokens in groups of ", group,
                                                   " do not fit in ", tokens, " tokens"));
  }
  const auto layers = static_cast<int64_t>(shares.size());
  const double all = static_cast<double>(layers * tokens) / static_cast<double>(group);
  const int64_t total =
      std::clamp<int64_t>(std::llround(budget * all), layers * smallest, layers * largest);
  std::vector<double> ideal(layers);
  std::vector<int64_t> rows(layers);
  for (int64_t layer = 0; layer < layers; ++layer) {
    ideal[layer] = shares[layer] * static_cast<double>(tokens) / static_cast<double>(group);
    rows[layer] = std::clamp(static_cast<int64_t>(ideal[layer]), smallest, largest);
  }
  const int64_t sum = std::accumulate(rows.begin(), rows.end(), int64_t{0});
  Settle(ideal, smallest, largest, total - sum, rows);
  for (int64_t& row : rows) row *= group;
  return rows;
}

std::vector<int32_t> KeptPositions(std::span<const double> importance, int64_t rows) {
  const auto tokens = static_cast<int64_t>(importance.size());
  const auto is_protected = [&](int64_t position) {
    return position < kProtectedFirst || position >= tokens - kProtectedLast;
  };
  std::vector<int32_t> kept;
  for (int64_t t = 0; t < tokens; ++t)
    if (is_protected(t)) kept.push_back(static_cast<int32_t>(t));
  ABSL_RAW_CHECK(rows >= static_cast<int64_t>(kept.size()) && rows <= tokens,
                 "KeptPositions: no room for the protected tokens");
  for (const int32_t position : Ranked(importance)) {
    if (static_cast<int64_t>(kept.size()) == rows) break;
    if (!is_protected(position)) kept.push_back(position);
  }
  std::sort(kept.begin(), kept.end());
  return kept;
}

PrefixKvBuilder::PrefixKvBuilder(int64_t layers) {
  sum_.curves.assign(layers, PriorityCurve(kProfilePoints));
}

void PrefixKvBuilder::Add(std::span<const PriorityCurve> curves) {
  ABSL_RAW_CHECK(curves.size() == sum_.curves.size(), "a sample has a curve for each layer");
  for (size_t layer = 0; layer < curves.size(); ++layer) {
    const PriorityCurve curve = Resampled(curves[layer], kProfilePoints);
    for (int64_t i = 0; i < kProfilePoints; ++i) sum_.curves[layer][i] += curve[i];
  }
  ++sum_.samples;
}

absl::StatusOr<PrefixKvProfile> PrefixKvBuilder::Build() const {
  if (sum_.samples == 0) return absl::FailedPreconditionError("prefixkv: no samples");
  PrefixKvProfile profile = sum_;
  for (PriorityCurve& curve : profile.curves)
    for (double& value : curve) value /= static_cast<double>(sum_.samples);
  return profile;
}

std::vector<uint8_t> EncodePrefixKv(const PrefixKvProfile& profile) {
  std::vector<uint8_t> bytes;
  WireWriter writer(bytes);
  writer.U16(kVersion);
  writer.U16(static_cast<uint16_t>(profile.curves.size()));
  writer.U16(static_cast<uint16_t>(profile.curves.empty() ? 0 : profile.curves[0].size()));
  writer.U16(0);
  writer.U32(profile.samples);
  for (const PriorityCurve& curve : profile.curves) {
    for (const double value : curve)
      writer.U32(static_cast<uint32_t>(std::llround(std::clamp(value, 0.0, 1.0) * kCodeMax)));
  }
  return bytes;
}

absl::StatusOr<PrefixKvProfile> DecodePrefixKv(std::span<const uint8_t> bytes) {
  if (bytes.size() < kHeaderBytes) return Bad("bytes", bytes.size(), "are fewer than a header's");
  const uint8_t* from = bytes.data();
  const auto version = LoadLe<uint16_t>(from);
  if (version != kVersion) {
    return absl::UnimplementedError(absl::StrCat("profile section prefixkv: version: ", version,
                                                 ", this program reads ", kVersion));
  }
  const auto layers = LoadLe<uint16_t>(from + 2);
  const auto points = LoadLe<uint16_t>(from + 4);
  if (layers == 0) return Bad("layers", 0, "is not positive");
  if (points < 2 || points > kPointsMax) return Bad("points", points, "is not in [2, 4097]");
  if (LoadLe<uint16_t>(from + 6) != 0)
    return Bad("reserved bytes", LoadLe<uint16_t>(from + 6), "are not 0");
  PrefixKvProfile profile{.samples = LoadLe<uint32_t>(from + 8)};
  if (profile.samples == 0) return Bad("samples", 0, "is not positive");
  if (bytes.size() != kHeaderBytes + uint64_t{4} * layers * points)
    return Bad("bytes", bytes.size(), "are not what layers and points make");
  from += kHeaderBytes;
  for (uint32_t layer = 0; layer < layers; ++layer) {
    PriorityCurve curve(points);
    uint32_t last = 0;
    for (uint32_t i = 0; i < points; ++i, from += 4) {
      const auto code = LoadLe<uint32_t>(from);
      if (code < last || (i == 0 && code != 0) || (i == points - 1u && code != UINT32_MAX))
        return Bad("curve point", uint64_t{layer} * points + i, "falls, or is no end of a curve");
      last = code;
      curve[i] = code / kCodeMax;
    }
    profile.curves.push_back(std::move(curve));
  }
  return profile;
}

}  // namespace kedge::codec
