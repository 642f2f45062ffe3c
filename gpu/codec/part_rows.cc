#include "gpu/codec/part_rows.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "gpu/codec/hadamard.h"
#include "gpu/kernels/cast.h"

namespace kedge::codec {
namespace {

// sign -1 turns back.
void Turn(const kernels::RopeTable& rope, int64_t token, int64_t heads, int64_t head_size,
          float sign, float* row) {
  const int64_t half = head_size / 2;
  const float* cos = rope.cos.data() + token * half;
  const float* sin = rope.sin.data() + token * half;
  for (int64_t head = 0; head < heads; ++head) {
    float* low = row + head * head_size;
    float* high = low + half;
    for (int64_t i = 0; i < half; ++i) {
      const float a = low[i];
      const float b = high[i];
      const float s = sign * sin[i];
      low[i] = a * cos[i] - b * s;
      high[i] = b * cos[i] + a * s;
    }
  }
}

}  // namespace

void ReadRow(const SourceRows& source, int64_t token, int64_t heads, int64_t head_size,
             float* row) {
  const int64_t width = heads * head_size;
  kernels::CastToFloat(source.dtype,
                       source.data + token * width * kernels::FloatBytes(source.dtype), width, row);
  if (source.rope != nullptr) Turn(*source.rope, token, heads, head_size, -1.0f, row);
  if (source.hadamard) Hadamard(heads, head_size, row);
}

void WriteRow(const TargetRows& target, int64_t token, int64_t heads, int64_t head_size,
              const float* row) {
  std::vector<float> values(row, row + heads * head_size);
  if (target.hadamard) Hadamard(heads, head_size, values.data());
  if (target.rope != nullptr) Turn(*target.rope, token, heads, head_size, 1.0f, values.data());
  if (target.dtype == DType::kF16) {
    for (float& value : values) value = std::clamp(value, -kF16Max, kF16Max);
  }
  kernels::CastFromFloat(target.dtype, values.data(), heads * head_size, target.rows[token]);
}

int64_t FirstBadToken(const SourceRows& source, int64_t tokens, int64_t heads, int64_t head_size) {
  std::vector<float> row(heads * head_size);
  for (int64_t token = source.skip; token < tokens; ++token) {
    ReadRow(source, token, heads, head_size, row.data());
    for (float value : row) {
      if (!(std::abs(value) <= kF16Max)) return token;
    }
  }
  return -1;
}

}  // namespace kedge::codec
