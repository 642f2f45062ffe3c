// Root mean square normalisation: y[r] = x[r] / sqrt(mean(x[r]^2) + epsilon) * weight.
// Zhang and Sennrich, "Root Mean Square Layer Normalization" (arXiv 1910.07467), as in Llama.
//
// x and y are [rows, width] fp32 and may be the same memory; weight is [width]. A row's bits depend
// on that row only. The CUDA twin agrees within 1e-5 relative.
#pragma once

#include <cstdint>

#include "gpu/device/device_cpu.h"

namespace kedge::kernels {

void RmsNorm(CpuDevice& device, const float* x, const float* weight, float epsilon, int64_t rows,
             int64_t width, float* y);
void RmsNormCuda(const float* x, const float* weight, float epsilon, int64_t rows, int64_t width,
                 float* y, void* stream);

}  // namespace kedge::kernels
