// The gated activation of Llama's and Qwen2's MLP: y = silu(gate) * up, silu(v) = v / (1 + e^-v).
// Shazeer, "GLU Variants Improve Transformer" (arXiv 2002.05202).
//
// gate_up is [rows, 2 * width] fp32, the gate's half first (one matmul computes both); y is
// [rows, width] and must not overlap it. The CUDA twin agrees within 1e-6 plus 1e-5 relative.
#pragma once

#include <cstdint>

#include "gpu/device/device_cpu.h"

namespace kedge::kernels {

void SwiGlu(CpuDevice& device, const float* gate_up, int64_t rows, int64_t width, float* y);
void SwiGluCuda(const float* gate_up, int64_t rows, int64_t width, float* y, void* stream);

}  // namespace kedge::kernels
