#include "gpu/profile/archive_fit.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>

namespace kedge::profile {
namespace {

constexpr int64_t kHeads = 2;
constexpr int64_t kSize = 8;
constexpr int64_t kWidth = kHeads * kSize;
constexpr int64_t kTokens = 3000;

// Values of a part come from three hidden numbers a token and a little noise; the metric of the
// first head is `weight` times that of the second.
KvSamples Samples(double weight) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  KvSamples samples;
  samples.layers = 1;
  samples.kv_heads = kHeads;
  samples.head_size = kSize;
  samples.tokens = kTokens;
  for (int part = 0; part < 2; ++part) {
    PartSamples& p = samples.parts.emplace_back();
    std::vector<float> mixing(3 * kWidth);
    for (float& v : mixing) v = normal(random);
    for (int64_t t = 0; t < kTokens; ++t) {
      const float hidden[3] = {4 * normal(random), 2 * normal(random), normal(random)};
      for (int64_t i = 0; i < kWidth; ++i) {
        float v = 0.5f + 0.01f * normal(random);
        for (int h = 0; h < 3; ++h) v += hidden[h] * mixing[h * kWidth + i];
        p.rows.push_back(v);
      }
    }
    p.metric.resize(kHeads * kSize * kSize);
    for (int64_t h = 0; h < kHeads; ++h) {
      for (int64_t i = 0; i < kSize; ++i)
        p.metric[(h * kSize + i) * kSize + i] = h == 0 ? weight : 1.0;
    }
  }
  return samples;
}

double Sum(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

TEST(ArchiveFit, BasisFindsWhatHeadsShare) {
  const KvSamples samples = Samples(1.0);
  const codec::ArchiveBases bases = FitBases(samples);
  const ProjectedSamples projected = Project(samples, bases);
  for (size_t part = 0; part < 2; ++part) {
    double first = 0;
    for (int64_t i = 0; i < 3 * kTokens; ++i)
      first += projected.parts[part][i] * projected.parts[part][i];
    EXPECT_GT(first / kTokens, 0.999 * projected.Energy(part));
    EXPECT_NEAR(bases.parts[part].mean[3], 0.5f, 0.5f);
  }
}

TEST(ArchiveFit, SynthesisUndoesAnalysis) {
  const KvSamples samples = Samples(50.0);
  const codec::ArchiveBases bases = FitBases(samples);
  const ProjectedSamples projected = Project(samples, bases);
  const codec::ArchiveBasis& basis = bases.parts[0];
  for (int64_t t = 0; t < 20; ++t) {
    for (int64_t i = 0; i < kWidth; ++i) {
      float v = basis.mean[i];
      for (int64_t c = 0; c < basis.rank(); ++c)
        v += projected.parts[0][c * kTokens + t] * basis.synthesis[c * kWidth + i];
      EXPECT_NEAR(v, samples.parts[0].rows[t * kWidth + i], 0.05) << t << " " << i;
    }
  }
}

TEST(ArchiveFit, MoreBitsLessError) {
  const KvSamples samples = Samples(1.0);
  const codec::ArchiveBases bases = FitBases(samples);
  const ProjectedSamples projected = Project(samples, bases);
  double last = projected.Energy(0) + projected.Energy(1);
  for (const double bits : {0.25, 0.5, 1.0, 2.0}) {
    const FittedPoint fitted = FitPoint(bases, projected, {.bits_per_value = bits});
    EXPECT_LE(Sum(fitted.bits), bits * 2 * kWidth + 1e-9) << bits;
    EXPECT_LT(Sum(fitted.error), last) << bits;
    last = Sum(fitted.error);
    EXPECT_TRUE(codec::ArchivePoint::Parse(fitted.point.Encode()).ok());
  }
}

// 0.5 bits a value are 8 a token and part: the three hidden numbers, and nothing else.
TEST(ArchiveFit, LeavesOutWhatIsNoise) {
  const KvSamples samples = Samples(1.0);
  const codec::ArchiveBases bases = FitBases(samples);
  const FittedPoint fitted = FitPoint(bases, Project(samples, bases), {.bits_per_value = 0.5});
  for (const auto& kept : fitted.point.parts) {
    EXPECT_GE(kept.size(), 2u);
    EXPECT_LE(kept.size(), 3u);
  }
}

TEST(ArchiveFit, BitsGoWhereErrorsCost) {
  const KvSamples samples = Samples(1.0);
  const codec::ArchiveBases bases = FitBases(samples);
  const ProjectedSamples projected = Project(samples, bases);
  const FittedPoint fitted = FitPoint(
      bases, projected, {.bits_per_value = 0.5, .classes = 8, .sensitivity = {100.0, 1.0}});
  EXPECT_GT(fitted.bits[0], fitted.bits[1] + 2);
}

TEST(ArchiveFit, ProbeTakesItsShareOfOnePart) {
  const KvSamples samples = Samples(1.0);
  const codec::ArchiveBases bases = FitBases(samples);
  const ProjectedSamples projected = Project(samples, bases);
  double error = 0;
  const codec::ArchivePoint point = ProbePoint(bases, projected, 1, 0.05, &error);
  EXPECT_TRUE(point.parts[0].empty());
  EXPECT_EQ(point.parts[1].size(), size_t{kWidth});
  EXPECT_NEAR(error / projected.Energy(1), 0.05, 0.02);
}

}  // namespace
}  // namespace kedge::profile
