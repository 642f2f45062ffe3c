// Computes the archive's bases and operating points from samples (gpu/codec/archive.h).
//
// Basis of a part: M is its metric (kv_samples.h), scaled to a mean of 1 on the diagonal and mixed
// with a little of the unit matrix; principal components of M^1/2 (x - mean), all heads together.
// A unit of squared error in that space costs the same in every direction of the part.
//
// Bits: for each component and each step of a menu (and for leaving it out) rate and error are
// measured on the samples: the entropy of the codes, the error from the codes' means. Inside a part
// dynamic programming finds the least error for every number of bits; between parts the bits go
// where the next one takes away most, errors weighted by the part's *sensitivity*, which is what a
// unit of its error was found to cost in the model's answers.
//
// Classes: components' codes are sorted into a few classes by which table codes them shortest.
#pragma once

#include <cstdint>
#include <vector>

#include "gpu/codec/archive.h"
#include "gpu/profile/kv_samples.h"

namespace kedge::profile {

// The sample rows of each part in its basis: [rank][tokens].
struct ProjectedSamples {
  int64_t tokens = 0;
  std::vector<std::vector<float>> parts;  // [layers][k, v]

  // Mean squared distance from 0, summed over components: the error of leaving all out.
  double Energy(size_t part) const;
};

codec::ArchiveBases FitBases(const KvSamples& samples);
ProjectedSamples Project(const KvSamples& samples, const codec::ArchiveBases& bases);

struct PointOptions {
  double bits_per_value = 1.0;  // of codes, over all values; headers and raw tokens come on top
  float rounding = 0.4f;
  int classes = 32;
  // [layers][k, v]; empty: all alike.
  std::vector<double> sensitivity;
};

struct FittedPoint {
  codec::ArchivePoint point;
  std::vector<double> error;  // of each part, mean squared, in its basis
  std::vector<double> bits;   // of each part, a token
};

FittedPoint FitPoint(const codec::ArchiveBases& bases, const ProjectedSamples& samples,
                     const PointOptions& options);

// The part alone is quantized to about `share` of its energy; of the others nothing is kept. For
// measuring sensitivities. `error` gives what it costs in the part's own measure.
codec::ArchivePoint ProbePoint(const codec::ArchiveBases& bases, const ProjectedSamples& samples,
                               size_t part, double share, double* error);

}  // namespace kedge::profile
