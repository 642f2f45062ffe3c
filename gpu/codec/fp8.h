// fp8: E4M3 (OFP8, arXiv 2209.05433: bias 7, largest 448, no infinities, NaN is S.1111.111), one
// scale a part.
//
//     scale = largest |x| of the part / 448, an f32; 0 where all values are 0
//     code  = E4M3, nearest with ties to even, of x * (1 / scale), clamped to [-448, 448]
//     x^    = value(code) * scale
//
// Bytes: u8 codes [tokens][kv_heads * head_size]; the scale is in the part's header. Skipped tokens
// have code 0 and do not count. Scalar code is the specification; Fp8Encode and Fp8Decode give the
// same bits with vectors, and so does the CUDA twin.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "gpu/codec/part_rows.h"

namespace kedge::codec {

struct Fp8Layout {
  int64_t tokens = 0;
  int64_t heads = 0;
  int64_t head_size = 0;

  int64_t channels() const { return heads * head_size; }
  int64_t bytes() const { return tokens * channels(); }
};

inline constexpr float kE4m3Max = 448.0f;

// `value` must be in [-448, 448].
uint8_t FloatToE4m3(float value);
// NaN for 0x7f and 0xff.
float E4m3ToFloat(uint8_t code);

// Writes layout.bytes() bytes and the scale. False when a value is NaN or infinite or, after
// turning, above 65504: FirstBadToken says where.
bool Fp8Encode(const Fp8Layout& layout, const SourceRows& source, float* scale, uint8_t* out);
bool Fp8EncodeScalar(const Fp8Layout& layout, const SourceRows& source, float* scale, uint8_t* out);

// The largest scale that Fp8Encode writes.
inline constexpr float kFp8ScaleMax = kF16Max / kE4m3Max;

// InvalidArgument naming `part`, the field and its value: a scale not in [0, kFp8ScaleMax], or a
// code that is NaN.
absl::Status Fp8Check(const Fp8Layout& layout, const std::string& part, float scale,
                      const uint8_t* in);

// Reads bytes that Fp8Check has passed; converts, turns and scatters in one pass.
void Fp8Decode(const Fp8Layout& layout, float scale, const uint8_t* in, const TargetRows& target);
void Fp8DecodeScalar(const Fp8Layout& layout, float scale, const uint8_t* in,
                     const TargetRows& target);

// On the GPU, as KiviEncodeCuda and KiviDecodeCuda. `scale` is device memory; encoding wants it 0.
void Fp8EncodeCuda(const Fp8Layout& layout, DType dtype, const void* data, const float* cos,
                   const float* sin, int64_t skip, float* scale, uint8_t* out, int* bad,
                   void* stream);
void Fp8DecodeCuda(const Fp8Layout& layout, const float* scale, const uint8_t* in, DType dtype,
                   uint8_t* const* rows, const float* cos, const float* sin, int64_t skip,
                   void* stream);

}  // namespace kedge::codec
