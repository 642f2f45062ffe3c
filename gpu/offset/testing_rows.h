// Rows of reproducible numbers, for tests.
#pragma once

#include <random>

#include "gpu/offset/anchor.h"

namespace kedge::offset {

inline KvRows RandomRows(int64_t layers, int64_t tokens, int64_t width, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  KvRows rows = KvRows::Of(layers, tokens, width);
  for (float& value : rows.keys) value = normal(random);
  for (float& value : rows.values) value = normal(random);
  return rows;
}

// An offset: nothing in layer 0.
inline KvRows RandomOffset(int64_t layers, int64_t tokens, int64_t width, uint32_t seed) {
  return OffsetOf(RandomRows(layers, tokens, width, seed), KvRows::Of(layers, tokens, width));
}

inline Anchor RandomAnchor(int64_t tokens, int64_t prefix_tokens, uint32_t seed) {
  Anchor anchor{.prefix_digest = 7};
  anchor.key.bytes[0] = static_cast<uint8_t>(seed);
  anchor.key.bytes[1] = static_cast<uint8_t>(seed >> 8);
  anchor.sketch = SketchOf(RandomRows(3, tokens, 8, seed));
  anchor.filling = RandomOffset(3, tokens, 8, seed + 1000);
  anchor.prefix = RandomOffset(3, prefix_tokens, 8, seed + 2000);
  return anchor;
}

}  // namespace kedge::offset
