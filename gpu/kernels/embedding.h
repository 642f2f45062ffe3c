// Looks tokens up in the embedding table: out[r] = table[tokens[r]].
//
// table is [vocabulary, width] fp32, out [rows, width]. Tokens must be in [0, vocabulary): the
// runner has checked them. Bit-exact on every device.
#pragma once

#include <cstdint>

#include "gpu/device/device_cpu.h"

namespace kedge::kernels {

void Embedding(CpuDevice& device, const float* table, const int32_t* tokens, int64_t rows,
               int64_t width, float* out);
void EmbeddingCuda(const float* table, const int32_t* tokens, int64_t rows, int64_t width,
                   float* out, void* stream);

}  // namespace kedge::kernels
