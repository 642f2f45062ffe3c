// How much attention each key gets: the weights that attention.h multiplies values with, added up
// over rows. What attention sinks, retention and importance scores are measured from.
//
// A statistic made offline or at the side, not on the path of an answer: CPU only, in double, plain
// loops.
#pragma once

#include <span>

#include "gpu/device/device_cpu.h"
#include "gpu/kernels/attention.h"

namespace kedge::kernels {

// Adds to mass[head][key], [heads, first_position + rows], the softmax weight that every row of
// `args` gives to the key; each row adds 1 a head. `v`, `out` and `scratch` are not looked at.
void AttentionMass(CpuDevice& device, const AttentionArgs& args, std::span<double> mass);

}  // namespace kedge::kernels
