// Rotary position embedding in the "rotate half" layout of Hugging Face's Llama and Qwen2.
// Su et al., "RoFormer" (arXiv 2104.09864). Pair i of a head of size d is (x[i], x[i + d/2]) and
// turns by position * frequency[i]; frequency[i] = theta^(-2i/d), changed by `RopeScaling`.
//
// As in the engines, frequencies and angles are fp32, so that angles at large positions agree with
// theirs. The CUDA twin agrees within 1e-6 absolute for inputs of unit size.
#pragma once

#include <cstdint>
#include <vector>

#include "gpu/device/device_cpu.h"

namespace kedge::kernels {

enum class RopeScalingKind { kNone, kLinear, kLlama3 };

// The fields of config.json's `rope_scaling` that change frequencies.
struct RopeScaling {
  RopeScalingKind kind = RopeScalingKind::kNone;
  float factor = 1.0f;
  // Llama 3.1 only: wavelengths shorter than original/high_freq_factor stay, longer than
  // original/low_freq_factor are stretched by `factor`, between them a blend.
  float low_freq_factor = 1.0f;
  float high_freq_factor = 4.0f;
  int64_t original_max_positions = 8192;

  friend bool operator==(const RopeScaling&, const RopeScaling&) = default;
};

// head_size / 2 frequencies.
std::vector<float> RopeFrequencies(int64_t head_size, float theta, const RopeScaling& scaling);

// cos and sin of `rows` positions from `first_position` on; each [rows, frequencies.size()].
struct RopeTable {
  std::vector<float> cos;
  std::vector<float> sin;
};
RopeTable MakeRopeTable(const std::vector<float>& frequencies, int64_t first_position,
                        int64_t rows);

// The rotation back: a table whose angles are the negative ones.
RopeTable Inverse(RopeTable table);

// Rotates in place the first `heads` heads of each row: x is [rows, row_stride] fp32, a head is
// head_size values (even), row r stands at the table's row r.
void Rope(CpuDevice& device, const RopeTable& table, int64_t rows, int64_t heads, int64_t head_size,
          int64_t row_stride, float* x);
// cos and sin are device memory of the table's shape.
void RopeCuda(const float* cos, const float* sin, int64_t rows, int64_t heads, int64_t head_size,
              int64_t row_stride, float* x, void* stream);

}  // namespace kedge::kernels
