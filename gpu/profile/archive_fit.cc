#include "gpu/profile/archive_fit.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include "gpu/profile/symmetric_eigen.h"

namespace kedge::profile {
namespace {

using codec::ArchiveBases;
using codec::ArchiveBasis;
using codec::ArchiveClass;
using codec::ArchiveComponent;
using codec::ArchivePoint;
using codec::kArchiveCodeMax;
using codec::kArchiveEscape;
using codec::kArchiveSymbols;

constexpr double kMetricFloor = 0.02;  // share of the unit matrix in a metric
constexpr int64_t kMenuTokens = 6000;  // that a step is tried on
constexpr int kUnitsPerBit = 16;       // of dynamic programming
constexpr int kBitsMax = 7;            // of one component, on average
// Steps of the menu: the component's deviation times 2^(k/2).
constexpr int kCoarsest = 3;
constexpr int kFinest = -10;
constexpr int kMenuSize = kCoarsest - kFinest + 1;

// What the codes of one component look like at one step.
struct CodeStatistics {
  std::array<double, kArchiveSymbols> counts{};
  std::array<double, kArchiveCodeMax + 1> sums{};  // of |y| / step, by |code|
  double squares = 0;                              // of y / step
  double escape_error = 0;

  void Add(float steps, float rounding) {
    const float size = std::abs(steps);
    const auto code = static_cast<int>(std::floor(std::min(size, 32000.0f) + rounding));
    squares += size * size;
    if (code > kArchiveCodeMax) {
      ++counts[kArchiveEscape];
      escape_error += (size - code) * (size - code) - size * size;
      return;
    }
    ++counts[kArchiveCodeMax + (steps < 0 ? -code : code)];
    sums[code] += size;
  }
  double count(int size) const {
    return size == 0 ? counts[kArchiveCodeMax]
                     : counts[kArchiveCodeMax - size] + counts[kArchiveCodeMax + size];
  }
  // Summed over the samples, in squared steps, when codes are replaced by their means.
  double Error() const {
    double error = squares + escape_error;
    for (int size = 1; size <= kArchiveCodeMax; ++size) {
      if (count(size) > 0) error -= sums[size] * sums[size] / count(size);
    }
    return std::max(error, 0.0);
  }
  double Bits() const {
    const double total = std::accumulate(counts.begin(), counts.end(), 0.0);
    double bits = counts[kArchiveEscape] * 16;
    for (double c : counts) {
      if (c > 0) bits -= c * std::log2(c / total);
    }
    return bits;
  }
};

struct Choice {
  int units = 0;
  double error = 0;  // mean squared, a token
  float step = 0;    // 0: left out
};
using Menu = std::array<Choice, kMenuSize + 1>;

std::span<const float> ComponentOf(const ProjectedSamples& samples, size_t part, int64_t c) {
  return std::span<const float>(samples.parts[part]).subspan(c * samples.tokens, samples.tokens);
}

Menu MenuOf(std::span<const float> y, float rounding) {
  double energy = 0;
  for (float v : y) energy += double{v} * v;
  energy /= static_cast<double>(y.size());
  Menu menu;
  menu[0] = {0, energy, 0.0f};
  const size_t stride = y.size() / kMenuTokens + 1;
  for (int i = 0; i < kMenuSize; ++i) {
    const auto step =
        static_cast<float>(std::max(std::sqrt(energy) * std::exp2((kCoarsest - i) / 2.0), 1e-12));
    CodeStatistics statistics;
    double tokens = 0;
    for (size_t t = 0; t < y.size(); t += stride, ++tokens) statistics.Add(y[t] / step, rounding);
    menu[i + 1] = {static_cast<int>(std::lround(statistics.Bits() / tokens * kUnitsPerBit)),
                   statistics.Error() / tokens * step * step, step};
  }
  return menu;
}

// Least error for every number of units up to `budget`; with `choices`, what was taken of each
// menu: [menus][budget + 1].
std::vector<double> LeastErrors(const std::vector<Menu>& menus, int64_t budget,
                                std::vector<uint8_t>* choices) {
  constexpr double kNever = std::numeric_limits<double>::infinity();
  std::vector<double> least(budget + 1, 0.0);
  std::vector<double> next(budget + 1);
  if (choices != nullptr) choices->assign(menus.size() * (budget + 1), 0);
  for (size_t m = 0; m < menus.size(); ++m) {
    std::fill(next.begin(), next.end(), kNever);
    for (size_t i = 0; i < menus[m].size(); ++i) {
      const Choice& choice = menus[m][i];
      for (int64_t r = choice.units; r <= budget; ++r) {
        const double error = least[r - choice.units] + choice.error;
        if (error >= next[r]) continue;
        next[r] = error;
        if (choices != nullptr) (*choices)[m * (budget + 1) + r] = static_cast<uint8_t>(i);
      }
    }
    least.swap(next);
  }
  return least;
}

// What is taken of each menu for at most `budget` units.
std::vector<Choice> BestChoices(const std::vector<Menu>& menus, int64_t budget) {
  std::vector<uint8_t> choices;
  LeastErrors(menus, budget, &choices);
  std::vector<Choice> best(menus.size());
  int64_t left = budget;
  for (size_t m = menus.size(); m-- > 0;) {
    best[m] = menus[m][choices[m * (budget + 1) + left]];
    left -= best[m].units;
  }
  return best;
}

// How many units each part gets: the total is at most `units`, and the weighted error near its
// least. `errors` are LeastErrors of each part.
std::vector<int64_t> ShareUnits(const std::vector<std::vector<double>>& errors,
                                const std::vector<double>& weights, double units) {
  const auto shares = [&](double price) {
    std::vector<int64_t> result;
    for (size_t p = 0; p < errors.size(); ++p) {
      int64_t best = 0;
      double least = std::numeric_limits<double>::infinity();
      for (size_t r = 0; r < errors[p].size(); ++r) {
        const double cost = weights[p] * errors[p][r] + price * static_cast<double>(r);
        if (cost >= least) continue;
        least = cost;
        best = static_cast<int64_t>(r);
      }
      result.push_back(best);
    }
    return result;
  };
  double low = -60;  // of log2(price): too cheap
  double high = 60;
  for (int i = 0; i < 50; ++i) {
    const double middle = (low + high) / 2;
    const std::vector<int64_t> result = shares(std::exp2(middle));
    const double total = std::accumulate(result.begin(), result.end(), 0.0);
    (total > units ? low : high) = middle;
  }
  return shares(std::exp2(high));
}

struct Kept {
  size_t part = 0;
  ArchiveComponent component;
  CodeStatistics statistics;
};

std::vector<uint64_t> Counts(const CodeStatistics& statistics) {
  std::vector<uint64_t> counts(kArchiveSymbols);
  for (int i = 0; i < kArchiveSymbols; ++i)
    counts[i] = static_cast<uint64_t>(std::lround(statistics.counts[i] * 16));
  return counts;
}

void AddTo(const CodeStatistics& from, CodeStatistics& to) {
  for (int i = 0; i < kArchiveSymbols; ++i) to.counts[i] += from.counts[i];
  for (int i = 0; i <= kArchiveCodeMax; ++i) to.sums[i] += from.sums[i];
}

ArchiveClass ClassOf(const CodeStatistics& statistics) {
  ArchiveClass c;
  const std::vector<uint16_t> shares = codec::RansTable::SharesOf(Counts(statistics));
  std::copy(shares.begin(), shares.end(), c.shares.begin());
  for (int size = 1; size <= kArchiveCodeMax; ++size) {
    const double seen = statistics.count(size);
    const auto point = static_cast<float>(seen >= 8 ? statistics.sums[size] / seen : size);
    c.points[kArchiveCodeMax + size] = point;
    c.points[kArchiveCodeMax - size] = -point;
  }
  return c;
}

// Sorts into at most `wanted` classes by which table codes a component shortest.
std::vector<ArchiveClass> MakeClasses(std::vector<Kept>& kept, int wanted) {
  const size_t classes = std::max<size_t>(std::min<size_t>(wanted, kept.size()), 1);
  std::vector<size_t> order(kept.size());
  std::iota(order.begin(), order.end(), 0);
  std::vector<double> bits(kept.size());
  for (size_t i = 0; i < kept.size(); ++i) bits[i] = kept[i].statistics.Bits();
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return bits[a] < bits[b]; });
  for (size_t i = 0; i < order.size(); ++i)
    kept[order[i]].component.of_class = static_cast<uint8_t>(i * classes / order.size());
  std::vector<ArchiveClass> result;
  for (int round = 0; round < 12; ++round) {
    std::vector<CodeStatistics> pooled(classes);
    for (const Kept& k : kept) AddTo(k.statistics, pooled[k.component.of_class]);
    result.clear();
    std::vector<std::array<double, kArchiveSymbols>> costs(classes);
    for (size_t c = 0; c < classes; ++c) {
      result.push_back(ClassOf(pooled[c]));
      for (int i = 0; i < kArchiveSymbols; ++i)
        costs[c][i] = codec::kRansBits - std::log2(static_cast<double>(result[c].shares[i]));
    }
    for (Kept& k : kept) {
      double least = std::numeric_limits<double>::infinity();
      for (size_t c = 0; c < classes; ++c) {
        double cost = 0;
        for (int i = 0; i < kArchiveSymbols; ++i) cost += k.statistics.counts[i] * costs[c][i];
        if (cost >= least) continue;
        least = cost;
        k.component.of_class = static_cast<uint8_t>(c);
      }
    }
  }
  // Tables and points of the last assignment.
  std::vector<CodeStatistics> pooled(classes);
  for (const Kept& k : kept) AddTo(k.statistics, pooled[k.component.of_class]);
  for (size_t c = 0; c < classes; ++c) result[c] = ClassOf(pooled[c]);
  return result;
}

// M^1/2 and M^-1/2 of one KV head's metric.
void Roots(const double* metric, int64_t n, std::vector<double>& root, std::vector<double>& back) {
  std::vector<double> m(metric, metric + n * n);
  double trace = 0;
  for (int64_t i = 0; i < n; ++i) trace += m[i * n + i];
  const double scale = trace > 0 ? (1 - kMetricFloor) * static_cast<double>(n) / trace : 0.0;
  for (double& v : m) v *= scale;
  for (int64_t i = 0; i < n; ++i) m[i * n + i] += scale > 0 ? kMetricFloor : 1.0;
  const Eigen eigen = SymmetricEigen(std::move(m), n);
  root.assign(n * n, 0.0);
  back.assign(n * n, 0.0);
  for (int64_t e = 0; e < n; ++e) {
    const double* v = eigen.vectors.data() + e * n;
    const double size = std::sqrt(std::max(eigen.values[e], 1e-6));
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        root[i * n + j] += v[i] * v[j] * size;
        back[i * n + j] += v[i] * v[j] / size;
      }
    }
  }
}

// out = block-diagonal(blocks) in, both of [width]; blocks are symmetric.
void Apply(const std::vector<std::vector<double>>& blocks, int64_t n, const double* in,
           double* out) {
  for (size_t h = 0; h < blocks.size(); ++h) {
    for (int64_t i = 0; i < n; ++i) {
      const double* row = blocks[h].data() + i * n;
      const int64_t at = static_cast<int64_t>(h) * n;
      out[at + i] = std::inner_product(row, row + n, in + at, 0.0);
    }
  }
}

ArchiveBasis FitBasis(const PartSamples& part, int64_t heads, int64_t head_size) {
  const int64_t width = heads * head_size;
  const auto tokens = static_cast<int64_t>(part.rows.size()) / width;
  std::vector<std::vector<double>> root(heads);
  std::vector<std::vector<double>> back(heads);
  for (int64_t h = 0; h < heads; ++h)
    Roots(part.metric.data() + h * head_size * head_size, head_size, root[h], back[h]);
  std::vector<double> mean(width);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t i = 0; i < width; ++i) mean[i] += part.rows[t * width + i];
  }
  for (double& m : mean) m /= static_cast<double>(std::max<int64_t>(tokens, 1));
  std::vector<double> covariance(width * width);
  std::vector<double> centred(width);
  std::vector<double> weighted(width);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t i = 0; i < width; ++i) centred[i] = part.rows[t * width + i] - mean[i];
    Apply(root, head_size, centred.data(), weighted.data());
    for (int64_t i = 0; i < width; ++i) {
      for (int64_t j = 0; j <= i; ++j) covariance[i * width + j] += weighted[i] * weighted[j];
    }
  }
  const Eigen eigen = SymmetricEigen(std::move(covariance), width);
  ArchiveBasis basis{.mean = std::vector<float>(mean.begin(), mean.end()),
                     .analysis = std::vector<float>(width * width),
                     .synthesis = std::vector<float>(width * width)};
  for (int64_t c = 0; c < width; ++c) {
    const double* v = eigen.vectors.data() + c * width;
    Apply(root, head_size, v, centred.data());
    Apply(back, head_size, v, weighted.data());
    std::copy(centred.begin(), centred.end(), basis.analysis.begin() + c * width);
    std::copy(weighted.begin(), weighted.end(), basis.synthesis.begin() + c * width);
  }
  return basis;
}

}  // namespace

double ProjectedSamples::Energy(size_t part) const {
  double energy = 0;
  for (float v : parts[part]) energy += double{v} * v;
  return energy / static_cast<double>(std::max<int64_t>(tokens, 1));
}

ArchiveBases FitBases(const KvSamples& samples) {
  ArchiveBases bases{.layers = static_cast<uint16_t>(samples.layers),
                     .kv_heads = static_cast<uint16_t>(samples.kv_heads),
                     .head_size = static_cast<uint16_t>(samples.head_size),
                     .parts = {}};
  for (const PartSamples& part : samples.parts)
    bases.parts.push_back(FitBasis(part, samples.kv_heads, samples.head_size));
  // As the codec will read them.
  return *ArchiveBases::Parse(bases.Encode());
}

ProjectedSamples Project(const KvSamples& samples, const ArchiveBases& bases) {
  ProjectedSamples projected{.tokens = samples.tokens, .parts = {}};
  const int64_t width = samples.width();
  std::vector<float> row(width);
  for (size_t p = 0; p < bases.parts.size(); ++p) {
    const ArchiveBasis& basis = bases.parts[p];
    std::vector<float>& y = projected.parts.emplace_back(basis.rank() * samples.tokens);
    for (int64_t t = 0; t < samples.tokens; ++t) {
      for (int64_t i = 0; i < width; ++i)
        row[i] = samples.parts[p].rows[t * width + i] - basis.mean[i];
      for (int64_t c = 0; c < basis.rank(); ++c) {
        const float* analysis = basis.analysis.data() + c * width;
        y[c * samples.tokens + t] = std::inner_product(row.begin(), row.end(), analysis, 0.0f);
      }
    }
  }
  return projected;
}

FittedPoint FitPoint(const ArchiveBases& bases, const ProjectedSamples& samples,
                     const PointOptions& options) {
  const size_t parts = bases.parts.size();
  const int64_t width = int64_t{bases.kv_heads} * bases.head_size;
  const int64_t most = width * kBitsMax * kUnitsPerBit;
  std::vector<std::vector<Menu>> menus(parts);
  std::vector<std::vector<double>> errors(parts);
  std::vector<double> weights = options.sensitivity;
  if (weights.empty()) weights.assign(parts, 1.0);
  for (size_t p = 0; p < parts; ++p) {
    for (int64_t c = 0; c < bases.parts[p].rank(); ++c)
      menus[p].push_back(MenuOf(ComponentOf(samples, p, c), options.rounding));
    errors[p] = LeastErrors(menus[p], most, nullptr);
  }
  const double units = options.bits_per_value * static_cast<double>(width * kUnitsPerBit) *
                       static_cast<double>(parts);
  const std::vector<int64_t> shares = ShareUnits(errors, weights, units);

  FittedPoint fitted;
  fitted.error.resize(parts);
  fitted.bits.resize(parts);
  std::vector<Kept> kept;
  for (size_t p = 0; p < parts; ++p) {
    const std::vector<Choice> choices = BestChoices(menus[p], shares[p]);
    for (size_t c = 0; c < choices.size(); ++c) {
      fitted.error[p] += choices[c].error;
      fitted.bits[p] += static_cast<double>(choices[c].units) / kUnitsPerBit;
      if (choices[c].step == 0.0f) continue;
      Kept k{.part = p,
             .component = {.component = static_cast<uint16_t>(c), .step = choices[c].step},
             .statistics = {}};
      for (float y : ComponentOf(samples, p, static_cast<int64_t>(c)))
        k.statistics.Add(y / choices[c].step, options.rounding);
      kept.push_back(k);
    }
  }
  fitted.point.layers = bases.layers;
  fitted.point.width = static_cast<uint16_t>(width);
  fitted.point.rounding = options.rounding;
  fitted.point.classes = MakeClasses(kept, options.classes);
  fitted.point.parts.resize(parts);
  for (const Kept& k : kept) fitted.point.parts[k.part].push_back(k.component);
  return fitted;
}

ArchivePoint ProbePoint(const ArchiveBases& bases, const ProjectedSamples& samples, size_t part,
                        double share, double* error) {
  const double wanted = share * samples.Energy(part);
  ArchivePoint point{.layers = bases.layers,
                     .width = static_cast<uint16_t>(bases.kv_heads * bases.head_size),
                     .rounding = 0.5f,
                     .classes = {},
                     .parts = std::vector<std::vector<ArchiveComponent>>(bases.parts.size())};
  // One step for all components: its error grows with it.
  double low = -40;
  double high = 40;
  std::vector<Kept> kept;
  for (int i = 0; i < 24; ++i) {
    const auto step = static_cast<float>(std::exp2((low + high) / 2));
    kept.clear();
    *error = 0;
    for (int64_t c = 0; c < bases.parts[part].rank(); ++c) {
      Kept k{.part = part,
             .component = {.component = static_cast<uint16_t>(c), .step = step},
             .statistics = {}};
      const std::span<const float> y = ComponentOf(samples, part, c);
      const size_t stride = y.size() / kMenuTokens + 1;
      double tokens = 0;
      for (size_t t = 0; t < y.size(); t += stride, ++tokens)
        k.statistics.Add(y[t] / step, point.rounding);
      *error += k.statistics.Error() / tokens * step * step;
      kept.push_back(k);
    }
    (*error < wanted ? low : high) = (low + high) / 2;
  }
  point.classes = MakeClasses(kept, 16);
  for (const Kept& k : kept) point.parts[part].push_back(k.component);
  return point;
}

}  // namespace kedge::profile
