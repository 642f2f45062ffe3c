// Which anchors of a placeholder a filling may be compared with: by length and sketch (KVCOMM,
// arXiv 2510.12872, section "Anchor prediction", equation 5).
//
// A *sketch* is, per token, V of layer 1 under a random projection to 16 dimensions. The
// projection's seed is derived from the tenant's salt (MatchKeys::projection_seed), so sketches of
// two tenants cannot be compared. Token t of a filling is compared with token t of an anchor, so an
// anchor must be at least as long as the filling. A distance is the root mean square over the
// filling's tokens and dimensions, in units of the pool's own scale: pools of different models or
// layers then share thresholds.
//
// The gate (entropy, absolute bound, the pool's own error) and the mixture are decided elsewhere;
// this says which anchors exist for them, nearest first, or why there are none.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "proto/block_key.h"

namespace kedge::match {

inline constexpr uint32_t kSketchDimensions = 16;

// Signs over sqrt(16): keeps squared distances, in expectation (Achlioptas, 2003). Const; any
// thread.
class SketchProjection {
 public:
  // `width`: values of one token, KV heads times head size. Aborts on 0.
  SketchProjection(uint64_t seed, uint32_t width);
  uint32_t width() const { return width_; }
  // Aborts when `values` has another width.
  std::array<float, kSketchDimensions> Project(std::span<const float> values) const;

 private:
  uint32_t width_;
  std::vector<float> signs_;  // [16][width]
};

struct AnchorSketch {
  BlockKey key;                   // ties go to the smaller one
  std::span<const float> values;  // [tokens][16]
};

struct AnchorDistance {
  uint32_t anchor = 0;  // index
  float distance = 0;   // in units of the pool's scale
};

enum class PlaceholderVerdict : uint8_t {
  kMatched,
  kEmptyFilling,  // no tokens
  kBadSketch,     // the filling's: no whole tokens, or a value that is not finite
  kNoAnchors,     // the pool has none that can be read
  kTooLong,       // longer than every anchor
};
const char* PlaceholderVerdictName(PlaceholderVerdict verdict);

struct PlaceholderMatch {
  PlaceholderVerdict verdict = PlaceholderVerdict::kNoAnchors;
  std::vector<AnchorDistance> anchors;  // nearest first; empty unless kMatched
};

// Root mean square distance between the pool's anchors, each pair over its common tokens; 1 where
// that says nothing (fewer than two anchors, or all equal).
float PoolScale(std::span<const AnchorSketch> anchors);

// Anchors with a malformed sketch are left out. `scale` as of PoolScale; one that is not positive
// and finite counts as 1.
PlaceholderMatch MatchPlaceholder(std::span<const float> filling,
                                  std::span<const AnchorSketch> anchors, float scale);

}  // namespace kedge::match
