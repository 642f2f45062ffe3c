// Small random models for the tests of this room.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "gpu/model/model.h"

namespace kedge {

// 3 layers of width 64, 4 query heads and 2 KV heads of 16, tokens are bytes. Qwen2 has biases and
// tied embeddings.
ModelConfig TestingConfig(Architecture architecture);

// Random weights in fp32; written to TEST_TMPDIR and loaded.
std::unique_ptr<Model> MakeTestingModel(Architecture architecture, CpuDevice& device,
                                        const ModelOptions& options);

// The same tokens at every call; a shorter prompt begins a longer one.
std::vector<int32_t> TestingPrompt(int64_t tokens);

}  // namespace kedge
