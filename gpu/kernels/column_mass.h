// How much attention each key gets from the last rows, while a prefill runs: the weights that
// attention.h multiplies values with, added up over rows, one sum a query head.
//
// What retention scores are made of: SnapKV (arXiv 2404.14469) takes the last 32 or 64 queries, H2O
// (2306.14048) and PrefixKV (2412.03409) all of them. No weight is kept: attention has left its
// log-sum-exp, so a weight is e^(scale q . k - log_sum_exp), made a tile of keys at a time.
//
// A score of a row is made in one fixed order and rows are added in ascending order, so the bits of
// a sum do not depend on how rows were cut into calls, nor on threads. attention_mass.h is the
// specification, in double; a row's weights agree with it within 1e-5. The CUDA twin agrees within
// 1e-4 a row.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "gpu/device/device_cpu.h"
#include "gpu/kernels/attention.h"

namespace kedge::kernels {

// Adds to mass[head * stride + key], for every head and the keys that they see, the weight that
// each of the rows [first_row, args.rows) gives to the key. Aborts when args.log_sum_exp is null or
// the stride is smaller than the keys. `v`, `out` and `scratch` are not looked at; a mask
// (`visible`) must be null. `mass` has heads * stride floats, of the device.
void ColumnMass(CpuDevice& device, const AttentionArgs& args, int64_t first_row, int64_t stride,
                float* mass);
void ColumnMassCuda(const AttentionArgs& args, int64_t first_row, int64_t stride, float* mass,
                    void* stream);

}  // namespace kedge::kernels
