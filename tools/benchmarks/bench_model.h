// The model that benchmarks of the runner use: random weights of a mid-size geometry.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "gpu/device/device_cpu.h"
#include "gpu/model/model.h"

namespace kedge::bench {

// Width 1024, MLP 2816, 16 query heads and 4 KV heads of 64; 2048 positions.
ModelConfig MidSizeModel(int64_t layers);

// With random weights, by way of a temporary directory that is gone when loading has ended.
absl::StatusOr<std::unique_ptr<Model>> MakeModel(const ModelConfig& config, CpuDevice& device);

// The same at every call.
std::vector<int32_t> RandomTokens(int64_t count, const ModelConfig& config);

}  // namespace kedge::bench
