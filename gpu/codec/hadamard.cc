#include "gpu/codec/hadamard.h"

#include <cmath>

namespace kedge::codec {

void Hadamard(int64_t rows, int64_t head_size, float* x) {
  const int64_t block = HadamardBlock(head_size);
  const float norm = 1.0f / std::sqrt(static_cast<float>(block));
  for (float* from = x; from < x + rows * head_size; from += block) {
    for (int64_t step = 1; step < block; step *= 2) {
      for (int64_t i = 0; i < block; i += 2 * step) {
        for (int64_t j = i; j < i + step; ++j) {
          const float a = from[j];
          const float b = from[j + step];
          from[j] = a + b;
          from[j + step] = a - b;
        }
      }
    }
    for (int64_t i = 0; i < block; ++i) from[i] *= norm;
  }
}

}  // namespace kedge::codec
