#include <cstring>

#include "gpu/kernels/embedding.h"

namespace kedge::kernels {

void Embedding(CpuDevice& device, const float* table, const int32_t* tokens, int64_t rows,
               int64_t width, float* out) {
  device.ParallelFor(rows, [&](int64_t row) {
    std::memcpy(out + row * width, table + tokens[row] * width, width * sizeof(float));
  });
}

}  // namespace kedge::kernels
