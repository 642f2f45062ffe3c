#include <cmath>

#include "gpu/kernels/rope.h"

namespace kedge::kernels {
namespace {

constexpr float kTwoPi = 6.28318530717958647692f;

float ScaledFrequency(float frequency, const RopeScaling& scaling) {
  if (scaling.kind == RopeScalingKind::kNone) return frequency;
  if (scaling.kind == RopeScalingKind::kLinear) return frequency / scaling.factor;
  const float original = static_cast<float>(scaling.original_max_positions);
  const float wavelength = kTwoPi / frequency;
  if (wavelength < original / scaling.high_freq_factor) return frequency;
  if (wavelength > original / scaling.low_freq_factor) return frequency / scaling.factor;
  const float smooth = (original / wavelength - scaling.low_freq_factor) /
                       (scaling.high_freq_factor - scaling.low_freq_factor);
  return (1.0f - smooth) * frequency / scaling.factor + smooth * frequency;
}

}  // namespace

std::vector<float> RopeFrequencies(int64_t head_size, float theta, const RopeScaling& scaling) {
  std::vector<float> frequencies(head_size / 2);
  for (int64_t i = 0; i < head_size / 2; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_size);
    frequencies[i] = ScaledFrequency(1.0f / std::pow(theta, exponent), scaling);
  }
  return frequencies;
}

RopeTable MakeRopeTable(const std::vector<float>& frequencies, int64_t first_position,
                        int64_t rows) {
  const int64_t half = static_cast<int64_t>(frequencies.size());
  RopeTable table;
  table.cos.resize(rows * half);
  table.sin.resize(rows * half);
  for (int64_t row = 0; row < rows; ++row) {
    const float position = static_cast<float>(first_position + row);
    for (int64_t i = 0; i < half; ++i) {
      const float angle = position * frequencies[i];
      table.cos[row * half + i] = std::cos(angle);
      table.sin[row * half + i] = std::sin(angle);
    }
  }
  return table;
}

RopeTable Inverse(RopeTable table) {
  for (float& sin : table.sin) sin = -sin;
  return table;
}

void Rope(CpuDevice& device, const RopeTable& table, int64_t rows, int64_t heads, int64_t head_size,
          int64_t row_stride, float* x) {
  const int64_t half = head_size / 2;
  device.ParallelFor(rows, [&](int64_t row) {
    const float* cos = table.cos.data() + row * half;
    const float* sin = table.sin.data() + row * half;
    for (int64_t head = 0; head < heads; ++head) {
      float* low = x + row * row_stride + head * head_size;
      float* high = low + half;
      for (int64_t i = 0; i < half; ++i) {
        const float a = low[i];
        const float b = high[i];
        low[i] = a * cos[i] - b * sin[i];
        high[i] = b * cos[i] + a * sin[i];
      }
    }
  });
}

}  // namespace kedge::kernels
